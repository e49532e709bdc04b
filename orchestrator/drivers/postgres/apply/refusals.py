"""What the server said when it refused a row, as a finding."""

from __future__ import annotations

import psycopg

from orchestrator.core.changeset.shape import TableName
from orchestrator.core.promotion.findings import Finding

CODES = {
    "23505": "unique_clash",
    "23503": "missing_parent",
    "22001": "does_not_fit",
    "22003": "does_not_fit",
    "22P02": "invalid_value",
    "22007": "invalid_value",
    "22008": "invalid_value",
}
# Other details quote the whole row, true values of masked columns included.
DETAILED = frozenset({"23505", "23503"})


def refusal(error: psycopg.Error, *, row: str = "", key: str = "") -> Finding:
    """The server's own words, its constraint and column; one row where it is known."""
    diag = error.diag
    table = ""
    if diag.schema_name and diag.table_name:
        table = str(TableName(diag.schema_name, diag.table_name))
    message = diag.message_primary or str(error) or type(error).__name__
    if diag.message_detail and error.sqlstate in DETAILED:
        message = f"{message} ({diag.message_detail})"
    return Finding(
        CODES.get(error.sqlstate or "", "database"),
        message,
        table=table,
        row=row,
        key=key,
        column=diag.column_name or diag.constraint_name or "",
    )
