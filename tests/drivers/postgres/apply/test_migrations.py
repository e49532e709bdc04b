"""Splitting migrations and refusing what a transaction cannot hold."""

from __future__ import annotations

import pytest

from orchestrator.core.ports.production import MigrationRefused
from orchestrator.core.promotion.order import Migration
from orchestrator.drivers.postgres.apply.migrations import check, statements

TEXT = r"""
-- a comment; with a semicolon
CREATE TABLE "odd;name" (a text DEFAULT 'it''s; fine', b text DEFAULT E'back\'; slash');
/* nested /* comments; */ too; */
DO $body$ BEGIN PERFORM 1; PERFORM 'COMMIT;'; END $body$;
CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END;
INSERT INTO t VALUES ($$a;b$$);;
UPDATE t SET a = 1 -- no semicolon at the end
"""


def test_quotes_comments_and_bodies_never_split_a_statement() -> None:
    found = list(statements(TEXT))
    assert [statement.split()[0] for statement in found] == ["CREATE", "DO", "CREATE", "INSERT", "UPDATE"]
    assert check(Migration("1.sql", TEXT)) == found


@pytest.mark.parametrize(
    "text",
    [
        "COMMIT",
        "commit; select 1",
        "SELECT 1; /* x */ ROLLBACK",
        "BEGIN; SELECT 1; END",
        "VACUUM t",
        "CREATE INDEX CONCURRENTLY i ON t (a)",
        "create unique index concurrently i on t (a)",
        "REINDEX TABLE CONCURRENTLY t",
        "ALTER SYSTEM SET work_mem = '1GB'",
        "CREATE DATABASE other",
        "COPY t FROM PROGRAM 'id'",
        "SET ROLE postgres",
        "SET LOCAL search_path = evil",
        "set statement_timeout = 0",
        "RESET ALL",
        "ALTER ROLE promoter SUPERUSER",
        "LOAD 'x'",
        "SAVEPOINT a",
        "PREPARE TRANSACTION 'x'",
        "SELECT 1;\n\\! id\n",
    ],
)
def test_what_ends_the_transaction_or_leaves_the_database_is_refused_by_name(text: str) -> None:
    with pytest.raises(MigrationRefused) as caught:
        check(Migration("migrations/7.sql", text))
    assert "migrations/7.sql: statement" in str(caught.value)
