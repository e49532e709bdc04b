"""Every decision explains itself: the rule and its reason, or the nearest rule and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.core.allowlist.decide import Gate
from orchestrator.core.allowlist.execution import execution
from orchestrator.core.allowlist.explain import Explanation, explain
from orchestrator.core.allowlist.load import load
from orchestrator.core.allowlist.programs import policy_digest, sandbox_policy
from orchestrator.core.allowlist.request import CommandRequest
from orchestrator.core.allowlist.texts import shown, shown_argv
from orchestrator.core.ports.sandboxd import Access

SHIPPED = Path(__file__).parents[3] / "configs" / "allowlist.yaml"


@pytest.fixture(scope="module")
def gate() -> Gate:
    return load(SHIPPED.read_text(), source="shipped").gate(profile="office", tenant="north")


def said(gate: Gate, *argv: str, **more: object) -> Explanation:
    request = CommandRequest.model_validate({"argv": argv, **more})
    return explain(gate, request, gate.decide(request), tenant="north")


def test_an_allowed_command_names_its_rule(gate: Gate) -> None:
    told = said(gate, "ls", "-la")
    assert (told.decision, told.rule, told.reason, told.how_to_ask) == ("allow", "ls", "List files.", "")


def test_an_approval_says_how_to_ask(gate: Gate) -> None:
    assert "orchestrator command run north -- rm a.txt" in said(gate, "rm", "a.txt").how_to_ask


@pytest.mark.parametrize(
    ("argv", "nearest", "why"),
    [
        (["git", "diff", "--output=f"], "git.diff", "argument 2 (--output=f) is not a listed flag"),
        (["cat", "/etc/passwd"], "cat", "argument 1 (/etc/passwd) lies outside /workspace and /data"),
        (["uniq", "a", "b"], "uniq", "argument 2 (b) is one argument too many"),
        (["diff", "a"], "diff", "the command lacks files"),
        (["bash", "-c", "ls"], "", "no shell is ever started"),
        (["timeout", "5", "ls"], "", "starts other programs; give the program it would start itself"),
        (["/opt/ls"], "", "ls is listed, but only as ls or /usr/bin/ls"),
        (["gerp", "x"], "", "did you mean grep?"),
        (["ls -la"], "", "the first argument must be the program alone"),
    ],
)
def test_a_denied_command_says_what_it_lacks(gate: Gate, argv: list[str], nearest: str, why: str) -> None:
    told = said(gate, *argv)
    assert told.decision == "deny"
    assert told.nearest == nearest
    assert why in told.why_not
    assert "orchestrator approval ask north" in told.how_to_ask


def test_a_deny_rule_is_not_open_to_requests(gate: Gate) -> None:
    told = said(gate, "git", "push")
    assert told.rule == "git.push"
    assert "never overridden" in told.how_to_ask


def test_a_circumstance_is_named(gate: Gate) -> None:
    assert said(gate, "ls", environment={"LD_PRELOAD": "x"}).why_not == "the variable 'LD_PRELOAD' may not be set"
    assert "no input may be given" in said(gate, "ls", stdin="x").why_not


def test_misleading_text_is_written_as_codes() -> None:
    assert shown("a\u202eb\x1b[0m") == "a\\u{202E}b\\u{1B}[0m"
    assert shown("p\u0430per") == "p\\u{430}per"  # one Cyrillic letter in a Latin word
    assert shown("\u0431\u0443\u043c\u0430\u0433\u0430") == "\u0431\u0443\u043c\u0430\u0433\u0430"
    assert shown("\\u{41}") == "\\u{5C}u{41}"
    assert shown_argv(("rm", "a b", "", "it's")) == "rm 'a b' '' 'it\\u{27}s'"


def test_what_runs_is_pinned(gate: Gate) -> None:
    request = CommandRequest(argv=("/usr/bin/git", "diff", "--stat"), timeout_s=9_99.0)
    ready = execution(gate, request, gate.decide(request), tenant="north")
    assert ready.program == "/usr/bin/git"
    assert ready.argv == ("git", "diff", "--no-ext-diff", "--no-textconv", "--stat")
    assert ready.environment["GIT_AUTHOR_EMAIL"] == "north@tenants.invalid"
    assert ready.environment["PATH"] == "/usr/bin:/bin"
    assert ready.timeout_s == 600.0
    asked = CommandRequest(argv=("query", "select 1"))
    assert execution(gate, asked, gate.decide(asked), tenant="north").builtin == "query"


def test_the_kernel_gets_the_listed_programs_and_nothing_else(gate: Gate) -> None:
    policy = sandbox_policy(gate)
    paths = {program.path for program in policy.programs}
    assert {"/usr/bin/ls", "/usr/bin/git", "/usr/bin/python3"} <= paths
    assert policy.digest == policy_digest(gate)
    access = {program.path: {grant.path: grant.access for grant in program.grants} for program in policy.programs}
    assert access["/usr/bin/cat"]["/workspace"] is Access.READ
    assert access["/usr/bin/rm"] == {"/workspace": Access.WRITE, "/data": Access.READ}
    assert access["/usr/bin/git"]["/repository"] is Access.WRITE
    assert all(grants.get("/repository") is None for path, grants in access.items() if path != "/usr/bin/git")
