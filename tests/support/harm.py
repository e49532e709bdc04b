"""Names, cells, files, output and errors written to do harm, in everything a page may show."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from sqlalchemy import Connection, Engine, func, insert, text, update

from orchestrator.core.audit import AuditEvent, Result
from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.changeset.risks import Risk, RiskKind, Severity
from orchestrator.core.changeset.rows import RowChange, RowKind
from orchestrator.core.changeset.shape import Column, TableName, TableShape
from orchestrator.core.ports.engine import Container
from orchestrator.core.probes import BOUNDARIES, Outcome, Probe
from orchestrator.core.promotion.findings import Finding
from orchestrator.core.snapshots import Manifest, TableReport
from orchestrator.core.tenants import Tenant
from orchestrator.errors import OutsideFailure
from orchestrator.flows.containers import ContainersFlow
from orchestrator.flows.snapshot import Snapshots
from orchestrator.store import changes, jobs, leaders, probes, samples, sessions, tenants
from orchestrator.store.tables.approvals import APPROVALS
from orchestrator.store.tables.changes import CHANGES
from orchestrator.store.tables.commands import COMMAND_OUTPUTS, COMMANDS
from orchestrator.store.tables.generations import GENERATIONS
from orchestrator.store.tables.jobs import JOBS
from orchestrator.store.tables.policies import POLICIES
from orchestrator.store.tables.publishes import PUBLISHES
from orchestrator.store.tables.refreshes import POSTPONEMENTS, REFRESHES, SLOTS
from orchestrator.store.tables.samples import LEADERS
from orchestrator.store.tables.sessions import SESSIONS
from orchestrator.store.tables.snapshots import SNAPSHOTS
from orchestrator.store.tables.tenants import STEPS, TENANTS
from orchestrator.store.tables.tokens import TOKENS
from tests.support.crowd import SOMEBODY, Crowd

HARM = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>\"'` {{ 7919*7 }} "
    "\u202egnp.exe\u2066\u200b\x1b[31;1mred\x1b[0m\x1b]8;;http://evil\x07\x08 \u0085\u2028"
)
FILE = "<script>alert(3)<img src=x onerror=alert(4)>\u202egnp\x1b[31m.txt"
LONG = "very long " * 2000
NOW = datetime.now(UTC)
GIB = 2**30


def harm_everywhere(crowd: Crowd, directory: Path) -> None:
    """Into every record, flow and file the pages of `crowd` show."""
    house = crowd.house
    north = tenants.named(house.store, "north")
    _records(house.store, north, crowd.known)
    _flows(house.services, house.store)
    for name in (FILE, "harm.txt"):
        (directory / "tree" / name).write_text(f"{HARM}\n{LONG}\n")
    for number in range(30):
        details = {"argv": [HARM, str(number)], "why": HARM}
        house.audit.append(
            AuditEvent(SOMEBODY, "command.run", tenant="north", target=HARM, result=Result.OK, details=details)
        )
    probes.add(house.store, north.id, [Probe(one.id, Outcome.BROKEN, HARM, HARM) for one in BOUNDARIES])
    for user in crowd.people.values():
        sessions.begin(house.store, user.id, house.services.settings.proxy.console_host, lifetime_s=600)
    with house.store.begin() as connection:  # so that they stay those that were used last
        later = func.now() + text("interval '1 minute'")
        connection.execute(update(SESSIONS).values(address=HARM[:64], agent=HARM, seen_at=later))


class _Containers:
    """One container that prints harm."""

    def containers(self, *, tenant_id: str | None = None) -> list[Container]:
        return [Container("1", "o-sandbox", "sandbox", tenant_id or "", "", True, None, None, HARM, 0, HARM)]

    def logs(self, name: str, *, lines: int = 200) -> str:
        return f"{HARM}\n" * lines


class _Broken:
    """An engine and a proxy that fail with harm."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise OutsideFailure(HARM, effect=HARM, next_step=HARM)


