"""Rehearsal on a throw-away copy: what triggers would do to the change, and every violation instead of the first."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

import psycopg

from orchestrator.core.changeset.shape import TableName
from orchestrator.core.ports.production import MigrationRefused, PromotionConflicted, Rehearsed
from orchestrator.core.promotion.catalog import Catalog
from orchestrator.core.promotion.findings import Finding
from orchestrator.core.promotion.order import CellName, PromotionOrder
from orchestrator.drivers.postgres.apply import violations
from orchestrator.drivers.postgres.apply.refusals import refusal
from orchestrator.drivers.postgres.apply.session import (
    PASSING,
    Session,
    begin,
    busy,
    connected,
    is_lost,
    rollback,
    unreachable,
)
from orchestrator.drivers.postgres.apply.writing import Written, write

# A cell left to a trigger may change what another trigger writes; it settles in one or two rounds.
_ROUNDS_MAX = 4
_CLOCKS = ("timestamp", "date", "time")


def rehearse(dsn: str, order: PromotionOrder) -> Rehearsed:
    """Apply to the copy and roll back, until it is known which cells production's triggers write by themselves.

    The copy may be altered at will; a superuser's connection is expected.
    """
    started = time.monotonic()
    with connected(dsn, purpose="rehearsal") as session:
        try:
            result = _rehearse(session, order)
        except PASSING as error:
            raise busy(error, 1) from error
        except psycopg.Error as error:
            if is_lost(session, error):
                raise unreachable() from error
            result = Rehearsed((refusal(error),))
    return replace(result, duration_s=time.monotonic() - started)


def _rehearse(session: Session, order: PromotionOrder) -> Rehearsed:
    # The copy's superuser owns everything, and production's roles need not exist there.
    order = replace(order, migration_role="")
    derived, decided = set(order.derived), set(order.decided)
    for round_number in range(_ROUNDS_MAX):
        tried = replace(order, derived=frozenset(derived), decided=frozenset(decided))
        try:
            written = _try(session, tried)
        except MigrationRefused as error:
            return Rehearsed((Finding("migration", str(error)),))
        except PromotionConflicted as conflict:
            return Rehearsed(tuple(_all_violations(session, tried, conflict.findings)))
        except psycopg.IntegrityError as error:
            return Rehearsed(tuple(_all_violations(session, tried, [refusal(error)])))
        except psycopg.DataError as error:
            return Rehearsed(tuple(_all_violations(session, tried, [refusal(error)])))
        overridden = written.verified.overridden
        new = overridden - derived
        clocks = {cell for cell in overridden & derived if _is_clock(written.catalog, written, cell)}
        if not new and not clocks:
            break
        derived = (derived | new) - clocks
        decided |= clocks
        if round_number == _ROUNDS_MAX - 1:
            break
    findings = [*written.verified.findings, *written.findings, *_told(written, derived, decided)]
    settled = frozenset(derived - written.verified.overridden)
    return Rehearsed(tuple(findings), settled, frozenset(decided), written.effects, len(written.writes))


def _try(session: Session, order: PromotionOrder) -> Written:
    begin(session, order.limits, read_only=False, settings=order.settings)
    try:
        return write(session, order, lambda _: None)
    finally:
        rollback(session)


def _column(written: Written, cell: CellName) -> tuple[TableName, str] | None:
    for row in written.writes:
        if row.id == cell.row:
            return row.table, cell.column
    return None


def _is_clock(catalog: Catalog, written: Written, cell: CellName) -> bool:
    """A trigger that stamps the time can never come out as proposed, and nobody wants it to."""
    place = _column(written, cell)
    return place is not None and catalog[place[0]].shape.column(place[1]).base.startswith(_CLOCKS)


def _told(written: Written, derived: Iterable[CellName], decided: Iterable[CellName]) -> list[Finding]:
    findings = []
    for cells, text in (
        (derived, "is worked out by a trigger and comes out as proposed."),
        (decided, "is stamped by a trigger; production writes its own time."),
    ):
        columns = {place for cell in cells if (place := _column(written, cell)) is not None}
        for table, column in sorted(columns):
            findings.append(
                Finding("trigger_override", f"{table}.{column} {text}", table=str(table), column=column, blocks=False)
            )
    return findings


def _all_violations(session: Session, order: PromotionOrder, first: Sequence[Finding]) -> list[Finding]:
    """Everything the copy refuses; what ended the set-based try comes along unless it was found again."""
    begin(session, order.limits, read_only=False, settings=order.settings)
    try:
        found = violations.list_all(session, order)
    except PromotionConflicted as conflict:
        found = list(conflict.findings)
    finally:
        rollback(session)
    seen = {(finding.code, finding.row, finding.column) for finding in found}
    if any(finding.blocks for finding in found):
        first = [item for item in first if item.row and (item.code, item.row, item.column) not in seen]
    return [*found, *first]
