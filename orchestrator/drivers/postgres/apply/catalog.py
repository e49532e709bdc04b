"""Production's catalog as promoting needs it: shapes, references seen from both ends, triggers, rules, policies."""

from __future__ import annotations

from orchestrator.core.changeset.shape import TableName
from orchestrator.core.promotion.catalog import Catalog, ProductionTable, Reference
from orchestrator.drivers.postgres.apply.session import Session
from orchestrator.drivers.postgres.diff.catalog import read_catalog
from orchestrator.drivers.postgres.diff.shapes import table_shapes

_TRIGGERS = """
SELECT n.nspname, c.relname, t.tgname
  FROM pg_catalog.pg_trigger t
  JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE NOT t.tgisinternal AND t.tgenabled <> 'D' ORDER BY 1, 2, 3
"""
_RULES = """
SELECT n.nspname, c.relname, r.rulename
  FROM pg_catalog.pg_rewrite r
  JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND r.ev_enabled <> 'D' ORDER BY 1, 2, 3
"""
_TABLES = """
SELECT n.nspname, c.relname, c.relrowsecurity, GREATEST(c.reltuples, 0)
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p')
"""
# A foreign key is indexed when some index's leading columns are its columns, in any order. One that leaves out only
# the rows where such a column is null serves as well: looking for a key never asks for those.
_INDEXED = """
SELECT n.nspname, c.relname, k.conname
  FROM pg_catalog.pg_constraint k
  JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE k.contype = 'f' AND EXISTS (
       SELECT FROM pg_catalog.pg_index i
        WHERE i.indrelid = k.conrelid AND i.indisvalid
          AND (i.indpred IS NULL OR EXISTS (
               SELECT FROM pg_catalog.pg_attribute a
                WHERE a.attrelid = k.conrelid AND a.attnum OPERATOR(pg_catalog.=) ANY (k.conkey)
                  AND pg_catalog.pg_get_expr(i.indpred, i.indrelid)
                      OPERATOR(pg_catalog.=) pg_catalog.format('(%I IS NOT NULL)', a.attname)))
          AND (i.indkey::pg_catalog.int2[])[0:pg_catalog.cardinality(k.conkey) - 1]
              OPERATOR(pg_catalog.@>) k.conkey)
"""


def read_production_catalog(session: Session) -> Catalog:
    """Read everything in the open transaction; about 0.1 s for 300 tables."""
    shapes = table_shapes(read_catalog(session.connection))
    triggers = _names(session, _TRIGGERS)
    rules = _names(session, _RULES)
    states = {
        TableName(schema or "", name or ""): (secured == "t", float(rows or 0))
        for schema, name, secured, rows in session.texts(_TABLES)
    }
    indexed = {(schema, table, name) for schema, table, name in session.texts(_INDEXED)}
    tables = {
        name: ProductionTable(
            shape,
            triggers=tuple(triggers.get(name, ())),
            rules=tuple(rules.get(name, ())),
            row_security=states.get(name, (False, 0.0))[0],
            estimated_rows=states.get(name, (False, 0.0))[1],
        )
        for name, shape in shapes.items()
    }
    references = tuple(
        Reference(name, key, (name.schema, name.name, key.name) in indexed)
        for name, shape in shapes.items()
        for key in shape.foreign_keys
    )
    return Catalog(tables, references)


def _names(session: Session, query: str) -> dict[TableName, list[str]]:
    found: dict[TableName, list[str]] = {}
    for schema, table, name in session.texts(query):
        found.setdefault(TableName(schema or "", table or ""), []).append(name or "")
    return found
