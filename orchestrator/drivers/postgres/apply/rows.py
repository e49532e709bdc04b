"""Row locks that never make production wait, and reading rows by key."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Sequence

import psycopg
from psycopg import sql

from orchestrator.core.changeset.rows import Key, ProvisionalKey, Row, RowChange, RowKind
from orchestrator.core.changeset.shape import TableName
from orchestrator.core.promotion.catalog import Catalog, ProductionTable
from orchestrator.core.promotion.order import PromotionOrder
from orchestrator.drivers.postgres.apply.relations import (
    Parameters,
    columns_of,
    key_arrays,
    key_match,
    key_names,
    relation,
    stored,
    unnest,
)
from orchestrator.drivers.postgres.apply.session import Session, busy

Found = dict[TableName, dict[Key, Row]]
KEYS_PER_STATEMENT = 20_000
_PAUSE_S = 0.02
_PAUSE_MAX_S = 0.5


def keys_wanted(order: PromotionOrder, catalog: Catalog) -> dict[TableName, list[RowChange]]:
    """The rows to look up, by table in a fixed order: everything whose key production can already know."""
    wanted: dict[TableName, list[RowChange]] = {}
    for change in order.changeset.rows:
        if change.table in catalog and change.key and not any(isinstance(cell, ProvisionalKey) for cell in change.key):
            wanted.setdefault(change.table, []).append(change)
    return dict(sorted(wanted.items()))


def lock_and_read(session: Session, order: PromotionOrder, catalog: Catalog) -> Found:
    """Lock every row of the change in key order without ever waiting, then read them in a second statement.

    Taking a lock may mean that the row was changed meanwhile, so only the second read counts; it must find exactly
    the locked rows. Tries again with jitter. Raises ProductionBusy.
    """
    wanted = keys_wanted(order, catalog)
    tries = order.limits.lock_tries
    for attempt in range(1, tries + 1):
        session.execute("SAVEPOINT locks")
        try:
            locked = {name: _lock(session, catalog[name], changes) for name, changes in wanted.items()}
        except psycopg.errors.LockNotAvailable as error:
            session.execute("ROLLBACK TO SAVEPOINT locks")
            if attempt == tries:
                raise busy(error, tries) from error
            _pause(attempt)
            continue
        found = {
            name: read_rows(session, catalog[name], [change.key for change in changes])
            for name, changes in wanted.items()
        }
        if all(len(found[name]) == locked[name] for name in wanted):
            session.execute("RELEASE SAVEPOINT locks")
            return found
        session.execute("ROLLBACK TO SAVEPOINT locks")
        _pause(attempt)
    raise busy(psycopg.errors.LockNotAvailable("rows keep being replaced"), tries)


def _pause(attempt: int) -> None:
    ceiling = min(_PAUSE_MAX_S, _PAUSE_S * 2 ** min(attempt, 6))
    time.sleep(random.uniform(ceiling / 4, ceiling))  # noqa: S311 - jitter, not a secret


def _lock(session: Session, table: ProductionTable, changes: Sequence[RowChange]) -> int:
    """FOR UPDATE where children must not appear meanwhile (deletes, changes of a unique column), else weaker."""
    unique = {name for key in table.shape.unique_keys for name in key.columns}
    strong = [
        change
        for change in changes
        if change.kind is RowKind.DELETE
        or (change.kind is RowKind.UPDATE and not unique.isdisjoint(change.changed_columns))
    ]
    strong_keys = {change.key for change in strong}
    weak = [change for change in changes if change.key not in strong_keys]
    return _lock_as(session, table, strong, "UPDATE") + _lock_as(session, table, weak, "NO KEY UPDATE")


def _lock_as(session: Session, table: ProductionTable, changes: Sequence[RowChange], strength: str) -> int:
    count = 0
    for part in _parts([change.key for change in changes]):
        parameters = Parameters()
        query = sql.SQL("SELECT 1 FROM {} JOIN {} AS x ON {} ORDER BY {} FOR {} OF x NOWAIT").format(
            unnest(key_arrays(parameters, part), key_names(table)),
            relation(table),
            key_match(table),
            columns_of(table.shape.primary_key),
            sql.SQL(strength),
        )
        count += len(session.texts(query, parameters.values))
    return count


def read_rows(session: Session, table: ProductionTable, keys: Iterable[Key]) -> dict[Key, Row]:
    """The rows with these keys, whole, as the server prints them; found under the key as it was asked for."""
    names = stored(table)
    found: dict[Key, Row] = {}
    for part in _parts(list(dict.fromkeys(keys))):
        parameters = Parameters()
        query = sql.SQL("SELECT o.n, {} FROM {} JOIN {} AS x ON {}").format(
            columns_of(names),
            sql.SQL("unnest({}) WITH ORDINALITY AS o({}, n)").format(
                sql.SQL(", ").join(key_arrays(parameters, part)),
                sql.SQL(", ").join(map(sql.Identifier, key_names(table))),
            ),
            relation(table),
            key_match(table),
        )
        for number, *cells in session.texts(query, parameters.values):
            found[part[int(number or 0) - 1]] = dict(zip(names, cells, strict=True))
    return found


def _parts(keys: Sequence[Key]) -> Iterable[Sequence[Key]]:
    for start in range(0, len(keys), KEYS_PER_STATEMENT):
        yield keys[start : start + KEYS_PER_STATEMENT]


def settle_spellings(
    session: Session, catalog: Catalog, texts: Iterable[tuple[TableName, str, str]]
) -> dict[tuple[TableName, str, str], str]:
    """How production's own types print these texts. A text its type refuses stays as it is."""
    by_column: dict[tuple[TableName, str], list[str]] = {}
    for name, column, text in sorted(texts):
        by_column.setdefault((name, column), []).append(text)
    settled: dict[tuple[TableName, str, str], str] = {}
    for (name, column), values in by_column.items():
        type_name = sql.SQL(catalog[name].shape.column(column).type)
        for text, printed in zip(values, _printed(session, type_name, values), strict=True):
            settled[name, column, text] = printed
    return settled


def _printed(session: Session, type_name: sql.SQL, values: Sequence[str]) -> list[str]:
    query = sql.SQL("SELECT (o.v)::{} FROM {} ORDER BY o.n")
    parameters = Parameters()
    source = sql.SQL("unnest({}) WITH ORDINALITY AS o(v, n)").format(parameters.array(values))
    session.execute("SAVEPOINT spelling")
    try:
        printed = [row[0] or "" for row in session.texts(query.format(type_name, source), parameters.values)]
        session.execute("RELEASE SAVEPOINT spelling")
        return printed
    except psycopg.DataError:
        session.execute("ROLLBACK TO SAVEPOINT spelling")
    if len(values) == 1:
        return list(values)
    middle = len(values) // 2
    return _printed(session, type_name, values[:middle]) + _printed(session, type_name, values[middle:])
