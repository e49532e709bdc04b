"""Every violation at once, on a copy: rows one by one on the server, foreign keys by joins afterwards."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from orchestrator.core.changeset.rows import Key, RowKind
from orchestrator.core.changeset.shape import TableName
from orchestrator.core.ports.production import PromotionConflicted
from orchestrator.core.promotion.assigned import replace
from orchestrator.core.promotion.catalog import Catalog, Reference
from orchestrator.core.promotion.findings import Finding, blocking, shown_key
from orchestrator.core.promotion.inverse import goal_key
from orchestrator.core.promotion.order import PromotionOrder
from orchestrator.core.promotion.planning import RowWrite, drift
from orchestrator.core.promotion.waves import Waves, order_updates
from orchestrator.drivers.postgres.apply import migrations
from orchestrator.drivers.postgres.apply.catalog import read_production_catalog
from orchestrator.drivers.postgres.apply.keys import draw_keys
from orchestrator.drivers.postgres.apply.neighbours import check_neighbours
from orchestrator.drivers.postgres.apply.refusals import CODES, DETAILED
from orchestrator.drivers.postgres.apply.relations import cast, columns_of, identifier, plain, relation
from orchestrator.drivers.postgres.apply.rows import keys_wanted, read_rows
from orchestrator.drivers.postgres.apply.session import Session, array, pin, use_default_search_path
from orchestrator.drivers.postgres.apply.writing import settled_plan

_ROWS_PER_CALL = 5_000
_ORPHANS_MAX = 100

_LOOP = """
CREATE FUNCTION pg_temp.rehearse(statements pg_catalog.text[])
RETURNS TABLE (n pg_catalog.int4, wrote pg_catalog.int4, state pg_catalog.text, message pg_catalog.text,
               detail pg_catalog.text, place pg_catalog.text)
LANGUAGE plpgsql AS $body$
DECLARE
  statement pg_catalog.text; con pg_catalog.text; col pg_catalog.text;
BEGIN
  n := 0;
  FOREACH statement IN ARRAY statements LOOP
    n := n + 1; state := NULL; message := NULL; detail := NULL; place := NULL;
    BEGIN
      EXECUTE statement;
      GET DIAGNOSTICS wrote = ROW_COUNT;
    EXCEPTION WHEN OTHERS THEN
      GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
                              con = CONSTRAINT_NAME, col = COLUMN_NAME;
      wrote := 0; place := coalesce(nullif(col, ''), con);
    END;
    IF state IS NOT NULL OR wrote <> 1 THEN RETURN NEXT; END IF;
  END LOOP;
