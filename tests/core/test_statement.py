"""One statement, and none that would leave its own transaction."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.statement import first_word, statement_problem

ONE = [
    "select 1",
    "select 1;",
    "select ';'",
    "select E'\\';' ",
    "select $$;$$",
    "select $a$ $b$;$b$ $a$",
    'select ";" from t',
    "-- a ; b\nselect 1",
    "/* ; /* ; */ ; */ select 1",
    "select 'it''s; fine'",
    "with x as (select 1) select * from x",
    "explain analyze select 1",
    "update rooms set floor = 2 where id = 3",
    "create function f() returns int language sql begin atomic select 1; select 2; end",
    "call p()",
    "select * from begin_dates",
    "select $1",
]
NOT_ONE = [
    "",
    ";",
    "-- nothing",
    "select 1; select 2",
    "select 1;; drop table t",
    "select 'open",
    "select $$open",
    "/* open select 1",
    'select "open',
    "begin",
    "COMMIT",
    "/* x */ Rollback",
    "set role postgres",
    "reset all",
    "start transaction",
    "savepoint a",
    "release a",
    "prepare transaction 'x'",
    "listen x",
    "lock table t",
    "alter role me set work_mem = '1GB'",
    "alter system set x = 1",
    "create role x",
    "drop database x",
    "copy t to program 'x'",
    "copy t from stdin",
    "load 'x'",
    "checkpoint",
    "\\! id",
    "select 1 \\; select 2; select 3",
]


@pytest.mark.parametrize("text", ONE)
def test_one_statement_may_be_sent(text: str) -> None:
    assert statement_problem(text) is None


@pytest.mark.parametrize("text", NOT_ONE)
def test_anything_else_may_not(text: str) -> None:
    assert statement_problem(text) is not None


def test_a_huge_statement_is_refused() -> None:
    assert "longer than" in str(statement_problem("select '" + "x" * 70_000 + "'"))


def test_the_first_word_is_found() -> None:
    assert first_word("/* x */ -- y\n SELECT 1") == "select"


@settings(max_examples=300, deadline=None, database=None)
@given(st.text(alphabet="select ;'\"$a-/*\\E\n1(", max_size=40))
def test_no_text_makes_it_fail(text: str) -> None:
    statement_problem(text)


@settings(max_examples=100, deadline=None, database=None)
@given(st.sampled_from(ONE), st.sampled_from(["drop table t", "commit", "select 2"]))
def test_a_second_statement_behind_any_first_is_seen(first: str, second: str) -> None:
    if first.startswith("create function"):
        return
    assert statement_problem(f"{first}\n;{second}") is not None
