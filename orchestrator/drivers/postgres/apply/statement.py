"""One statement of chained parts: deletes, updates in waves, inserts.

Foreign keys, cascades and AFTER triggers fire at the end of the whole statement, so the order of tables does not
matter and only unique values do. Each part waits for the one before it by reading its count.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from psycopg import sql

from orchestrator.core.changeset.rows import RowKind
from orchestrator.core.changeset.shape import Generated, TableName
from orchestrator.core.promotion.catalog import Catalog, ProductionTable
from orchestrator.core.promotion.order import PromotionOrder, Scope
from orchestrator.core.promotion.planning import RowWrite
from orchestrator.core.promotion.waves import Waves
from orchestrator.drivers.postgres.apply.relations import (
    Parameters,
    cast,
    identifier,
    key_arrays,
    key_match,
    key_names,
    plain,
    relation,
    unnest,
)

PARTS_PER_STATEMENT = 120


@dataclass(frozen=True)
class Part:
    """One DELETE, UPDATE or INSERT over rows of one table with one set of columns."""

    table: ProductionTable
    kind: RowKind
    columns: tuple[str, ...]
    writes: tuple[RowWrite, ...]


@dataclass
class Statement:
    query: sql.Composed
    parameters: list[str | None]
    parts: list[Part] = field(default_factory=list)


def build_parts(writes: Sequence[RowWrite], waves: Waves, catalog: Catalog) -> list[Part]:
    """Group rows into parts in the order they must run."""
    deletes = _grouped([write for write in writes if write.kind is RowKind.DELETE], catalog)
    inserts = _grouped([write for write in writes if write.kind is RowKind.INSERT], catalog)
    updates = sorted(
        (write for write in writes if write.kind is RowKind.UPDATE and write.cells),
        key=lambda write: waves.wave_of[write.id],
    )
    parts = list(deletes)
    for _, wave in groupby(updates, key=lambda write: waves.wave_of[write.id]):
        parts += _grouped(list(wave), catalog)
    return parts + inserts


def _grouped(writes: Iterable[RowWrite], catalog: Catalog) -> list[Part]:
    groups: dict[tuple[TableName, tuple[str, ...]], list[RowWrite]] = {}
    for write in writes:
        groups.setdefault((write.table, tuple(sorted(write.cells))), []).append(write)
    return [
        Part(catalog[table], rows[0].kind, columns, tuple(rows))
        for (table, columns), rows in sorted(groups.items(), key=lambda item: item[0])
    ]


def build_statements(
    parts: Sequence[Part], order: PromotionOrder, placeholders: frozenset[tuple[str, str]]
) -> list[Statement]:
    """Chain the parts: one statement, unless a chain of handed-over values is longer than PARTS_PER_STATEMENT."""
    return [
        _chain(parts[start : start + PARTS_PER_STATEMENT], order, placeholders)
        for start in range(0, len(parts), PARTS_PER_STATEMENT)
    ]


def _chain(parts: Sequence[Part], order: PromotionOrder, placeholders: frozenset[tuple[str, str]]) -> Statement:
    parameters = Parameters()
    names, counts = [], []
    for number, part in enumerate(parts):
        after = sql.SQL("(SELECT n FROM g{}) >= 0").format(sql.SQL(str(number - 1))) if number else sql.SQL("true")
        body = _body(part, order.scopes.get(part.table.name), parameters, after, placeholders)
        digits = sql.SQL(str(number))
        names.append(
            sql.SQL("w{0} AS ({1} RETURNING 1), g{0} AS (SELECT pg_catalog.count(*) AS n FROM w{0})").format(
                digits, body
            )
        )
        counts.append(sql.SQL("(SELECT n FROM g{})").format(digits))
    query = sql.SQL("WITH {} SELECT {}").format(sql.SQL(", ").join(names), sql.SQL(", ").join(counts))
    return Statement(query, parameters.values, list(parts))


def _body(
    part: Part,
    scope: Scope | None,
    parameters: Parameters,
    after: sql.Composable,
    placeholders: frozenset[tuple[str, str]],
) -> sql.Composed:
    if part.kind is RowKind.INSERT:
        return _insert(part, scope, parameters, after)
    arrays = key_arrays(parameters, [write.key for write in part.writes])
    names = key_names(part.table)
    guards = [key_match(part.table), after]
    if scope is not None:
        guards.append(_guard(sql.SQL("x."), part.table, scope, parameters))
    compared = part.columns if part.kind is RowKind.UPDATE else _compared(part.table)
    for number, column in enumerate(compared):
        expected = [
            None if (write.id, column) in placeholders else plain((write.now or {}).get(column))
            for write in part.writes
        ]
        arrays.append(parameters.array(expected))
        names.append(f"e{number}")
        guards.append(_unchanged(part.table, column, f"e{number}"))
    if part.kind is RowKind.DELETE:
        return sql.SQL("DELETE FROM {} AS x USING {} WHERE {}").format(
            relation(part.table), unnest(arrays, names), sql.SQL(" AND ").join(guards)
        )
    sets = []
    for number, column in enumerate(part.columns):
        arrays.append(parameters.array([plain(write.cells[column]) for write in part.writes]))
        names.append(f"n{number}")
        sets.append(
            sql.SQL("{} = o.{}::{}").format(
                sql.Identifier(column), sql.Identifier(f"n{number}"), cast(part.table, column)
            )
        )
    return sql.SQL("UPDATE {} AS x SET {} FROM {} WHERE {}").format(
        relation(part.table), sql.SQL(", ").join(sets), unnest(arrays, names), sql.SQL(" AND ").join(guards)
    )


def _insert(part: Part, scope: Scope | None, parameters: Parameters, after: sql.Composable) -> sql.Composed:
    if not part.columns:  # every cell is left to production: one empty row each is all there is to say
        rows = sql.SQL("INSERT INTO {} SELECT FROM pg_catalog.generate_series(1, {}) WHERE {}")
        return rows.format(identifier(part.table.name), sql.SQL(str(len(part.writes))), after)
    names = [f"c{number}" for number in range(len(part.columns))]
    arrays = [parameters.array([plain(write.cells[column]) for write in part.writes]) for column in part.columns]
    selected = sql.SQL(", ").join(
        sql.SQL("o.{}::{}").format(sql.Identifier(name), cast(part.table, column))
        for name, column in zip(names, part.columns, strict=True)
    )
    guards: list[sql.Composable] = [after]
    if scope is not None:
        position = part.columns.index(scope.column) if scope.column in part.columns else None
        guards.append(
            sql.SQL("o.{}::{} = {}::{}").format(
                sql.Identifier(names[position]),
                cast(part.table, scope.column),
                parameters.add(scope.value),
                cast(part.table, scope.column),
            )
            if position is not None
            else sql.SQL("false")
        )
    return sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {} WHERE {}").format(
        identifier(part.table.name),
        sql.SQL(", ").join(map(sql.Identifier, part.columns)),
        selected,
        unnest(arrays, names),
        sql.SQL(" AND ").join(guards),
    )


def _guard(prefix: sql.SQL, table: ProductionTable, scope: Scope, parameters: Parameters) -> sql.Composed:
    return sql.SQL("{}{} = {}::{}").format(
        prefix, sql.Identifier(scope.column), parameters.add(scope.value), cast(table, scope.column)
    )


def _unchanged(table: ProductionTable, column: str, name: str) -> sql.Composed:
    """Text on both sides: `=` does not exist for json and calls 1.0 and 1.00 equal."""
    return sql.SQL("x.{}::pg_catalog.text IS NOT DISTINCT FROM o.{}::{}::pg_catalog.text").format(
        sql.Identifier(column), sql.Identifier(name), cast(table, column)
    )


def _compared(table: ProductionTable) -> tuple[str, ...]:
    """What a delete compares: every stored column, so that nothing unseen is deleted."""
    return tuple(column.name for column in table.shape.columns if column.generated is not Generated.VIRTUAL)


def build_placeholders(waves: Waves, order: PromotionOrder, catalog: Catalog) -> list[Statement]:
    """Set one value of every circle to NULL beforehand, guarded like any other update."""
    groups: dict[tuple[TableName, str], list[RowWrite]] = {}
    for write, column in waves.placeholders:
        groups.setdefault((write.table, column), []).append(write)
    statements = []
    for (name, column), writes in groups.items():
        table, parameters = catalog[name], Parameters()
        arrays = [
            *key_arrays(parameters, [write.key for write in writes]),
            parameters.array([plain((write.now or {}).get(column)) for write in writes]),
        ]
        guards = [key_match(table), _unchanged(table, column, "e0")]
        scope = order.scopes.get(name)
        if scope is not None:
            guards.append(_guard(sql.SQL("x."), table, scope, parameters))
        query = sql.SQL("UPDATE {} AS x SET {} = NULL FROM {} WHERE {}").format(
            relation(table),
            sql.Identifier(column),
            unnest(arrays, [*key_names(table), "e0"]),
            sql.SQL(" AND ").join(guards),
        )
        part = Part(table, RowKind.UPDATE, (column,), tuple(writes))
        statements.append(Statement(query, parameters.values, [part]))
    return statements
