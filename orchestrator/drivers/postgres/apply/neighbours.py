"""Rows outside the change that the change would touch or lean on: children, parents, holders of unique values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from psycopg import sql

from orchestrator.core.changeset.rows import Cell, ProvisionalKey, RowKind
from orchestrator.core.changeset.shape import KeyKind, TableName, UniqueKey
from orchestrator.core.promotion.catalog import Catalog, ProductionTable, Reference
from orchestrator.core.promotion.findings import Finding, shown_key
from orchestrator.core.promotion.order import PromotionOrder, Scope
from orchestrator.core.promotion.planning import RowWrite
from orchestrator.drivers.postgres.apply.relations import Parameters, cast, columns_of, identifier, plain, unnest
from orchestrator.drivers.postgres.apply.session import Session

SHOWN_MAX = 20

Values = tuple[Cell, ...]


def check_neighbours(
    session: Session, order: PromotionOrder, catalog: Catalog, writes: Sequence[RowWrite], *, clashes: bool
) -> list[Finding]:
    """Children the sandbox never saw and parents of other tenants; with `clashes` also what the server would refuse.

    The server refuses a missing parent or a taken unique value by itself, one at a time; `clashes` lists them all.
    """
    by_table: dict[TableName, list[RowWrite]] = {}
    for write in writes:
        by_table.setdefault(write.table, []).append(write)
    findings: list[Finding] = []
    for reference in catalog.references:
        if not reference.key.enforced:
            continue
        if reference.target in by_table:
            findings += _unseen_children(session, catalog, reference, by_table)
        if reference.table in by_table:
            scope = order.scopes.get(reference.target)
            findings += _parents(session, catalog, reference, by_table, scope, missing=clashes)
    if clashes:
        for name, rows in by_table.items():
            for key in catalog[name].shape.unique_keys:
                if key.columns and key.is_plain:
                    findings += _clashes(session, catalog[name], key, rows)
    return findings


def _now(write: RowWrite, columns: Iterable[str]) -> Values:
    return tuple((write.now or {}).get(name) for name in columns)


def _goal(write: RowWrite, columns: Iterable[str]) -> Values:
    return tuple(write.cells.get(name, (write.now or {}).get(name)) for name in columns)


def _unseen_children(
    session: Session, catalog: Catalog, reference: Reference, by_table: dict[TableName, list[RowWrite]]
) -> list[Finding]:
    columns = reference.key.referenced_columns
    provided = {_goal(write, columns) for write in by_table[reference.target] if write.kind is not RowKind.DELETE}
    leaving = [
        write
        for write in by_table[reference.target]
        if write.kind is RowKind.DELETE
        or (write.kind is RowKind.UPDATE and _now(write, columns) != _goal(write, columns))
    ]
    if reference.key.on_delete == "no action" and reference.key.on_update == "no action":
        leaving = [write for write in leaving if _now(write, columns) not in provided]
    leaving = [write for write in leaving if None not in _now(write, columns)]
    if not leaving:
        return []
    child = catalog[reference.table]
    handled = [
        write.key
        for write in by_table.get(reference.table, ())
        if write.kind is RowKind.DELETE
        or (write.kind is RowKind.UPDATE and any(name in write.cells for name in reference.key.columns))
    ]
    parameters = Parameters()
    names = [f"v{number}" for number in range(len(columns))]
    arrays = [parameters.array([plain(_now(write, [name])[0]) for write in leaving]) for name in columns]
    primary = child.shape.primary_key or child.shape.column_names[:1]
    query = sql.SQL("SELECT o.n, {} FROM {} JOIN {} AS x ON {} WHERE {} LIMIT {}").format(
        columns_of(primary),
        _numbered(arrays, names),
        _source(child),
        _match(child, reference.key.columns, names),
        _not_among(parameters, child, handled),
        sql.SQL(str(SHOWN_MAX)),
    )
    findings = []
    for number, *key in session.texts(query, parameters.values):
        parent = leaving[int(number or 1) - 1]
        action = "deletes" if parent.kind is RowKind.DELETE else "moves"
        findings.append(
            Finding(
                "unseen_children",
                f"{reference.table} {shown_key(primary, key)} refers to the row the change {action}, "
                "and the sandbox did not have it.",
                table=str(reference.target),
                row=parent.id,
                key=shown_key(catalog[reference.target].shape.primary_key, parent.key),
                column=", ".join(columns),
            )
        )
    return findings


def _parents(
    session: Session,
    catalog: Catalog,
    reference: Reference,
    by_table: dict[TableName, list[RowWrite]],
    scope: Scope | None,
    *,
    missing: bool,
) -> list[Finding]:
    if scope is None and not missing:
        return []
    columns, targets = reference.key.columns, reference.key.referenced_columns
    provided = {
        _goal(write, targets) for write in by_table.get(reference.target, ()) if write.kind is not RowKind.DELETE
    }
    leaning = [
        write
        for write in by_table[reference.table]
        if write.kind is not RowKind.DELETE
        and any(name in write.cells for name in columns)
        and not any(cell is None or isinstance(cell, ProvisionalKey) for cell in _goal(write, columns))
        and _goal(write, columns) not in provided
    ]
    if not leaning or reference.target not in catalog:
        return []
    parent = catalog[reference.target]
    parameters = Parameters()
    names = [f"v{number}" for number in range(len(columns))]
    arrays = [parameters.array([plain(_goal(write, [name])[0]) for write in leaning]) for name in columns]
    foreign: sql.Composable = sql.SQL("false")
    if scope is not None:
        foreign = sql.SQL("x.{} IS DISTINCT FROM {}::{}").format(
            sql.Identifier(scope.column), parameters.add(scope.value), cast(parent, scope.column)
        )
    absent = sql.SQL("x.{} IS NULL").format(sql.Identifier(targets[0]))
    wanted = sql.SQL("({} OR {})").format(absent, foreign) if missing else foreign
    query = sql.SQL("SELECT o.n, ({}) FROM {} LEFT JOIN {} AS x ON {} WHERE {} LIMIT {}").format(
        absent,
        _numbered(arrays, names),
        _source(parent),
        _match(parent, targets, names),
        wanted if missing else sql.SQL("{} AND NOT ({})").format(foreign, absent),
        sql.SQL(str(SHOWN_MAX)),
    )
    findings = []
    for number, is_absent in session.texts(query, parameters.values):
        write = leaning[int(number or 1) - 1]
        values = shown_key(targets, _goal(write, columns))
        findings.append(
            Finding(
                "missing_parent" if is_absent == "t" else "foreign_parent",
                f"{reference.target} {values} does not exist in production."
                if is_absent == "t"
                else f"{reference.target} {values} belongs to another tenant.",
                table=str(reference.table),
                row=write.id,
                key=shown_key(catalog[reference.table].shape.primary_key, write.key),
                column=", ".join(columns),
                wanted=values,
            )
        )
    return findings


def _clashes(session: Session, table: ProductionTable, key: UniqueKey, writes: Sequence[RowWrite]) -> list[Finding]:
    takers = [
        write
        for write in writes
        if write.kind is not RowKind.DELETE
        and any(name in write.cells for name in key.columns)
        and _goal(write, key.columns) != _now(write, key.columns)
        and not any(cell is None or isinstance(cell, ProvisionalKey) for cell in _goal(write, key.columns))
    ]
    if not takers:
        return []
    freeing = [
        write.key
        for write in writes
        if write.kind is RowKind.DELETE
        or (write.kind is RowKind.UPDATE and _goal(write, key.columns) != _now(write, key.columns))
    ]
    parameters = Parameters()
    names = [f"v{number}" for number in range(len(key.columns))]
    arrays = [parameters.array([plain(_goal(write, [name])[0]) for write in takers]) for name in key.columns]
    query = sql.SQL("SELECT o.n, {} FROM {} JOIN {} AS x ON {} WHERE {} LIMIT {}").format(
        columns_of(table.shape.primary_key),
        _numbered(arrays, names),
        _source(table),
        _match(table, key.columns, names),
        _not_among(parameters, table, freeing),
        sql.SQL(str(SHOWN_MAX)),
    )
    findings = []
    for number, *holder in session.texts(query, parameters.values):
        write = takers[int(number or 1) - 1]
        what = "key" if key.kind is KeyKind.PRIMARY else key.name
        findings.append(
            Finding(
                "unique_clash",
                f"Row {shown_key(table.shape.primary_key, holder)} of production holds this value of {what} already.",
                table=str(table.name),
                row=write.id,
                key=shown_key(table.shape.primary_key, write.key),
                column=", ".join(key.columns),
                wanted=shown_key(key.columns, _goal(write, key.columns)),
            )
        )
    return findings


def _numbered(arrays: Sequence[sql.Composable], names: Sequence[str]) -> sql.Composed:
    return sql.SQL("unnest({}) WITH ORDINALITY AS o({}, n)").format(
        sql.SQL(", ").join(arrays), sql.SQL(", ").join(map(sql.Identifier, names))
    )


def _source(table: ProductionTable) -> sql.Composed:
    return identifier(table.name)


def _match(table: ProductionTable, columns: Sequence[str], names: Sequence[str]) -> sql.Composed:
    return sql.SQL(" AND ").join(
        sql.SQL("x.{} = o.{}::{}").format(sql.Identifier(column), sql.Identifier(name), cast(table, column))
        for column, name in zip(columns, names, strict=True)
    )


def _not_among(parameters: Parameters, table: ProductionTable, keys: Sequence[Values]) -> sql.Composable:
    """The row is none of these."""
    primary = table.shape.primary_key
    if not keys or not primary:
        return sql.SQL("true")
    names = [f"h{number}" for number in range(len(primary))]
    arrays = [parameters.array([plain(cell) for cell in column]) for column in zip(*keys, strict=True)]
    same = sql.SQL(" AND ").join(
        sql.SQL("x.{} = h.{}::{}").format(sql.Identifier(column), sql.Identifier(name), cast(table, column))
        for column, name in zip(primary, names, strict=True)
    )
    return sql.SQL("NOT EXISTS (SELECT FROM {} WHERE {})").format(unnest(arrays, names, alias="h"), same)
