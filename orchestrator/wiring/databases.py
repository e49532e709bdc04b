"""What `doctor` says of databases that are not ours to run: before anything fails for them."""

from __future__ import annotations

from orchestrator import config
from orchestrator.config import Settings
from orchestrator.core.masking import rules as masking_rules
from orchestrator.core.masking.plan import plan
from orchestrator.core.ports.snapshots import SourceFacts
from orchestrator.drivers.postgres.snapshot_source import read_facts
from orchestrator.errors import OrchestratorError
from orchestrator.setup.images import postgres_major
from orchestrator.setup.steps import CheckResult
from orchestrator.store.opening import look
from orchestrator.store.session import connect

CONTROL = "control database"
NAME = "production's mirror"
OFFICIAL = "Name an official image that has them under images.postgres (postgres:18, postgis/postgis:17-3.5)"


def control_results(settings: Settings) -> list[CheckResult]:
    """A control database named by its address lets us in and lets us make tables; nothing for our own."""
    try:
        url = settings.control_url()
        if not url:
            return []
        store = connect(url, connections_max=2)
        try:
            version = look(store)
        finally:
            store.dispose()
    except OrchestratorError as error:
        return [CheckResult(CONTROL, False, error.message, error.next_step)]
    return [CheckResult(CONTROL, True, note=f"PostgreSQL {version}")]


def mirror_results(settings: Settings) -> list[CheckResult]:
    """Reachable, readable, fit for the tenants' PostgreSQL, every column classified; nothing for the demo's own."""
    mirror = settings.production.mirror
    if settings.production.is_demo:
        return []
    if mirror.dump is not None:
        is_there = mirror.dump.exists()
        cause, cure = f"there is no dump at {mirror.dump}", "Put it there, or correct production.mirror.dump."
        return [CheckResult(NAME, is_there, "" if is_there else cause, "" if is_there else cure, f"{mirror.dump}")]
    try:
        facts = read_facts(mirror.dsn, mirror.credential())
    except OrchestratorError as error:
        cause = " ".join(part for part in (error.message, error.effect) if part)
        return [CheckResult(NAME, False, cause, error.next_step)]
    found = [*_unfit(settings, facts), *_unclassified(settings, facts)]
    if found:
        return found
    tables = len({column.table for column in facts.columns})
    return [
        CheckResult(NAME, True, note=f"PostgreSQL {facts.version}, {tables} tables, {facts.size_bytes >> 20} MB"),
        *(CheckResult(NAME, True, note=f"its credential does more than read: {what}") for what in facts.excess),
    ]


def _unfit(settings: Settings, facts: SourceFacts) -> list[CheckResult]:
    try:
        major = postgres_major(settings.places)
    except OrchestratorError:
        return []  # set-up's own checks say that there are no images yet
    if facts.major > major:
        cause = f"it is PostgreSQL {facts.major}, the tenants' image has {major}"
        cure = f"Name an image of PostgreSQL {facts.major} under images.postgres, then make setup."
        return [CheckResult(NAME, False, cause, cure)]
    if facts.extensions and not settings.images.postgres:
        names = ", ".join(sorted(facts.extensions))
        cause = f"it uses extensions ({names}), and the image made by set-up has none"
        return [CheckResult(NAME, False, cause, f"{OFFICIAL}, then make setup.")]
    return []


def _unclassified(settings: Settings, facts: SourceFacts) -> list[CheckResult]:
    try:
        rules = masking_rules.parse(config.read_yaml(settings.file("masking")))
        plan(rules, settings.tenants.snapshot_profile, facts.columns)
    except OrchestratorError as error:
        return [CheckResult("masking", False, error.message, error.next_step)]
    return []
