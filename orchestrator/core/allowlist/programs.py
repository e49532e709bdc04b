"""From the allowlist to the kernel: which programs can start in a tenant's sandbox and which files each may touch."""

from __future__ import annotations

from orchestrator.core.allowlist.decide import Gate
from orchestrator.core.allowlist.matching import CompiledRule
from orchestrator.core.allowlist.rules import Decision, ProgramModel
from orchestrator.core.allowlist.values import PathValue
from orchestrator.core.ports.sandboxd import Access, PathGrant, Program, SandboxPolicy


def policy_digest(gate: Gate) -> str:
    """Names the policy of one gate: the file's digest and which of its rules hold for the tenant."""
    return f"{gate.digest[:32]}-{gate.scope_key}"


def sandbox_policy(gate: Gate) -> SandboxPolicy:
    """What to push to sandboxd: every program some rule allows or lets be approved, nothing else.

    The kernel knows programs, not arguments: a program may read every root and write those that one of its rules
    takes a writable path in. A program all of whose rules deny is not listed at all.
    """
    programs = []
    for name, program in sorted(gate.programs.items()):
        rules = [rule for rule in gate.rules_of(name) if rule.decision is not Decision.DENY]
        if program.path is not None and rules:
            programs.append(Program(program.path, _grants(gate, program, rules), program.starts))
    return SandboxPolicy(policy_digest(gate), tuple(_merged(programs)))


def _grants(gate: Gate, program: ProgramModel, rules: list[CompiledRule]) -> tuple[PathGrant, ...]:
    written = {name for rule in rules for name in _written_roots(gate, rule)}
    access = {root.path: Access.WRITE if root.name in written else Access.READ for root in gate.roots}
    for path in program.reads:
        access.setdefault(path, Access.READ)
    for path in program.writes:
        access[path] = Access.WRITE
    return tuple(PathGrant(path, access[path]) for path in sorted(access))


def _written_roots(gate: Gate, rule: CompiledRule) -> list[str]:
    values = [slot.value for slot in (*rule.model.positionals, *rule.model.after_dashes)]
    values += [flag.value for flag in rule.model.flags.values()]
    found = []
    for value in values:
        if isinstance(value, PathValue) and value.access == "rw":
            found += [root.name for root in gate.roots if root.writable and root.name in (value.roots or [root.name])]
    return found


def _merged(programs: list[Program]) -> list[Program]:
    """Two names of one file get what either has."""
    by_path: dict[str, Program] = {}
    for one in programs:
        other = by_path.get(one.path)
        if other is not None:
            access = {grant.path: grant.access for grant in other.grants}
            for grant in one.grants:
                if access.get(grant.path) is not Access.WRITE:
                    access[grant.path] = grant.access
            grants = tuple(PathGrant(path, access[path]) for path in sorted(access))
            one = Program(one.path, grants, tuple(sorted({*other.starts, *one.starts})))
        by_path[one.path] = one
    return list(by_path.values())
