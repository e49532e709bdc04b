"""States, digests, rules: what is decided without touching anything."""

from __future__ import annotations

import pytest
import yaml

from orchestrator.config import PROJECT
from orchestrator.core.changes import OPEN, TRANSITIONS, ChangeState, ChangeStateConflict, next_state, review_digest
from orchestrator.core.changeset.shape import TableName
from orchestrator.core.promotion.findings import FINDINGS, Finding
from orchestrator.core.promotion.guard import approvals_needed
from orchestrator.core.promotion.order import Migration
from orchestrator.core.promotion.rules import InvalidPromotionRules, parse_rules


def test_what_is_over_stays_over() -> None:
    for verb in TRANSITIONS:
        for state in (ChangeState.REJECTED, ChangeState.WITHDRAWN):
            with pytest.raises(ChangeStateConflict):
                next_state(state, verb, "c1")
    assert {verb for verb, table in TRANSITIONS.items() if ChangeState.PROMOTED in table} == {"revert"}
    assert all(next_state(state, "rebase", "c1") is ChangeState.DRAFT for state in OPEN)
    assert all(next_state(state, "merge", "c1") is ChangeState.PROMOTED for state in OPEN)


def test_a_review_is_bound_to_rows_commit_and_migrations() -> None:
    first, second = Migration("a.sql", "SELECT 1"), Migration("b.sql", "SELECT 2")
    digests = {
        review_digest("r", None),
        review_digest("s", None),
        review_digest("r", "c"),
        review_digest("r", "c", [first]),
        review_digest("r", "c", [first, second]),
        review_digest("r", "c", [Migration("a.sql", "SELECT 3"), second]),
    }
    assert len(digests) == 6
    assert review_digest("r", "c", [first, second]) == review_digest("r", "c", [second, first])


def test_without_rules_nothing_may_be_promoted() -> None:
    rules = parse_rules({})
    assert rules.promotable == ()
    assert rules.rule(TableName("public", "t")) is None
    assert not rules.auto_approval.enabled


def test_the_shipped_rules_are_valid_and_guard_every_table_but_the_guests() -> None:
    rules = parse_rules(yaml.safe_load((PROJECT / "configs" / "promotion.yaml").read_text()))
    assert [str(table) for table in rules.promotable if rules.guard_of(table) != "property_id"] == ["hotel.guests"]
    assert rules.guard_of(TableName("hotel", "unheard_of")) is None
    assert TableName("hotel", "reservation_history") not in rules.promotable


@pytest.mark.parametrize(
    "document",
    [
        {"tables": {"a.b.c.d": {}}},
        {"tables": {"t": {"operations": ["truncate"]}}},
        {"tables": {"t": {"unguarded": True, "guard": "x"}}},
        {"caps": {"delete": -1}},
        {"approvals": {"default": 0}},
        {"unknown": 1},
    ],
)
def test_a_mistake_in_the_rules_is_refused_by_name(document: dict[str, object]) -> None:
    with pytest.raises(InvalidPromotionRules) as caught:
        parse_rules(document)
    assert next(iter(document)) in str(caught.value)


def test_the_highest_number_of_approvals_counts() -> None:
    rules = parse_rules({"approvals": {"risks": {"money": 3}, "second_above_rows": 10}})

    def needed(rows: int, *risks: str, code: bool = False, migrations: bool = False) -> int:
        return approvals_needed(rules, rows=rows, risks=risks, has_code=code, has_migrations=migrations)

    assert (needed(1), needed(11), needed(1, "money"), needed(1, "deletes")) == (1, 2, 3, 1)
    assert needed(0, code=True, migrations=True) == 2


def test_a_long_cell_is_cut_in_a_finding() -> None:
    document = Finding("cell_conflict", "x", wanted="y" * 10_000).document()
    assert len(document["wanted"]) < 400
    assert "cell_conflict" in FINDINGS