def _flows(services: SimpleNamespace, store: Engine) -> None:
    services.containers = ContainersFlow(_Containers())  # type: ignore[arg-type]
    volume = SimpleNamespace(free_bytes=lambda: 3 * GIB, total_bytes=lambda: 100 * GIB, is_reflink=True)
    services.sample = SimpleNamespace(volume=volume)
    services.installation = SimpleNamespace(drivers=_Broken())
    profile = SimpleNamespace(description=f"{HARM} {LONG}")
    masking = SimpleNamespace(
        profiles={"full": profile, "<script>alert(5)</script>": profile}, columns={f"public.{HARM}": {HARM: "keep"}}
    )
    unused = {one.name: cast(Any, None) for one in dataclasses.fields(Snapshots) if one.default is dataclasses.MISSING}
    services.snapshots = Snapshots(**{**unused, "control": store, "masking": lambda: masking, "references": ()})
    services.changes = SimpleNamespace(changes=SimpleNamespace(diff=lambda _: _preview()))


def _preview() -> Any:
    """What a tenant's database holds that means harm."""
    found = large(300)
    risk = Risk(next(iter(RiskKind)), Severity.WARNING, HARM)
    findings = [Finding("x", HARM, HARM, HARM, HARM, HARM, HARM, LONG, HARM)] * 60
    noted = replace(found, notes=(HARM, LONG))
    return SimpleNamespace(
        result=SimpleNamespace(changeset=noted),
        examined=SimpleNamespace(changeset=noted, findings=findings),
        risks=[risk] * 60,
    )


def large(rows: int = 10_000) -> Changeset:
    """A table with a name, columns and cells that mean harm."""
    names = ("id", HARM[:60], "note")
    shape = TableShape(
        TableName("public", HARM[:50]), tuple(Column(one, "text", base="text") for one in names), primary_key=("id",)
    )
    found = []
    for number in range(rows):
        old = {"id": f"{HARM} {number}", names[1]: HARM, "note": LONG if number < 50 else None}
        found.append(RowChange(shape.table, RowKind.UPDATE, (old["id"],), old, {**old, names[1]: f"new {HARM}"}))
    return Changeset.build("s1", {shape.table: shape}, found)


def _records(store: Engine, north: Tenant, known: dict[str, str]) -> None:
    with store.begin() as connection:
        _of_changes(connection, known)
        _of_commands(connection, north)
        _of_data(connection, north)
        connection.execute(
            insert(PUBLISHES).values(
                id="p1", tenant_id=north.id, state="refused", reason=HARM, actor=HARM, error=HARM, commit=HARM
            )
        )
        connection.execute(
            insert(STEPS).values(
                tenant_id=north.id, operation="launch", operation_id="o", step="sandbox", state="failed", error=HARM
            )
        )
        connection.execute(update(TENANTS).where(TENANTS.c.id == north.id).values(reason=HARM, scope=HARM, image=HARM))
        connection.execute(update(TOKENS).values(name=HARM))
        connection.execute(update(POLICIES).values(author=HARM, reason=HARM))
    jobs.add_line(store, known["job_id"], HARM)
    leaders.ticked(store, "vm:1")
    with store.begin() as connection:
        connection.execute(update(LEADERS).values(holder=HARM, error=HARM))
    samples.add_usage(store, [samples.UsageSample(north.id, NOW, 90 * 2**20, 96 * 2**20, 1.0)])


