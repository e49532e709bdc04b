"""The decision: the strictest rule that matches wins, and what no rule matches is denied."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orchestrator.core.allowlist.matching import CompiledRule
from orchestrator.core.allowlist.paths import Links, Place, Root
from orchestrator.core.allowlist.request import CommandRequest, argv_problem
from orchestrator.core.allowlist.rules import STRICTNESS, CommandDefaults, Decision, ProgramModel
from orchestrator.core.allowlist.texts import is_misleading, mixes_scripts


@dataclass(frozen=True, slots=True)
class Decided:
    """`rule` is empty when no rule matched; `matched` names every rule that did, the deciding one first."""

    decision: Decision
    rule: str
    reason: str
    matched: tuple[str, ...] = ()
    compiled: CompiledRule | None = None


_NO_PROGRAM = "The program is not on the allowlist."
_ONE_PLACE = "This is done outside every container, so not in a disposable place."
_NO_RULE = "No rule of the allowlist matches these arguments."


class Gate:
    """The rules that hold for one tenant, indexed by program and first subcommand word. Immutable."""

    def __init__(
        self,
        rules: Iterable[CompiledRule],
        *,
        programs: Mapping[str, ProgramModel],
        roots: tuple[Root, ...],
        environment: Mapping[str, str],
        limits: CommandDefaults,
        digest: str,
        scope_key: str,
    ) -> None:
        self.rules = tuple(sorted(rules, key=lambda rule: (-STRICTNESS[rule.decision], rule.id)))
        self.programs = dict(programs)
        self.roots = roots
        self.environment = dict(environment)
        self.limits = limits
        self.digest = digest
        self.scope_key = scope_key
        self._names = self._identities()
        self._index: dict[str, dict[str, list[CompiledRule]]] = {}
        for rule in self.rules:
            first = rule.model.subcommand[0] if rule.model.subcommand else ""
            self._index.setdefault(rule.model.program, {}).setdefault(first, []).append(rule)

    def program_of(self, argv0: str) -> str | None:
        """The listed program `argv0` names: by its exact name or its exact absolute path, never by its basename."""
        return self._names.get(argv0)

    def builtin(self, builtin: str) -> str:
        """The name under which a builtin is listed; empty when it is not."""
        return next((name for name, program in sorted(self.programs.items()) if program.builtin == builtin), "")

    def rules_of(self, program: str) -> list[CompiledRule]:
        """Every rule of one program, the strictest first."""
        return [rule for rule in self.rules if rule.model.program == program]

    def place(self, cwd: str, links: Links | None = None) -> Place:
        return Place(cwd, self.roots, links)

    def decide(self, request: CommandRequest, links: Links | None = None) -> Decided:
        """Decide one request. `links` looks at the tenant's files; without it paths are judged by name alone."""
        argv = request.argv
        problem = argv_problem(argv)
        if problem is not None:
            return Decided(Decision.DENY, "", problem)
        program = self._names.get(argv[0])
        by_first = self._index.get(program) if program is not None else None
        if by_first is None:
            return Decided(Decision.DENY, "", _NO_PROGRAM)
        place = Place(request.cwd, self.roots, links)
        problem = place.cwd_problem()
        if problem is not None:
            return Decided(Decision.DENY, "", f"The working directory {problem}.")
        if len(request.stdin) > self.limits.stdin_bytes:
            return Decided(Decision.DENY, "", f"Standard input has more than {self.limits.stdin_bytes} bytes.")
        matched = self._matching(by_first, request, place)
        if not matched:
            return Decided(Decision.DENY, "", _NO_RULE)
        best = matched[0]
        if self.programs[best.model.program].builtin is not None and request.place != "sandbox":
            return Decided(Decision.DENY, "", _ONE_PLACE)
        if best.decision is Decision.APPROVAL and any(is_misleading(one) or mixes_scripts(one) for one in argv):
            return Decided(
                Decision.DENY,
                best.id,
                "An argument holds characters that would mislead the person who approves.",
                tuple(rule.id for rule in matched),
                best,
            )
        return Decided(best.decision, best.id, best.model.reason, tuple(rule.id for rule in matched), best)

    def _matching(
        self, by_first: Mapping[str, list[CompiledRule]], request: CommandRequest, place: Place
    ) -> list[CompiledRule]:
        """Rules that match, the strictest first, ties by id: the order of the file says nothing."""
        argv = request.argv
        candidates = by_first.get("", [])
        if len(argv) > 1 and argv[1]:
            candidates = candidates + by_first.get(argv[1], [])
        found = [
            rule
            for rule in candidates
            if rule.mismatch(argv, place) is None and rule.circumstance(request, place) is None
        ]
        if len(found) > 1:
            found.sort(key=lambda rule: (-STRICTNESS[rule.decision], rule.id))
        return found

    def _identities(self) -> dict[str, str]:
        names: dict[str, str] = {}
        for name, program in sorted(self.programs.items()):
            if program.path is not None:
                names.setdefault(program.path, name)
        names.update({name: name for name in self.programs})
        return names
