"""What the promote credential can and cannot do, found out without writing anything."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from orchestrator.core.changeset.shape import TableName
from orchestrator.core.ports.production import CredentialFinding
from orchestrator.core.promotion.catalog import Catalog, ProductionTable
from orchestrator.drivers.postgres.apply.relations import identifier
from orchestrator.drivers.postgres.apply.session import Session

_SERVER = """
SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('default_transaction_read_only'),
       r.rolsuper, r.rolbypassrls, r.rolname
  FROM pg_catalog.pg_roles r WHERE r.rolname = current_user
"""
_WRITABLE = """
SELECT n.nspname, c.relname
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
   AND NOT c.relispartition AND pg_catalog.has_any_column_privilege(c.oid, 'UPDATE')
 ORDER BY 1, 2
"""
_RIGHTS = """
SELECT pg_catalog.has_schema_privilege($2::pg_catalog.text, 'USAGE'),
       pg_catalog.has_table_privilege($1::pg_catalog.text, 'SELECT'),
       pg_catalog.has_table_privilege($1::pg_catalog.text, 'INSERT'),
       pg_catalog.has_table_privilege($1::pg_catalog.text, 'DELETE'),
       pg_catalog.has_any_column_privilege($1::pg_catalog.text, 'UPDATE')
"""


def check(session: Session, catalog: Catalog, tables: Sequence[TableName]) -> list[CredentialFinding]:
    """Look at the server, the role and every promotable table."""
    findings: list[CredentialFinding] = []
    recovering, read_only, superuser, bypass, role = session.texts(_SERVER)[0]
    if recovering == "t":
        text = "The promote address leads to a standby, which cannot be written."
        findings.append(CredentialFinding("standby", "", text, "Use the primary's address."))
    elif read_only == "on":
        findings.append(CredentialFinding("read_only", "", f"Role {role} is read-only by default."))
    if superuser == "t":
        text = f"Role {role} is a superuser: far more than promoting needs."
        step = "Make a role with SELECT, INSERT, UPDATE, DELETE on the promotable tables and USAGE on their sequences."
        findings.append(CredentialFinding("superuser", "", text, step, fatal=False))
    for name in tables:
        table = catalog.tables.get(name)
        if table is None:
            findings.append(CredentialFinding("missing_table", str(name), f"{name} does not exist in production."))
            continue
        findings += _rights(session, table)
        findings += _traps(catalog, table, bypass="t" in (bypass, superuser))
    if superuser != "t":
        wanted = {str(name) for name in tables}
        extra = [str(TableName(schema or "", name or "")) for schema, name in session.texts(_WRITABLE)]
        extra = [name for name in extra if name not in wanted]
        if extra:
            text = f"Role {role} may also write {', '.join(extra[:10])}, which the rules never promote."
            findings.append(CredentialFinding("too_strong", "", text, "Revoke what is not needed.", fatal=False))
    return findings


def _rights(session: Session, table: ProductionTable) -> list[CredentialFinding]:
    name = identifier(table.name).as_string(session.connection)
    row = session.texts(
        "SELECT pg_catalog.has_schema_privilege($2::pg_catalog.text, 'USAGE'), "
        + ", ".join(
            f"pg_catalog.has_table_privilege($1::pg_catalog.text, '{right}')"
            for right in ("SELECT", "INSERT", "DELETE")
        )
        + ", pg_catalog.has_any_column_privilege($1::pg_catalog.text, 'UPDATE')",
        [name, table.name.schema],
    )[0]
    findings = []
    consequences = {
        "USAGE": "the schema cannot be entered",
        "SELECT": "rows cannot be compared",
        "INSERT": "new rows cannot be promoted",
        "DELETE": "deletions cannot be promoted",
        "UPDATE": "rows can be neither locked nor changed",
    }
    for right, granted in zip(("USAGE", "SELECT", "INSERT", "DELETE", "UPDATE"), row, strict=True):
        if granted != "t":
            place = (
                f"SCHEMA {sql.Identifier(table.name.schema).as_string(session.connection)}"
                if right == "USAGE"
                else name
            )
            findings.append(
                CredentialFinding(
                    f"no_{right.lower()}",
                    str(table.name),
                    f"No {right} on {table.name}: {consequences[right]}.",
                    f"GRANT {right} ON {place} TO the promote role.",
                    fatal=right not in ("INSERT", "DELETE"),
                )
            )
    for column in table.shape.columns:
        if column.sequence is None:
            continue
        sequence = sql.Identifier(column.sequence.schema, column.sequence.name).as_string(session.connection)
        if session.text("SELECT pg_catalog.has_sequence_privilege($1::pg_catalog.text, 'USAGE')", [sequence]) != "t":
            findings.append(
                CredentialFinding(
                    "no_sequence",
                    str(table.name),
                    f"No USAGE on the sequence of {table.name}.{column.name}: new rows cannot be numbered.",
                    f"GRANT USAGE ON SEQUENCE {sequence} TO the promote role.",
                )
            )
    return findings


def _traps(catalog: Catalog, table: ProductionTable, *, bypass: bool) -> list[CredentialFinding]:
    """What makes writes behave otherwise than they read."""
    findings = []
    name = str(table.name)
    if not table.shape.has_key:
        findings.append(CredentialFinding("no_key", name, f"{name} has no primary key and cannot be promoted."))
    if table.row_security and not bypass:
        text = f"{name} has row-level security: rows it hides make a promote fail."
        step = "Set the policy's setting in promotion.yaml (settings), or give the role BYPASSRLS."
        findings.append(CredentialFinding("row_security", name, text, step, fatal=False))
    if table.rules:
        text = f"{name} has rules ({', '.join(table.rules)}), which the chained write cannot pass."
        findings.append(CredentialFinding("rules", name, text, "Replace the rules by triggers."))
    for reference in catalog.references_to(table.name):
        if not reference.is_indexed:
            text = f"{reference.table} refers to {name} without an index: deletions read the whole table."
            columns = ", ".join(reference.key.columns)
            step = f"CREATE INDEX ON {reference.table} ({columns})."
            findings.append(CredentialFinding("unindexed", name, text, step, fatal=False))
    return findings
