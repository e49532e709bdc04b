"""The steps of one writing transaction, from the first lock to the last check."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from orchestrator.core.changeset.rows import ProvisionalKey, RowKind
from orchestrator.core.ports.production import Applied, PromotionConflicted
from orchestrator.core.promotion.assigned import replace
from orchestrator.core.promotion.catalog import Catalog
from orchestrator.core.promotion.findings import Finding, blocking
from orchestrator.core.promotion.inverse import inverse_changeset
from orchestrator.core.promotion.order import PromotionOrder
from orchestrator.core.promotion.planning import Plan, RowsNow, RowWrite, Spellings, drift, plan_writes
from orchestrator.core.promotion.waves import Waves, order_updates
from orchestrator.drivers.postgres.apply import migrations
from orchestrator.drivers.postgres.apply.catalog import read_production_catalog
from orchestrator.drivers.postgres.apply.keys import draw_keys
from orchestrator.drivers.postgres.apply.neighbours import check_neighbours
from orchestrator.drivers.postgres.apply.rows import lock_and_read, settle_spellings
from orchestrator.drivers.postgres.apply.session import Session, pin, use_default_search_path
from orchestrator.drivers.postgres.apply.statement import Statement, build_parts, build_placeholders, build_statements
from orchestrator.drivers.postgres.apply.verify import Verified, read_counters, side_effects, verify

# Serialises promotes of one production: the second one fails at once instead of waiting with rows locked.
_ONE_AT_A_TIME = "SELECT pg_catalog.pg_try_advisory_xact_lock(7310577231442)"


@dataclass
class Written:
    """Everything one transaction did, before its commit."""

    catalog: Catalog
    plan: Plan
    writes: list[RowWrite]
    verified: Verified
    assigned: dict[ProvisionalKey, str]
    effects: dict[str, dict[str, int]]
    findings: list[Finding] = field(default_factory=list)
    migrations: list[str] = field(default_factory=list)


def settled_plan(session: Session, order: PromotionOrder, catalog: Catalog, now: RowsNow) -> Plan:
    """Plan; where texts differ, ask production how it spells them and plan again."""
    spellings = Spellings()
    plan = plan_writes(order, catalog, now, spellings)
    if spellings.open:
        spellings.canonical = settle_spellings(session, catalog, spellings.open)
        plan = plan_writes(order, catalog, now, spellings)
    return plan


def write(session: Session, order: PromotionOrder, on_transaction: Callable[[str], None]) -> Written:
    """Run every step but the commit, in the open transaction. Raises PromotionConflicted with all findings known."""
    if session.text(_ONE_AT_A_TIME) != "t":
        raise psycopg.errors.LockNotAvailable("another promote is writing to production")
    on_transaction(session.text("SELECT pg_catalog.pg_current_xact_id()"))
    ran = migrations.run(session, order.migrations, role=order.migration_role)
    if ran:
        pin(session, order.limits, order.settings)
    catalog = read_production_catalog(session)
    _stop(drift(order, catalog))
    now = lock_and_read(session, order, catalog)
    plan = settled_plan(session, order, catalog, now)
    _stop(plan.findings)
    findings = check_neighbours(session, order, catalog, plan.writes, clashes=False)
    _stop(findings)
    assigned = draw_keys(session, catalog, plan.writes)
    replace(plan.writes, assigned)
    waves = order_updates(plan.writes, catalog)
    _stop(waves.findings)
    before = read_counters(session)
    use_default_search_path(session)
    _run(session, order, plan.writes, waves, catalog)
    session.execute("SET CONSTRAINTS ALL IMMEDIATE")
    pin(session, order.limits, order.settings)
    verified = verify(session, order, catalog, plan.writes)
    effects, told = side_effects(
        before, read_counters(session), plan.writes, [row for row, _ in waves.placeholders], catalog
    )
    return Written(catalog, plan, plan.writes, verified, assigned, effects, [*findings, *told], ran)


def _stop(findings: Sequence[Finding]) -> None:
    stopping = blocking(findings)
    if stopping:
        raise PromotionConflicted(stopping)


def _run(session: Session, order: PromotionOrder, writes: list[RowWrite], waves: Waves, catalog: Catalog) -> None:
    placeholders = frozenset((row.id, column) for row, column in waves.placeholders)
    for statement in build_placeholders(waves, order, catalog):
        _expect(statement, [session.execute(statement.query, statement.parameters)])
    statements = build_statements(build_parts(writes, waves, catalog), order, placeholders)
    if placeholders or len(statements) > 1:
        _defer_uniques(session, catalog)
    for statement in statements:
        counts = session.texts(statement.query, statement.parameters)[0]
        _expect(statement, [int(count or 0) for count in counts])


def _defer_uniques(session: Session, catalog: Catalog) -> None:
    """Deferrable unique constraints checked after each statement would refuse a value handed over by two of them."""
    names = sorted(
        (table.name.schema, key.name)
        for table in catalog
        for key in table.shape.unique_keys
        if key.deferrable and not key.initially_deferred
    )
    if names:
        constraints = sql.SQL(", ").join(sql.Identifier(schema, name) for schema, name in names)
        session.execute(sql.SQL("SET CONSTRAINTS {} DEFERRED").format(constraints))


def _expect(statement: Statement, counts: Sequence[int]) -> None:
    findings = []
    for part, count in zip(statement.parts, counts, strict=True):
        if count != len(part.writes):
            name = str(part.table.name)
            text = f"{part.kind} on {name} wrote {count} of {len(part.writes)} rows."
            hooks = [*part.table.triggers, *part.table.rules]
            if hooks:
                text += f" Triggers and rules there: {', '.join(hooks)}."
            findings.append(Finding("not_written", text, table=name))
    if findings:
        raise PromotionConflicted(findings)


def summary(order: PromotionOrder, written: Written, transaction_id: str, started: float) -> Applied:
    """What is reported and remembered once the transaction is committed."""
    guards = {name: scope.column for name, scope in order.scopes.items()}
    kinds = [row.kind for row in written.writes]
    assigned: dict[str, dict[str, str]] = {}
    for key, value in written.assigned.items():
        assigned.setdefault(f"{key.table}.{key.column}", {})[key.text] = value
    return Applied(
        transaction_id,
        inserted=kinds.count(RowKind.INSERT),
        updated=kinds.count(RowKind.UPDATE),
        deleted=kinds.count(RowKind.DELETE),
        unchanged=written.plan.unchanged,
        inverse=inverse_changeset(order.id, written.writes, written.verified.after, written.catalog, guards),
        assigned=assigned,
        side_effects=written.effects,
        findings=tuple(written.findings),
        migrations=tuple(written.migrations),
        duration_s=time.monotonic() - started,
    )
