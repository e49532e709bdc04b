"""Why it was decided so: the rule and its reason, or the nearest rule, what it lacks, and how to ask."""

from __future__ import annotations

import difflib
import shlex
from dataclasses import dataclass

from orchestrator.core.allowlist import spawners
from orchestrator.core.allowlist.decide import Decided, Gate
from orchestrator.core.allowlist.matching import CompiledRule, Mismatch
from orchestrator.core.allowlist.paths import Links, Place
from orchestrator.core.allowlist.request import CommandRequest
from orchestrator.core.allowlist.rules import Decision
from orchestrator.core.allowlist.texts import shown, shown_argv


@dataclass(frozen=True)
class Explanation:
    """One decision in words. `nearest` and `why_not` are set when no rule matched but one nearly did."""

    decision: Decision
    rule: str
    reason: str
    matched: tuple[str, ...]
    nearest: str
    why_not: str
    how_to_ask: str
    shown: str


def explain(
    gate: Gate, request: CommandRequest, decided: Decided, *, tenant: str, links: Links | None = None
) -> Explanation:
    """Put a decision in words; slower than deciding, so only done when somebody wants to know."""
    nearest, why_not = "", ""
    if decided.compiled is None:
        nearest, why_not = _nearest(gate, request, gate.place(request.cwd, links))
    return Explanation(
        decision=decided.decision,
        rule=decided.rule,
        reason=decided.reason,
        matched=decided.matched,
        nearest=nearest,
        why_not=why_not,
        how_to_ask=_how_to_ask(decided, request, tenant),
        shown=shown_argv(request.argv),
    )


def _nearest(gate: Gate, request: CommandRequest, place: Place) -> tuple[str, str]:
    """The rule that got furthest through argv, and where it stopped."""
    if not request.argv or not request.argv[0]:
        return "", ""
    program = gate.program_of(request.argv[0])
    if program is None:
        return "", _unlisted(gate, request.argv[0])
    best: tuple[int, CompiledRule, str] | None = None
    for rule in gate.rules_of(program):
        if rule.decision is Decision.DENY:
            continue
        mismatch = rule.mismatch(request.argv, place)
        if mismatch is None:
            trouble = rule.circumstance(request, place)
            position, why = len(request.argv) + 1, trouble or place.cwd_problem() or ""
        else:
            # A rule that wants a flag nobody gave was not meant, however far it got.
            position = 0 if mismatch.why.startswith("lacks the flag") else mismatch.position
            why = _where(request.argv, mismatch)
        if best is None or position > best[0]:
            best = (position, rule, why)
    return (best[1].id, best[2]) if best is not None else ("", "")


def _where(argv: tuple[str, ...], mismatch: Mismatch) -> str:
    if mismatch.position >= len(argv):
        return f"the command {mismatch.why}"
    return f"argument {mismatch.position} ({shown(argv[mismatch.position][:80])}) {mismatch.why}"


def _unlisted(gate: Gate, program: str) -> str:
    base = program.rsplit("/", 1)[-1]
    listed = sorted(gate.programs)
    if base in gate.programs:
        return f"{base} is listed, but only as {base} or {gate.programs[base].path}"
    if spawners.is_never(base):
        return "no shell is ever started; give the program and its arguments themselves"
    if base in spawners.WRAPPERS:
        return f"{base} starts other programs; give the program it would start itself"
    if " " in program:
        return "the first argument must be the program alone"
    near = difflib.get_close_matches(base, listed, n=1, cutoff=0.75)
    return f"did you mean {near[0]}?" if near else "listed programs: " + ", ".join(listed[:40])


def _how_to_ask(decided: Decided, request: CommandRequest, tenant: str) -> str:
    command = shlex.join(shown(argument) for argument in request.argv)
    if decided.decision is Decision.ALLOW:
        return ""
    if decided.decision is Decision.APPROVAL:
        return f"Run it: `orchestrator command run {tenant} -- {command}` puts it before a person who may approve it."
    if decided.compiled is not None:
        return "A deny rule is never overridden by a request; an admin can change the allowlist."
    return f"Ask for a rule: `orchestrator approval ask {tenant} --reason WHY -- {command}`."
