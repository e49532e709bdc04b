"""Production over one credential: compare, rehearse, write, and find out what became of a transaction."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import psycopg

from orchestrator import logs
from orchestrator.core.changeset.rows import Key, Row
from orchestrator.core.changeset.shape import TableName
from orchestrator.core.ports.production import (
    Applied,
    Comparison,
    CredentialFinding,
    OutcomeUnknown,
    PromotionConflicted,
    Rehearsed,
    TransactionState,
)
from orchestrator.core.promotion.assigned import lookalikes
from orchestrator.core.promotion.catalog import Catalog
from orchestrator.core.promotion.findings import Finding, blocking
from orchestrator.core.promotion.order import PromotionOrder, WriteLimits
from orchestrator.core.promotion.planning import drift
from orchestrator.core.promotion.waves import order_updates
from orchestrator.drivers.postgres.apply import copy, credential
from orchestrator.drivers.postgres.apply.catalog import read_production_catalog
from orchestrator.drivers.postgres.apply.neighbours import check_neighbours
from orchestrator.drivers.postgres.apply.refusals import refusal
from orchestrator.drivers.postgres.apply.rows import keys_wanted, read_rows
from orchestrator.drivers.postgres.apply.session import (
    PASSING,
    Session,
    begin,
    busy,
    connected,
    is_lost,
    rollback,
    too_weak,
    unreachable,
)
from orchestrator.drivers.postgres.apply.writing import settled_plan, summary, write
from orchestrator.drivers.postgres.collector import without_collector

_LOG = logs.get(__name__)
_REFERENCE_ROWS_SLOW = 100_000


def _nothing(*_: object) -> None:
    return None


class PostgresProduction:
    """The Production port over psycopg. `dsn` may hold a password; it never leaves this object."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    def __repr__(self) -> str:
        return "PostgresProduction(…)"

    def catalog(self) -> Catalog:
        with self._reading(WriteLimits()) as session:
            return read_production_catalog(session)

    def read(self, keys: Mapping[TableName, frozenset[Key]]) -> Mapping[TableName, Mapping[Key, Row]]:
        with self._reading(WriteLimits()) as session:
            catalog = read_production_catalog(session)
            return {
                name: read_rows(session, catalog[name], sorted(keys[name], key=str)) for name in keys if name in catalog
            }

    def compare(self, order: PromotionOrder) -> Comparison:
        with self._reading(order.limits, order) as session:
            catalog = read_production_catalog(session)
            findings = drift(order, catalog)
            if blocking(findings):
                return Comparison(tuple(findings), {}, 0, 0)
            wanted = keys_wanted(order, catalog)
            now = {
                name: read_rows(session, catalog[name], [change.key for change in changes])
                for name, changes in wanted.items()
            }
            plan = settled_plan(session, order, catalog, now)
            findings += plan.findings
            findings += check_neighbours(session, order, catalog, plan.writes, clashes=True)
            findings += order_updates(plan.writes, catalog).findings
            findings += lookalikes(plan.writes, catalog)
            findings += _slow_references(catalog, {item.table for item in plan.writes if item.kind == "delete"})
            rows = {
                change.id(): now[name][change.key]
                for name, changes in wanted.items()
                for change in changes
                if change.key in now[name]
            }
            return Comparison(tuple(findings), rows, len(plan.writes), plan.unchanged)

    def apply(
        self,
        order: PromotionOrder,
        *,
        on_transaction: Callable[[str], None] = _nothing,
        before_commit: Callable[[Applied], None] = _nothing,
    ) -> Applied:
        for attempt in range(1, order.limits.transaction_tries + 1):
            try:
                with without_collector():
                    return self._apply_once(order, on_transaction, before_commit)
            except PASSING as error:
                if attempt == order.limits.transaction_tries:
                    raise busy(error, attempt) from error
                _LOG.info("promote.retried", promotion=order.id, reason=type(error).__name__, attempt=attempt)
                time.sleep(random.uniform(0.05, 0.2) * attempt)  # noqa: S311 - jitter, not a secret
        raise AssertionError("unreachable")

    def _apply_once(
        self, order: PromotionOrder, on_transaction: Callable[[str], None], before_commit: Callable[[Applied], None]
    ) -> Applied:
        started = time.monotonic()
        transaction_id = ""

        def remember(assigned: str) -> None:
            nonlocal transaction_id
            transaction_id = assigned
            on_transaction(assigned)

        with connected(self._dsn, purpose="promote") as session, _refusals(session):
            begin(session, order.limits, read_only=False, settings=order.settings)
            try:
                written = write(session, order, remember)
                stopping = blocking([*written.verified.findings, *written.findings])
                if stopping:
                    raise PromotionConflicted(stopping)
                applied = summary(order, written, transaction_id, started)
                before_commit(applied)
            except BaseException:
                rollback(session)
                raise
            try:
                session.execute("COMMIT")
            except psycopg.Error as error:
                if is_lost(session, error):
                    raise OutcomeUnknown(transaction_id) from error
                raise
            return applied

    def rehearse(self, order: PromotionOrder) -> Rehearsed:
        started = time.monotonic()
        findings: list[Finding]
        with connected(self._dsn, purpose="rehearsal") as session, _refusals(session):
            begin(session, order.limits, read_only=False, settings=order.settings)
            try:
                written = write(session, order, _nothing)
                findings = [*written.verified.findings, *written.findings]
                effects, count = written.effects, len(written.writes)
            except PromotionConflicted as conflict:
                findings, effects, count = list(conflict.findings), {}, 0
            except PASSING as error:
                raise busy(error, 1) from error
            except psycopg.Error as error:
                if is_lost(session, error):
                    raise
                findings, effects, count = [refusal(error)], {}, 0
            finally:
                rollback(session)
        return Rehearsed(
            tuple(findings),
            order.derived,
            order.decided,
            effects,
            count,
            time.monotonic() - started,
        )

    def rehearse_on_copy(self, order: PromotionOrder) -> Rehearsed:
        return copy.rehearse(self._dsn, order)

    def transaction_state(self, transaction_id: str) -> TransactionState:
        with connected(self._dsn, purpose="promote") as session, _refusals(session):
            try:
                found = session.text("SELECT pg_catalog.pg_xact_status($1::pg_catalog.xid8)", [transaction_id])
            except psycopg.errors.InvalidParameterValue:
                return TransactionState.UNKNOWN  # in the future: not this server's number
        known = {
            "committed": TransactionState.COMMITTED,
            "aborted": TransactionState.ABORTED,
            "in progress": TransactionState.RUNNING,
        }
        return known.get(found, TransactionState.UNKNOWN)

    def check_credential(self, tables: Sequence[TableName]) -> list[CredentialFinding]:
        with self._reading(WriteLimits()) as session:
            return credential.check(session, read_production_catalog(session), tables)

    @contextmanager
    def _reading(self, limits: WriteLimits, order: PromotionOrder | None = None) -> Iterator[Session]:
        with connected(self._dsn, purpose="compare") as session, _refusals(session):
            begin(session, limits, read_only=True, settings=order.settings if order else None)
            try:
                yield session
            except PASSING as error:
                raise busy(error, 1) from error
            finally:
                rollback(session)


@contextmanager
def _refusals(session: Session) -> Iterator[None]:
    """Turn the server's errors into ours; what may pass on another try is left to the caller."""
    try:
        yield
    except PASSING:
        raise
    except psycopg.errors.InsufficientPrivilege as error:
        raise too_weak(error) from error
    except psycopg.Error as error:
        if is_lost(session, error):
            raise unreachable() from error
        raise PromotionConflicted([refusal(error)]) from error


def _slow_references(catalog: Catalog, deleted: set[TableName]) -> list[Finding]:
    """Foreign keys without an index make every delete of a parent read the whole child table."""
    findings = []
    for name in sorted(deleted):
        for reference in catalog.references_to(name):
            child = catalog.tables.get(reference.table)
            if child and not reference.is_indexed and child.estimated_rows >= _REFERENCE_ROWS_SLOW:
                text = (
                    f"Deleting from {name} reads all of {reference.table} (about {child.estimated_rows:,.0f} rows): "
                    f"{reference.key.name} has no index there."
                )
                findings.append(Finding("slow_reference", text, table=str(reference.table), blocks=False))
    return findings