END $body$
"""


def list_all(session: Session, order: PromotionOrder) -> list[Finding]:
    """Apply every row by itself in the open transaction of a copy and return everything that is wrong."""
    if migrations.run(session, order.migrations):
        pin(session, order.limits, order.settings)
    catalog = read_production_catalog(session)
    findings = drift(order, catalog)
    if blocking(findings):
        raise PromotionConflicted(findings)
    now = {
        name: read_rows(session, catalog[name], [change.key for change in changes])
        for name, changes in keys_wanted(order, catalog).items()
    }
    plan = settled_plan(session, order, catalog, now)
    findings += plan.findings
    findings += check_neighbours(session, order, catalog, plan.writes, clashes=False)
    replace(plan.writes, draw_keys(session, catalog, plan.writes))
    waves = order_updates(plan.writes, catalog)
    findings += waves.findings
    _defer_references(session, catalog, {write.table for write in plan.writes})
    use_default_search_path(session)
    ordered = _in_order(plan.writes, waves, catalog)
    findings += _row_by_row(session, catalog, ordered)
    findings += _orphans(session, catalog, plan.writes)
    return findings


def _defer_references(session: Session, catalog: Catalog, touched: set[TableName]) -> None:
    """On the copy alone: let foreign keys be judged by what stands at the end."""
    for reference in catalog.references:
        if reference.key.deferrable or not reference.key.enforced:
            continue
        if reference.table in touched or reference.target in touched:
            session.execute(
                sql.SQL("ALTER TABLE {} ALTER CONSTRAINT {} DEFERRABLE INITIALLY DEFERRED").format(
                    identifier(reference.table), sql.Identifier(reference.key.name)
                )
            )
    session.execute("SET CONSTRAINTS ALL DEFERRED")


def _in_order(writes: Sequence[RowWrite], waves: Waves, catalog: Catalog) -> list[RowWrite]:
    """Deletes children first (a cascade acts at once), updates in waves, inserts parents first."""
    depth = _depths(catalog, {write.table for write in writes})
    deletes = [write for write in writes if write.kind is RowKind.DELETE]
    updates = [write for write in writes if write.kind is RowKind.UPDATE and write.cells]
    inserts = [write for write in writes if write.kind is RowKind.INSERT]
    deletes.sort(key=lambda write: -depth[write.table])
    updates.sort(key=lambda write: waves.wave_of[write.id])
    inserts.sort(key=lambda write: depth[write.table])
    return deletes + updates + inserts


def _depths(catalog: Catalog, tables: set[TableName]) -> dict[TableName, int]:
    """How many references lie above a table; circles stop where they close."""
    depth = dict.fromkeys(tables, 0)
    for _ in range(len(tables)):
        moved = False
        for table in tables:
            for reference in catalog.references_from(table):
                above = depth.get(reference.target)
                if above is not None and reference.target != table and depth[table] <= above < len(tables):
                    depth[table] = above + 1
                    moved = True
        if not moved:
            break
    return depth


def _row_by_row(session: Session, catalog: Catalog, writes: Sequence[RowWrite]) -> list[Finding]:
    session.script(_LOOP)
    findings = []
    for start in range(0, len(writes), _ROWS_PER_CALL):
        part = writes[start : start + _ROWS_PER_CALL]
        statements = array([_single(session, catalog, write) for write in part])
        rows = session.texts(
            "SELECT n, wrote, state, message, detail, place FROM pg_temp.rehearse($1::pg_catalog.text[])", [statements]
        )
        for number, _, state, message, detail, place in rows:
            write = part[int(number or 1) - 1]
            if state is None and write.kind is RowKind.DELETE:
                continue  # a cascade was faster
            text = message or "The row was not written: a trigger, rule or policy kept it away."
            findings.append(
                Finding(
                    CODES.get(state or "", "database") if state else "not_written",
                    f"{text} ({detail})" if detail and state in DETAILED else text,
                    table=str(write.table),
                    row=write.id,
                    key=shown_key(catalog[write.table].shape.primary_key, write.key),
                    column=place or "",
                )
            )
    return findings


def _single(session: Session, catalog: Catalog, write: RowWrite) -> str:
    """One row's statement with its values in it, for the loop on the server."""
    table = catalog[write.table]

    def value(column: str, cell: str | None) -> sql.Composed:
        return sql.SQL("{}::{}").format(sql.Literal(cell), cast(table, column))

    if write.kind is RowKind.INSERT:
        names = list(write.cells)
        query = sql.SQL("INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE VALUES ({})").format(
            identifier(table.name),
            sql.SQL(", ").join(map(sql.Identifier, names)),
            sql.SQL(", ").join(value(name, plain(write.cells[name])) for name in names),
        )
        if not names:
            query = sql.SQL("INSERT INTO {} DEFAULT VALUES").format(identifier(table.name))
        return query.as_string(session.connection)
    where = sql.SQL(" AND ").join(
        sql.SQL("x.{} = {}").format(sql.Identifier(name), value(name, plain(cell)))
        for name, cell in zip(table.shape.primary_key, write.key, strict=True)
    )
    if write.kind is RowKind.DELETE:
        return sql.SQL("DELETE FROM {} AS x WHERE {}").format(relation(table), where).as_string(session.connection)
    sets = sql.SQL(", ").join(
        sql.SQL("{} = {}").format(sql.Identifier(name), value(name, plain(cell))) for name, cell in write.cells.items()
    )
    query = sql.SQL("UPDATE {} AS x SET {} WHERE {}").format(relation(table), sets, where)
    return query.as_string(session.connection)


def _orphans(session: Session, catalog: Catalog, writes: Sequence[RowWrite]) -> list[Finding]:
    """Rows of the change whose parent is missing at the end."""
    by_key = {
        (write.table, goal_key(write, catalog[write.table].shape.primary_key)): write
        for write in writes
        if write.kind is not RowKind.DELETE
    }
    findings = []
    touched = {write.table for write in writes}
    for reference in catalog.references:
        if reference.table in touched and reference.key.enforced and catalog[reference.table].shape.primary_key:
            findings += _orphans_of(session, catalog, reference, by_key)
    return findings


def _orphans_of(
    session: Session,
    catalog: Catalog,
    reference: Reference,
    by_key: dict[tuple[TableName, Key], RowWrite],
) -> list[Finding]:
    child, parent = catalog[reference.table], identifier(reference.target)
    pairs = list(zip(reference.key.columns, reference.key.referenced_columns, strict=True))
    query = sql.SQL("SELECT {} FROM {} AS x WHERE {} AND NOT EXISTS (SELECT FROM {} AS p WHERE {}) LIMIT {}").format(
        columns_of(child.shape.primary_key),
        relation(child),
        sql.SQL(" AND ").join(sql.SQL("x.{} IS NOT NULL").format(sql.Identifier(own)) for own, _ in pairs),
        parent,
        sql.SQL(" AND ").join(
            sql.SQL("p.{} = x.{}").format(sql.Identifier(other), sql.Identifier(own)) for own, other in pairs
        ),
        sql.SQL(str(_ORPHANS_MAX)),
    )
    findings = []
    for key in session.texts(query):
        write = by_key.get((reference.table, key))
        if write is None:
            continue  # an orphan of production's own, or one already told as an unseen child
        findings.append(
            Finding(
                "missing_parent",
                f"{reference.table} refers to a row of {reference.target} that does not exist.",
                table=str(reference.table),
                row=write.id,
                key=shown_key(child.shape.primary_key, write.key),
                column=", ".join(reference.key.columns),
            )
        )
    return findings
