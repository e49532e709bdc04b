"""What really runs for an allowed request: the pinned program, argv with the rule's insertions, a fresh environment."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.allowlist.decide import Decided, Gate
from orchestrator.core.allowlist.request import CommandRequest


@dataclass(frozen=True)
class Execution:
    """`builtin` names what runs outside the sandbox instead of `program`; exactly one of them is set."""

    program: str
    builtin: str
    argv: tuple[str, ...]
    cwd: str
    environment: dict[str, str]
    timeout_s: float


def execution(gate: Gate, request: CommandRequest, decided: Decided, *, tenant: str) -> Execution:
    """Build the execution of a request whose rule is known. Raises ValueError when no rule decided."""
    if decided.compiled is None:
        raise ValueError("nothing decided in favour of this request")
    rule = decided.compiled.model
    program = gate.programs[rule.program]
    skip = 1 + len(rule.subcommand)
    argv = (rule.program, *request.argv[1:skip], *rule.insert, *request.argv[skip:])
    environment = {**gate.environment, **program.environment}
    environment = {name: value.replace("{tenant}", tenant) for name, value in environment.items()}
    environment.update(request.environment)  # only names and values the rule lists
    wanted = request.timeout_s if request.timeout_s is not None else gate.limits.timeout_s
    return Execution(
        program=program.path or "",
        builtin=program.builtin or "",
        argv=argv,
        cwd=request.cwd,
        environment=environment,
        timeout_s=min(wanted, gate.limits.timeout_max_s),
    )
