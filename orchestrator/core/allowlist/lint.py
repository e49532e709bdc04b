"""The linter: rules that look closed but hand a program the means to start others or to write where it likes.

A finding stops the file from loading. Some can be accepted in the rule itself, by name and with a reason; shells,
wrappers and free arguments for programs that start others never can.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from orchestrator.core.allowlist import spawners
from orchestrator.core.allowlist.rules import AllowlistModel, Decision, ProgramModel, RuleModel
from orchestrator.core.allowlist.values import PathValue, TextValue

FREE = "free_arguments"
CODE = "runs_code"
STARTS = "starts_programs"
WRITES = "writes_files"


@dataclass(frozen=True)
class LintFinding:
    """`acceptable` findings may be named under the rule's `accepts`."""

    rule: str
    code: str
    why: str
    acceptable: bool = False


def lint(model: AllowlistModel) -> list[LintFinding]:
    """Every finding that is not accepted, in the file's order."""
    found: list[LintFinding] = []
    for name, program in model.programs.items():
        found.extend(_program(name, program, model))
    for rule in model.rules:
        used = model.programs.get(rule.program)
        if used is None or rule.decision is Decision.DENY:
            continue
        base = PurePosixPath(used.path).name if used.path else rule.program
        for finding in _rule(rule, base, used):
            if not (finding.acceptable and finding.code in rule.accepts):
                found.append(finding)
    return found


def _program(name: str, program: ProgramModel, model: AllowlistModel) -> Iterator[LintFinding]:
    for variable in program.environment:
        if spawners.LOADING_VARIABLES.fullmatch(variable):
            yield LintFinding(
                "", "loads_code", f"programs.{name} pins {variable}, which makes programs load or start code"
            )
    if program.path is None:
        return
    for root_name, root in model.roots.items():
        if root.access == "rw" and program.path.startswith(root.path + "/"):
            yield LintFinding("", "writable_program", f"programs.{name} lies in the writable root {root_name}")
    base = PurePosixPath(program.path).name
    used = any(rule.program == name and rule.decision is not Decision.DENY for rule in model.rules)
    if used and (spawners.is_never(base) or spawners.is_never(name)):
        yield LintFinding("", "never", f"programs.{name} ({program.path}) is a shell, a loader or many programs in one")
    if used and base == "git":
        yield from _git_pins(name, program)


def _git_pins(name: str, program: ProgramModel) -> Iterator[LintFinding]:
    keys = {value.casefold() for key, value in program.environment.items() if key.startswith("GIT_CONFIG_KEY_")}
    missing = [pin for pin in spawners.GIT_PINS if pin not in keys]
    if missing:
        yield LintFinding("", "git_pins", f"programs.{name} does not pin {', '.join(missing)} by GIT_CONFIG_KEY_n")
    for variable in ("GIT_CONFIG_NOSYSTEM", "GIT_CONFIG_GLOBAL"):
        if variable not in program.environment:
            yield LintFinding("", "git_pins", f"programs.{name} does not pin {variable}")


def _rule(rule: RuleModel, base: str, program: ProgramModel) -> Iterator[LintFinding]:
    yield from _free(rule, base)
    yield from _flags(rule, base)
    yield from _texts(rule, base)
    for variable in rule.environment:
        if spawners.LOADING_VARIABLES.fullmatch(variable):
            yield LintFinding(rule.id, "loads_code", f"lets the caller set {variable}")
        if variable in program.environment or variable in ("PATH", "HOME", "TMPDIR"):
            yield LintFinding(rule.id, "pinned_variable", f"lets the caller set {variable}, which is pinned")
    if base == "git" and rule.subcommand and rule.subcommand[0] in spawners.GIT_SHOWING:
        lacking = [flag for flag in spawners.GIT_SHOWING_INSERTS if flag not in rule.insert]
        if lacking:
            yield LintFinding(rule.id, "git_pins", f"must insert {' '.join(lacking)}")
    for code in rule.accepts:
        if code not in (FREE, CODE, STARTS, WRITES):
            yield LintFinding(
                rule.id, "accepts", f"accepts {code}; only {FREE}, {CODE}, {STARTS} and {WRITES} can be accepted"
            )


def _free(rule: RuleModel, base: str) -> Iterator[LintFinding]:
    starts_others = (
        base in spawners.WRAPPERS
        or spawners.runs_code(base)
        or base in spawners.STARTING_FLAGS
        or spawners.is_never(base)
    )
    if rule.free and starts_others:
        yield LintFinding(rule.id, FREE, f"gives {base} free arguments, and {base} can start other programs")
    elif rule.free and base not in spawners.INERT:
        yield LintFinding(rule.id, FREE, f"gives {base} free arguments", acceptable=True)
    if base in spawners.WRAPPERS and not rule.free:
        takes_text = any(not isinstance(slot.value, PathValue) for slot in (*rule.positionals, *rule.after_dashes))
        takes_path = bool(rule.positionals or rule.after_dashes)
        if takes_text or takes_path:
            yield LintFinding(rule.id, "wrapper", f"lets {base} start the program named in its arguments")
    if spawners.runs_code(base) and base not in ("sed", "jq") and rule.decision is Decision.ALLOW:
        yield LintFinding(rule.id, CODE, f"allows {base}, which runs code, without approval", acceptable=True)


def _flags(rule: RuleModel, base: str) -> Iterator[LintFinding]:
    named = {*rule.flags, *rule.switches, *rule.insert, *(token for token in rule.subcommand if token.startswith("-"))}
    dangerous = spawners.STARTING_FLAGS.get(base, frozenset())
    if base == "git":
        dangerous -= _harmless_git_flags(rule)
    for flag in sorted(named & dangerous):
        yield LintFinding(
            rule.id, STARTS, f"lists {flag}, by which {base} starts programs or reaches other files", acceptable=True
        )
    for flag in sorted(named & spawners.WRITING_FLAGS.get(base, frozenset())):
        value = rule.flags[flag].value if flag in rule.flags else None
        if not (isinstance(value, PathValue) and value.access == "rw"):
            yield LintFinding(
                rule.id,
                WRITES,
                f"lists {flag}, by which {base} writes, without a value of type path, access rw",
                acceptable=True,
            )
    if base in spawners.WRITING_SECOND_POSITIONAL and sum(slot.max for slot in rule.positionals) > 1:
        yield LintFinding(rule.id, WRITES, f"gives {base} a second positional, which it writes to", acceptable=True)


def _harmless_git_flags(rule: RuleModel) -> frozenset[str]:
    """`-p` behind a verb shows patches, `-u` and `-C` have other meanings there; before the verb they are dangerous."""
    if not rule.subcommand:
        return frozenset()
    verb = rule.subcommand[0]
    harmless = {"-p", "-C", "-S"} if verb in spawners.GIT_SHOWING else set()
    if verb in ("add", "status", "diff", "commit"):
        harmless |= {"-u"}
    return frozenset(harmless) if verb != "grep" else frozenset()


def _texts(rule: RuleModel, base: str) -> Iterator[LintFinding]:
    """A free text given to a program with a language of its own is a program."""
    if base not in ("sed", "awk", "gawk", "mawk", "nawk", "ed", "bc", "vim", "perl", "psql", "sqlite3"):
        return
    for slot in (*rule.positionals, *rule.after_dashes):
        if isinstance(slot.value, TextValue):
            yield LintFinding(rule.id, CODE, f"takes a free text for {base}, which runs it", acceptable=False)
