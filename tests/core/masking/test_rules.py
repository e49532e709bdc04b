"""The masking file: what is wrong in it is named, and nothing passes by accident."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.core.masking.plan import ColumnFact, TypeFamily, Unclassified, family, plan
from orchestrator.core.masking.rules import InvalidMasking, Method, UnknownProfile, parse


def fact(name: str, type_name: str = "text", **values: Any) -> ColumnFact:
    given = {"length_max": None, "is_not_null": False, "is_generated": False, **values}
    return ColumnFact("app.people", name, type_name, type_name, **given)


def masking(**rules: Any) -> dict[str, Any]:
    return {"tables": {"app.people": rules}}


def test_every_column_needs_a_rule_and_all_missing_ones_are_named() -> None:
    with pytest.raises(Unclassified) as caught:
        plan(parse(masking(keep=["id"])), "full", [fact("id"), fact("email"), fact("phone")])
    assert caught.value.fields["columns"] == ["app.people.email", "app.people.phone"]


def test_a_generated_column_needs_no_rule() -> None:
    assert plan(parse(masking(keep=["id"])), "full", [fact("id"), fact("label", is_generated=True)]).masked == {}


def test_a_table_without_rules_is_refused_whole() -> None:
    with pytest.raises(Unclassified):
        plan(parse({}), "full", [fact("id")])


def test_the_plan_names_the_method_of_every_masked_column() -> None:
    rules = parse(masking(keep=["id"], mask={"email": "email", "born": {"method": "shift_date", "days": 9}}))
    made = plan(rules, "full", [fact("id"), fact("email"), fact("born", "date")])
    assert made.methods == {"app.people.email": "email", "app.people.born": "shift_date"}
    assert made.masked["app.people"][1].rule.days == 9


def test_rules_for_columns_production_lacks_are_noted() -> None:
    made = plan(parse(masking(keep=["id", "gone"])), "full", [fact("id")])
    assert made.notes == ("app.people.gone has a rule but production does not have it",)


@pytest.mark.parametrize(
    ("column", "rule", "says"),
    [
        (fact("age", "integer"), "email", "does not work"),
        (fact("name", is_not_null=True), None, "cannot be null"),
        (fact("born", "date"), {"method": "shift_date", "by": "missing"}, "no column"),
    ],
)
def test_a_rule_that_cannot_work_on_its_column_is_refused(column: ColumnFact, rule: Any, says: str) -> None:
    with pytest.raises(InvalidMasking, match=says):
        plan(parse(masking(mask={column.name: rule})), "full", [column])


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"tabels": {}}, "'tabels' is not known"),
        ({"tables": {"people": {"keep": []}}}, "schema.table"),
        (masking(keep="all"), "list of column names"),
        (masking(keep=["a"], mask={"a": "hash"}), "both kept and masked"),
        (masking(mask={"a": "scramble"}), "no masking method"),
        (masking(mask={"a": {"method": "constant"}}), "needs a value"),
        (masking(mask={"a": {"method": "shift_date", "days": 0}}), "whole number"),
        (masking(mask={"a": {"method": "hash", "salt": 1}}), "'salt' is not known"),
        ({"profiles": {"x": {"filters": {"a.b": "true; DROP TABLE a.b"}}}}, "without a semicolon"),
        ({"profiles": {"x": {"filters": {"b": "true"}}}}, "schema.table"),
        (["tables"], "must be a mapping"),
    ],
)
def test_a_malformed_file_is_refused_with_the_key_named(document: Any, says: str) -> None:
    with pytest.raises(InvalidMasking, match=says):
        parse(document)


def test_an_unknown_profile_is_refused_and_a_filter_must_have_its_table() -> None:
    rules = parse({**masking(keep=["id"]), "profiles": {"north": {"filters": {"app.gone": "true"}}}})
    with pytest.raises(UnknownProfile, match="north"):
        plan(rules, "south", [fact("id")])
    with pytest.raises(InvalidMasking, match="does not have"):
        plan(rules, "north", [fact("id")])


def test_unquoted_null_in_yaml_means_the_method_null() -> None:
    assert parse(yaml.safe_load("tables: {a.b: {mask: {c: null}}}")).columns["a.b"]["c"].method is Method.NULL


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("character varying(20)", TypeFamily.TEXT),
        ("text[]", TypeFamily.ARRAY),
        ("numeric", TypeFamily.NUMBER),
        ("jsonb", TypeFamily.JSON),
        ("hotel.task_status", TypeFamily.OTHER),
    ],
)
def test_types_fall_into_families(name: str, found: TypeFamily) -> None:
    assert family(name) is found


def test_the_shipped_file_is_well_formed() -> None:
    shipped = Path(__file__).parents[3] / "configs/masking.yaml"
    assert set(parse(yaml.safe_load(shipped.read_text())).profiles) == {"full", "harbour", "riverside", "hillside"}
