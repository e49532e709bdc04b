"""A file that is wrong in any way is refused with every problem named; one in force is never replaced by it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from orchestrator.core.allowlist.errors import InvalidAllowlist
from orchestrator.core.allowlist.load import Allowlist, load
from orchestrator.core.allowlist.request import CommandRequest
from orchestrator.core.allowlist.rules import Decision

CONFIGS = Path(__file__).parents[3] / "configs"
HEAD = """
version: 1
roots: {workspace: {path: /workspace, access: rw}}
programs:
  ls: {path: /usr/bin/ls}
  find: {path: /usr/bin/find}
  sh: {path: /bin/sh}
  timeout: {path: /usr/bin/timeout}
  python3: {path: /usr/bin/python3}
  sort: {path: /usr/bin/sort}
  uniq: {path: /usr/bin/uniq}
  sed: {path: /usr/bin/sed}
  git: {path: /usr/bin/git}
  tool: {path: /usr/bin/tool}
rules:
"""
LS = "  - {id: ls, program: ls, decision: allow, reason: List files., match: [ls]}\n"


def problems(text: str) -> str:
    with pytest.raises(InvalidAllowlist) as caught:
        load(text, source="configs/allowlist.yaml")
    assert str(caught.value).startswith("configs/allowlist.yaml: ")
    return "\n".join(caught.value.problems)


def rule(**fields: object) -> str:
    values = {"id": "r", "program": "ls", "decision": "allow", "reason": "For the test.", "match": ["ls"], **fields}
    return f"  - {yaml.safe_dump(values, default_flow_style=True, width=10_000).strip()}\n"


def gated(text: str, *, profile: str = "office", tenant: str = "north") -> Decision:
    return load(text, source="t").gate(profile=profile, tenant=tenant).decide(CommandRequest(argv=("ls",))).decision


@pytest.mark.parametrize("name", ["allowlist.yaml", "allowlist-development.yaml"])
def test_the_shipped_files_load(name: str) -> None:
    assert isinstance(load((CONFIGS / name).read_text(), source=name), Allowlist)


def test_development_holds_every_default_rule_unchanged_and_adds_only_for_its_profile() -> None:
    default = yaml.safe_load((CONFIGS / "allowlist.yaml").read_text())
    development = yaml.safe_load((CONFIGS / "allowlist-development.yaml").read_text())
    kept = {one["id"]: one for one in development["rules"]}
    assert all(kept[one["id"]] == one for one in default["rules"])
    added = [one for one in development["rules"] if one["id"] not in {rule["id"] for rule in default["rules"]}]
    assert added
    assert {one["scope"] for one in added} == {"profile:development"}
    assert {key: development[key] for key in ("version", "roots", "environment", "limits")} == {
        key: default[key] for key in ("version", "roots", "environment", "limits")
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a mapping"),
        ("a: [", "not valid YAML"),
        ("a: &x [1]\nb: *x", "aliases are not allowed"),
        (HEAD + LS + "rules: []", "the key 'rules' stands twice"),
        (HEAD.replace("version: 1", "version: 2") + LS, "version"),
        (
            HEAD.replace("version: 1", "version: 1\ncolour: red") + LS,
            "colour is not a known key; allowed here: environment, limits",
        ),
        (HEAD + rule(reson="x"), "rules[r].reson is not a known key; allowed here: accepts, after_dashes"),
        (
            HEAD + rule(positionals=[{"name": "a", "value": "path", "mx": 3}]),
            "mx is not a known key; allowed here: max, min",
        ),
        (HEAD + rule(positionals=[{"name": "a", "value": "regex"}]), "unknown type; allowed: 'path', 'int'"),
        (HEAD + rule(decision="ask"), "'allow', 'approval' or 'deny'"),
        (HEAD + rule(reason=""), "rules[r].reason"),
        (HEAD + rule(match=[]), "rules[r].match"),
        (HEAD + LS + LS, "rules[ls]: the id stands twice"),
        (HEAD + rule(program="nothing", match=["nothing"]), "'nothing' is not under programs"),
        (
            HEAD + rule(positionals=[{"name": "a", "value": {"type": "path", "roots": ["x"]}}], match=["ls a"]),
            "'x' is not under roots",
        ),
        (HEAD + rule(match=["ls -l"]), "match: ls -l does not match: -l is not a listed flag"),
        (HEAD + rule(match=["cat a"]), "match: cat a: is another program"),
        (HEAD + rule(not_match=["ls"]), "not_match: ls matches"),
        (HEAD + rule(scope="everybody"), "'everybody' is no scope"),
        (HEAD + rule(flags={"-n": {"type": "int", "min": 5, "max": 1}}), "min 5 is greater than max 1"),
        (HEAD + rule(flags={"--n": {"value": "int", "forms": ["joined"]}}), "only a short flag"),
        (HEAD + rule(switches=["--"]), "cannot be a flag"),
        (HEAD + rule(accepts={"sins": "because"}), "accepts sins; only"),
    ],
)
def test_a_wrong_file_says_what_is_wrong_where(text: str, said: str) -> None:
    assert said in problems(text)


def test_all_problems_are_named_not_the_first() -> None:
    said = problems(
        HEAD + rule(id="a", match=["ls -l"]) + rule(id="b", not_match=["ls"]) + rule(id="c", match=["ls -x"])
    )
    assert [name for name in "abc" if f"rules[{name}]" in said] == ["a", "b", "c"]


FIND = {"program": "find", "match": ["find"]}
SORT = {"program": "sort", "match": ["sort"]}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({**FIND, "free": True}, "free arguments, and find can start other programs [free_arguments]"),
        ({**FIND, "free": True, "accepts": {"free_arguments": "please"}}, "find can start other programs"),
        ({**FIND, "switches": ["-delete"]}, "lists -delete, by which find writes"),
        ({**FIND, "flags": {"-exec": "text"}}, "lists -exec, by which find starts programs"),
        ({"program": "sh", "match": ["sh"]}, "is a shell"),
        (
            {"program": "timeout", "positionals": [{"name": "p", "value": "text"}], "match": ["timeout a"]},
            "named in its arguments",
        ),
        ({"program": "timeout", "free": True, "match": ["timeout"]}, "timeout can start other programs"),
        (
            {"program": "python3", "positionals": [{"name": "p", "value": "path"}], "match": ["python3 a"]},
            "runs code, without approval",
        ),
        ({**SORT, "flags": {"-o": "text"}}, "lists -o, by which sort writes"),
        ({**SORT, "flags": {"--compress-program": "text"}}, "by which sort starts programs"),
        (
            {"program": "uniq", "positionals": [{"name": "p", "value": "path", "max": 2}], "match": ["uniq a"]},
            "which it writes to",
        ),
        (
            {"program": "sed", "positionals": [{"name": "p", "value": "text"}], "match": ["sed p"]},
            "free text for sed, which runs it",
        ),
        ({"program": "git", "subcommand": ["log"], "match": ["git log"]}, "must insert --no-ext-diff --no-textconv"),
        (
            {"program": "git", "subcommand": ["status"], "match": ["git status"]},
            "does not pin core.fsmonitor, core.hookspath",
        ),
        ({"program": "tool", "free": True, "match": ["tool"]}, "(accepts: {free_arguments: why} overrides this)"),
        ({"environment": {"LD_PRELOAD": "text"}}, "lets the caller set LD_PRELOAD"),
        ({"environment": {"PATH": "text"}}, "which is pinned"),
    ],
)
def test_the_linter_refuses_what_looks_closed_but_is_not(fields: dict[str, object], said: str) -> None:
    assert said in problems(HEAD + rule(**fields))


def test_a_program_in_a_writable_place_is_refused() -> None:
    text = HEAD.replace("tool: {path: /usr/bin/tool}", "tool: {path: /workspace/tool}") + LS
    assert "lies in the writable root workspace" in problems(text)


def test_what_can_be_accepted_is_accepted_with_a_reason() -> None:
    load(
        HEAD + rule(program="tool", free=True, match=["tool -x"], accepts={"free_arguments": "Made in house."}),
        source="t",
    )
    load(HEAD + rule(**{**SORT, "flags": {"-o": {"type": "path", "access": "rw"}}}), source="t")


def test_rules_hold_where_their_scope_says() -> None:
    both = HEAD + rule(id="a", scope="profile:office") + rule(id="b", scope="tenant:south", decision="deny")
    assert gated(both) is Decision.ALLOW
    assert gated(both, profile="other") is Decision.DENY
    assert gated(both, tenant="south") is Decision.DENY
    assert gated(HEAD + rule(scope="tenant:north"), tenant="south") is Decision.DENY
    assert gated(HEAD + rule(scope="tenant:north")) is Decision.ALLOW


def test_a_huge_file_is_refused_before_it_is_read() -> None:
    assert "more than" in problems("#" * 2_000_000)
