"""What holds for every argv: closure, order independence, strictness, and that nothing makes the decision fail."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from random import Random

import yaml
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from orchestrator.core.allowlist.decide import Gate
from orchestrator.core.allowlist.execution import execution
from orchestrator.core.allowlist.explain import explain
from orchestrator.core.allowlist.load import load
from orchestrator.core.allowlist.matching import CompiledRule
from orchestrator.core.allowlist.request import CommandRequest
from orchestrator.core.allowlist.rules import STRICTNESS, Decision, RuleModel
from orchestrator.core.allowlist.texts import is_misleading, shown

SHIPPED = Path(__file__).parents[3] / "configs" / "allowlist.yaml"
SAMPLES = {
    "path": ["a.txt", "/workspace/reports/q1.csv", "dir"],
    "int": ["1", "7"],
    "pattern": ["total", "*.csv", "-odd"],
    "text": ["hello", "a b"],
    "statement": ["select 1"],
    "rev": ["HEAD", "main..x"],
    "date": ["2031-01-01"],
    "date_format": ["+%Y"],
    "host": ["example.test:443"],
    "line_range": ["1,5p"],
    "fields": ["1,3"],
    "character": [","],
    "sort_key": ["2,2n"],
    "quantity": ["+10k"],
    "identifier": ["rooms"],
}
quick = settings(max_examples=150, deadline=None, database=None, phases=[Phase.generate])


@cache
def gate() -> Gate:
    return load(SHIPPED.read_text(), source="shipped").gate(profile="office", tenant="north")


def _rules() -> list[CompiledRule]:
    return [rule for rule in gate().rules if rule.decision is not Decision.DENY]


def _value(draw: st.DrawFn, value: object) -> str:
    kind = value.type  # type: ignore[attr-defined]
    choices = list(value.values) if kind == "enum" else SAMPLES[kind]  # type: ignore[attr-defined]
    return draw(st.sampled_from(choices))


@st.composite
def filled(draw: st.DrawFn) -> tuple[RuleModel, list[str], list[list[str]], list[str]]:
    """A rule, its head, its flags (each with its value) and as many positionals as it can take."""
    rule = draw(st.sampled_from(_rules())).model
    flags = [[name] for name in draw(st.lists(st.sampled_from(rule.switches), max_size=3))] if rule.switches else []
    for name, flag in rule.flags.items():
        if flag.required or draw(st.booleans()):
            value = _value(draw, flag.value)
            flags.append([name, value] if "split" in flag.forms else [f"{name}={value}"])
    positionals = []
    for slot in rule.positionals:
        value = _value(draw, slot.value)
        positionals += [value if not value.startswith("-") else "x"] * slot.max
    return rule, [rule.program, *rule.subcommand], flags, positionals


def _decide(argv: list[str]) -> Decision:
    return gate().decide(CommandRequest(argv=tuple(argv))).decision


@quick
@given(filled(), st.data())
def test_what_a_rule_lists_passes(
    case: tuple[RuleModel, list[str], list[list[str]], list[str]], data: st.DataObject
) -> None:
    rule, head, flags, positionals = case
    argv = [*head, *(token for flag in flags for token in flag), *positionals]
    matched = gate().decide(CommandRequest(argv=tuple(argv))).matched
    assert rule.id in matched


@quick
@given(filled(), st.text(min_size=1, max_size=12), st.data())
def test_one_random_flag_more_never_passes(
    case: tuple[RuleModel, list[str], list[list[str]], list[str]], random: str, data: st.DataObject
) -> None:
    rule, head, flags, positionals = case
    token = data.draw(st.sampled_from(["-", "--"])) + random.lstrip("-")
    listed = {*rule.switches, *rule.flags}
    clustered = rule.clusters and all(f"-{letter}" in listed for letter in token[1:])
    joined = token[:2] in listed or token.split("=")[0] in listed
    number = rule.number is not None and token[1:].isdigit()
    if token in ("-", "--") or token in listed or clustered or joined or number:
        return
    place = data.draw(st.integers(0, len(flags)))
    argv = [*head, *(part for flag in flags[:place] for part in flag), token]
    argv += [*(part for flag in flags[place:] for part in flag), *positionals]
    decided = gate().decide(CommandRequest(argv=tuple(argv)))
    assert rule.id not in decided.matched
    assert not _passes_elsewhere_with(token, argv)


def _passes_elsewhere_with(token: str, argv: list[str]) -> bool:
    """Whether another rule of the same program takes the token (grep has two)."""
    decided = gate().decide(CommandRequest(argv=tuple(argv)))
    if decided.decision is Decision.DENY:
        return False
    others = [rule for rule in gate().rules if rule.id in decided.matched]
    return not any(token in {*rule.model.switches, *rule.model.flags} for rule in others)


@quick
@given(filled(), st.text(alphabet="abcxyz0189._", min_size=1, max_size=8))
def test_one_positional_more_than_a_rule_takes_never_passes(
    case: tuple[RuleModel, list[str], list[list[str]], list[str]], random: str
) -> None:
    rule, head, flags, positionals = case
    argv = [*head, *(token for flag in flags for token in flag), *positionals, random]
    assert rule.id not in gate().decide(CommandRequest(argv=tuple(argv))).matched


@cache
def _shuffled(seed: int) -> Gate:
    values = yaml.safe_load(SHIPPED.read_text())
    Random(seed).shuffle(values["rules"])
    return load(yaml.safe_dump(values), source="shuffled").gate(profile="office", tenant="north")


@quick
@given(st.integers(1, 4), filled())
def test_the_order_of_the_file_says_nothing(
    seed: int, case: tuple[RuleModel, list[str], list[list[str]], list[str]]
) -> None:
    _, head, flags, positionals = case
    request = CommandRequest(argv=tuple([*head, *(part for flag in flags for part in flag), *positionals]))
    one, other = gate().decide(request), _shuffled(seed).decide(request)
    assert (one.decision, one.rule, one.reason, one.matched) == (
        other.decision,
        other.rule,
        other.reason,
        other.matched,
    )


@quick
@given(filled())
def test_the_strictest_of_the_rules_that_match_decides(
    case: tuple[RuleModel, list[str], list[list[str]], list[str]],
) -> None:
    _, head, flags, positionals = case
    argv = tuple([*head, *(part for flag in flags for part in flag), *positionals])
    decided = gate().decide(CommandRequest(argv=argv))
    strictness = [STRICTNESS[rule.decision] for rule in gate().rules if rule.id in decided.matched]
    assert STRICTNESS[decided.decision] == max(strictness)


@settings(max_examples=400, deadline=None, database=None, phases=[Phase.generate])
@given(
    st.lists(
        st.one_of(
            st.text(max_size=20),
            st.sampled_from(
                ["git", "ls", "find", "grep", "query", "--", "-", "-e", "-n", "--format", "log", "-la", "!", "\0"]
            ),
            st.text(st.characters(codec=None), max_size=5),
        ),
        max_size=8,
    ),
    st.text(max_size=10),
)
def test_no_argv_makes_the_decision_or_its_explanation_fail(argv: list[str], cwd: str) -> None:
    request = CommandRequest(argv=tuple(argv), cwd=cwd)
    decided = gate().decide(request)
    said = explain(gate(), request, decided, tenant="north")
    assert said.reason
    assert shown(said.shown).isprintable()
    if decided.decision is Decision.ALLOW:
        ready = execution(gate(), request, decided, tenant="north")
        assert ready.argv[0] == decided.compiled.model.program  # type: ignore[union-attr]
        assert not any("\0" in argument for argument in ready.argv)


@quick
@given(st.text(max_size=40))
def test_what_is_shown_to_a_person_cannot_mislead(text: str) -> None:
    seen = shown(text)
    assert seen.isprintable()
    assert not is_misleading(seen)


@quick
@given(st.text(max_size=20), st.text(max_size=20))
def test_two_texts_are_never_shown_alike(one: str, other: str) -> None:
    assert (shown(one) == shown(other)) == (one == other)