def _of_changes(connection: Connection, known: dict[str, str]) -> None:
    finding = {"code": "x", "message": HARM, "table": HARM, "column": HARM, "key": HARM, "was": HARM, "now": LONG}
    change = changes.get(connection, known["change_id"])
    held = changes.save_rows(connection, change, large(), title=HARM[:190], description=f"{HARM} {LONG}"[:20_000])
    connection.execute(
        update(CHANGES)
        .where(CHANGES.c.id == held.id)
        .values(
            state="submitted",
            reason=HARM,
            author={"kind": "agent", "id": "x", "name": HARM, "on_behalf_of": "u"},
            checks={"rules": {"findings": [finding] * 90, "blocking": 90, "where": HARM, "skipped": HARM}},
            risks=[{"code": "x", "severity": "warning", "sentence": HARM}] * 60,
        )
    )
    for said in (HARM, LONG):
        changes.comment(connection, held.id, SOMEBODY, said)
    known["row_id"] = large(1).rows[0].id()
    draft = changes.add(
        connection,
        tenant_id=held.tenant_id,
        tenant_name=held.tenant_name,
        title=HARM[:190],
        description=LONG,
        author=SOMEBODY,
        generation_id=None,
        changeset=large(3),
        digest="1" * 64,
        code_head=None,
    )
    connection.execute(update(CHANGES).where(CHANGES.c.id == draft.id).values(state="draft", risks=[]))


def _of_commands(connection: Connection, north: Tenant) -> None:
    connection.execute(update(COMMANDS).values(argv=["ls", HARM, LONG], actor_name=HARM, reason=HARM, error=HARM))
    output = (HARM.encode() + b"\xff\xfe\n") * 20_000
    connection.execute(insert(COMMAND_OUTPUTS).values(command_id="k1", seq=0, stream="stderr", data=output))
    denied = {
        "tenant_id": north.id,
        "tenant": HARM,
        "actor_kind": "agent",
        "actor_id": "x",
        "actor_name": HARM,
        "cwd": HARM,
        "place": "sandbox",
        "network": "none",
        "decision": "deny",
        "policy_version": 1,
        "state": "denied",
        "rule": HARM,
        "reason": HARM,
    }
    for number, argv in enumerate((["query", HARM], ["query", f"{HARM} {LONG}"], [HARM, LONG])):
        connection.execute(insert(COMMANDS).values({**denied, "id": f"k2{number}", "argv": argv}))
    connection.execute(update(APPROVALS).values(argv=["rm", HARM], reason=HARM, actor_name=HARM))


def _of_data(connection: Connection, north: Tenant) -> None:
    connection.execute(update(JOBS).values(reason=HARM, doing=HARM, requested_by=HARM, error=HARM, kind=HARM[:30]))
    connection.execute(update(REFRESHES).values(reason=HARM, requested_by=HARM, carried=HARM, error=HARM))
    connection.execute(insert(POSTPONEMENTS).values(tenant_id=north.id, requested_by=HARM, reason=HARM))
    connection.execute(
        insert(GENERATIONS).values(id=HARM, tenant_id=north.id, snapshot_id=HARM, state="removed", created_at=NOW)
    )
    slot = {"kind": "refresh", "due_at": NOW, "outcome": "skipped", "reason": f"{HARM} {LONG}"}
    for key, target in (("1", north.id), ("2", HARM)):
        connection.execute(insert(SLOTS).values({**slot, "key": key, "target": target}))
    found = Manifest(
        snapshot_id="s1",
        profile=HARM,
        source=HARM,
        taken_at=NOW,
        server_version=HARM,
        major=18,
        encoding=HARM,
        collation=HARM,
        origin_lsn="0/0",
        system_id="1",
        files=3,
        size_bytes=GIB,
        tables={f"public.{HARM}": TableReport(1, 1, 1), f"public.{LONG}": TableReport(1, 1, 1)},
        masked={f"public.{HARM}.{HARM.replace('.', '')}": HARM, f"public.{LONG}.{LONG}": LONG},
        canaries=9,
        checksummed_blocks=1,
        left_out=(HARM, LONG),
    )
    snapshot = {"profile": HARM, "step": "mask", "source": f"{HARM} {LONG}", "image": HARM, "started_at": NOW}
    ready = {"id": "s1", "state": "ready", "taken_at": NOW, "manifest": json.loads(json.dumps(found.document()))}
    failed = {"id": HARM[:40], "state": "failed", "error_code": HARM, "error_message": f"{HARM} {LONG}"}
    for one in (ready, failed):
        connection.execute(insert(SNAPSHOTS).values({**snapshot, **one}))
