"""The flows of changes, and production's two credentials: one that reads, one that only a promote opens."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.conninfo import make_conninfo
from sqlalchemy import Engine

from orchestrator import config
from orchestrator.config import Settings
from orchestrator.core.ports.code import CodeSide
from orchestrator.core.ports.differ import DiffLimits
from orchestrator.core.ports.production import CredentialFinding
from orchestrator.core.promotion.order import WriteLimits
from orchestrator.core.promotion.rules import PromotionRules, parse_rules
from orchestrator.demo import hotels
from orchestrator.drivers.postgres.apply.production import PostgresProduction
from orchestrator.drivers.postgres.diff.differ import PostgresDiffer
from orchestrator.errors import InvalidInput, OrchestratorError
from orchestrator.flows.change import ChangeFlow
from orchestrator.flows.merged import MergedFlow
from orchestrator.flows.promote import PromoteFlow
from orchestrator.flows.rehearse import RehearseFlow
from orchestrator.flows.revert import RevertFlow
from orchestrator.flows.review import ReviewFlow
from orchestrator.parts.checking import Checks
from orchestrator.parts.copies import Copies
from orchestrator.parts.differences import Differences
from orchestrator.parts.generation import Generations
from orchestrator.parts.promoting import Promoting
from orchestrator.parts.proposal import Proposals
from orchestrator.setup.steps import CheckResult
from orchestrator.wiring import secrets, servers
from orchestrator.wiring.drivers import Drivers, make_drivers


class ProductionNotConfigured(InvalidInput):
    """Nobody has said where approved changes are written to."""

    code = "invalid.no_production"


@dataclass(frozen=True)
class ChangeServices:
    """Everything about changes."""

    changes: ChangeFlow
    review: ReviewFlow
    promote: PromoteFlow
    revert: RevertFlow
    rehearse: RehearseFlow
    checks: Checks
    credential: CredentialCheck
    copies: Copies
    merged: MergedFlow | None

    def settle(self) -> list[str]:
        """What a process that died left open is found out, what waited too long lapses; says what was done.

        Safe at any time, in any process.
        """
        done = [f"promotion {name}: {state.value}" for name, state in self.promote.recover().items()]
        done += [f"revert {name}: {state.value}" for name, state in self.revert.recover().items()]
        done += [f"change {change.id}: {change.reason}" for change in self.review.expire()]
        done += self.merged.run() if self.merged else []
        return done + [f"removed the left-over rehearsal {name}" for name in self.copies.sweep()]


@dataclass(frozen=True)
class CredentialCheck:
    """What `doctor` asks about the promote credential."""

    settings: Settings
    drivers: Drivers

    def run(self) -> list[CredentialFinding]:
        """Raises ProductionUnreachable, ProductionNotConfigured."""
        return writer(self.settings, self.drivers).check_credential(rules(self.settings).promotable)


def credential_results(settings: Settings) -> list[CheckResult]:
    """The promote credential's findings as `doctor` shows them; one line when there is nothing to say.

    A production nobody has configured, or a demo that does not run, is no fault.
    """
    name = "promote credential"
    try:
        drivers = make_drivers(settings)
        try:
            found = CredentialCheck(settings, drivers).run()
        finally:
            drivers.engine.connection.close()
    except ProductionNotConfigured:
        return [CheckResult(name, True, note="not configured: nothing can be promoted")]
    except OrchestratorError as error:
        if settings.production.is_demo and not settings.production.primary.dsn:
            return [CheckResult(name, True, note="not checked: the demo's production does not run")]
        return [CheckResult(name, False, error.message, error.next_step)]
    faults = [CheckResult(name, False, one.message, one.next_step) for one in found if one.fatal]
    remarks = [CheckResult(name, True, note=f"{one.message} {one.next_step}".strip()) for one in found if not one.fatal]
    return [*faults, *remarks] or [CheckResult(name, True)]


def change_services(drivers: Drivers, store: Engine, generations: Generations, code: CodeSide | None) -> ChangeServices:
    """Make the flows; neither credential is read before it is needed."""
    settings = drivers.settings
    section = settings.changes
    differences = Differences(
        store,
        drivers.servers,
        generations,
        PostgresDiffer(),
        DiffLimits(rows_max=section.rows_max, timeout_s=section.diff_timeout),
    )
    limits = WriteLimits(lock_timeout_s=section.lock_timeout, statement_timeout_s=section.statement_timeout)
    proposals = Proposals(lambda: rules(settings), limits=limits)
    copies = Copies(drivers.servers, drivers.volume, drivers.places, generations, settings.instance)
    checks = Checks(
        differences=differences,
        proposals=proposals,
        reader=(lambda: reader(settings, drivers)) if settings.production.mirror.dump is None else None,
        copies=copies,
        at=PostgresProduction,
        code=code,
    )
    promoting = Promoting(store, drivers.audit, lambda: writer(settings, drivers), code)
    return ChangeServices(
        changes=ChangeFlow(store, drivers.audit, checks),
        review=ReviewFlow(store, drivers.audit, lambda: rules(settings)),
        promote=PromoteFlow(store, drivers.audit, checks, promoting),
        revert=RevertFlow(store, proposals, promoting),
        rehearse=RehearseFlow(store, drivers.audit, checks, lambda: writer(settings, drivers)),
        checks=checks,
        credential=CredentialCheck(settings, drivers),
        copies=copies,
        merged=None
        if code is None
        else MergedFlow(store, drivers.audit, code, drivers.repository, settings.branch.production),
    )


def rules(settings: Settings) -> PromotionRules:
    """configs/promotion.yaml as it is now. Raises InvalidConfiguration or InvalidPromotionRules."""
    return parse_rules(config.read_yaml(settings.file("promotion")))


def reader(settings: Settings, drivers: Drivers) -> PostgresProduction:
    """Production to compare with, by the mirror's read-only credential."""
    mirror = settings.production.mirror
    if mirror.dsn:
        return _production(mirror.dsn, mirror.credential())
    return _demo(settings, drivers, hotels.READER, "demo-mirror.password")


def writer(settings: Settings, drivers: Drivers) -> PostgresProduction:
    """Production to write to: called by a promote, a revert, a rehearsal on production and doctor, nowhere else."""
    primary = settings.production.primary
    if primary.dsn:
        return _production(primary.dsn, primary.credential())
    if not settings.production.is_demo:
        raise ProductionNotConfigured(
            "No address of production is configured to write to.",
            effect="Nothing was promoted.",
            next_step="Set production.primary in configs/orchestrator.yaml.",
        )
    return _demo(settings, drivers, hotels.PROMOTER, "demo-primary.password")


def _demo(settings: Settings, drivers: Drivers, user: str, secret_name: str) -> PostgresProduction:
    sockets = servers.production(settings).sockets
    dsn = drivers.servers.dsn(sockets, user=user, database=hotels.DATABASE)
    return _production(dsn, secrets.text(settings.places.secrets, secret_name))


def _production(dsn: str, password: str | None) -> PostgresProduction:
    return PostgresProduction(make_conninfo(dsn, password=password) if password else dsn)
