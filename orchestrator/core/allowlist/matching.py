"""One rule, compiled: does this argv match, and if not, at which argument and why not."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.allowlist.paths import Place
from orchestrator.core.allowlist.request import CommandRequest
from orchestrator.core.allowlist.rules import Decision, FlagModel, PositionalModel, RuleModel
from orchestrator.core.allowlist.values import Check


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The first argument (by its place in argv; `len(argv)` is the end) that the rule does not take."""

    position: int
    why: str


@dataclass(frozen=True, slots=True)
class _Flag:
    check: Check | None
    split: bool
    equals: bool
    joined: bool
    max: int

    @classmethod
    def of(cls, model: FlagModel) -> _Flag:
        forms = model.forms
        return cls(model.value.check(), "split" in forms, "equals" in forms, "joined" in forms, model.max)


_SWITCH = _Flag(None, False, False, False, 16)


@dataclass(frozen=True, slots=True)
class _Slot:
    name: str
    check: Check
    min: int
    max: int

    @classmethod
    def of(cls, model: PositionalModel) -> _Slot:
        return cls(model.name, model.value.check(), model.min, model.max)


class CompiledRule:
    """A rule ready to be matched in microseconds; holds no state between calls."""

    __slots__ = (
        "_after",
        "_before",
        "_clusters",
        "_dashes",
        "_environment",
        "_flags",
        "_free",
        "_number",
        "_required",
        "_stdin",
        "_subcommand",
        "decision",
        "id",
        "model",
    )

    def __init__(self, model: RuleModel) -> None:
        self.model = model
        self.id = model.id
        self.decision = model.decision
        self._subcommand = model.subcommand
        self._free = model.free
        self._flags = {name: _Flag.of(flag) for name, flag in model.flags.items()}
        self._flags.update(dict.fromkeys(model.switches, _SWITCH))
        self._required = tuple(name for name, flag in model.flags.items() if flag.required)
        self._clusters = model.clusters
        self._number = model.number.check() if model.number is not None else None
        self._before = tuple(_Slot.of(slot) for slot in model.positionals)
        self._after = tuple(_Slot.of(slot) for slot in model.after_dashes)
        self._dashes = model.dashes
        self._stdin = model.stdin
        self._environment = {name: value.check() for name, value in model.environment.items()}

    def mismatch(self, argv: tuple[str, ...], place: Place) -> Mismatch | None:
        """None when the rule matches `argv`."""
        position = 1
        for token in self._subcommand:
            if position >= len(argv) or argv[position] != token:
                return Mismatch(position, f"is not `{token}`")
            position += 1
        if self._free:
            return None
        before: list[int] = []
        after: list[int] = []
        problem = self._scan(argv, position, place, before, after)
        if problem is not None:
            return problem
        return _assign(argv, before, self._before, place) or _assign(argv, after, self._after, place)

    def circumstance(self, request: CommandRequest, place: Place) -> str | None:
        """Why the rule does not cover what is around the argv, None when it does. A deny rule covers all."""
        if self.decision is Decision.DENY:
            return None
        if request.network not in self.model.networks:
            return f"the network {request.network} is not one of {', '.join(self.model.networks)}"
        if request.place not in self.model.places:
            return f"it may not run in the place {request.place}"
        for name, value in request.environment.items():
            check = self._environment.get(name)
            if check is None:
                return f"the variable {ascii(name)[:60]} may not be set"
            problem = check(value, place)
            if problem is not None:
                return f"the variable {name} {problem}"
        if request.stdin and not self._stdin:
            return "no input may be given on standard input"
        return None

    def _scan(
        self, argv: tuple[str, ...], position: int, place: Place, before: list[int], after: list[int]
    ) -> Mismatch | None:
        """Walk the arguments behind the subcommand: flags are checked here, positionals only collected."""
        counts: dict[str, int] = {}
        end = len(argv)
        while position < end:
            token = argv[position]
            if token == "--":  # noqa: S105
                if self._dashes == "refused":
                    return Mismatch(position, "is not taken by this rule")
                rest = range(position + 1, end)
                (after if self._dashes == "split" else before).extend(rest)
                break
            taken = self._flag(argv, position, place, counts)
            if isinstance(taken, Mismatch):
                return taken
            if taken == 0:
                before.append(position)
                taken = 1
            position += taken
        for name in self._required:
            if name not in counts:
                return Mismatch(end, f"lacks the flag {name}")
        return None

    def _flag(self, argv: tuple[str, ...], position: int, place: Place, counts: dict[str, int]) -> int | Mismatch:
        """How many arguments a flag here takes: 0 when it is a positional."""
        token = argv[position]
        flag = self._flags.get(token)
        if flag is None:
            if len(token) < 2 or token[0] != "-":
                return 0
            return self._other_form(token, position, place, counts)
        count = counts.get(token, 0) + 1
        if count > flag.max:
            return Mismatch(position, f"is given more than {flag.max} times")
        counts[token] = count
        if flag.check is None:
            return 1
        if not flag.split:
            return Mismatch(position, "takes its value joined to it")
        if position + 1 >= len(argv):
            return Mismatch(position, "lacks its value")
        problem = flag.check(argv[position + 1], place)
        return 2 if problem is None else Mismatch(position + 1, problem)

    def _other_form(self, token: str, position: int, place: Place, counts: dict[str, int]) -> int | Mismatch:
        """`--count=5`, `-n5`, `-la`, `-5`: only where the rule says so."""
        if token.startswith("--"):
            name, equals, value = token.partition("=")
            if not equals:
                return Mismatch(position, "is not a listed flag")
            flag = self._flags.get(name)
            if flag is None or flag.check is None or not flag.equals:
                return Mismatch(position, "is not a listed flag in this form")
            return _valued(name, value, flag, position, place, counts)
        if self._number is not None and token[1:].isdigit() and token.isascii():
            problem = self._number(token[1:], place)
            return 1 if problem is None else Mismatch(position, problem)
        flag = self._flags.get(token[:2])
        if flag is not None and flag.check is not None and flag.joined:
            return _valued(token[:2], token[2:], flag, position, place, counts)
        return self._cluster(token, position, counts)

    def _cluster(self, token: str, position: int, counts: dict[str, int]) -> int | Mismatch:
        if not self._clusters:
            return Mismatch(position, "is not a listed flag")
        for letter in token[1:]:
            name = f"-{letter}"
            flag = self._flags.get(name)
            if flag is None or flag.check is not None:
                return Mismatch(position, f"holds {name}, which is not a listed flag that stands alone")
            counts[name] = counts.get(name, 0) + 1
            if counts[name] > flag.max:
                return Mismatch(position, f"gives {name} more than {flag.max} times")
        return 1


def _valued(name: str, value: str, flag: _Flag, position: int, place: Place, counts: dict[str, int]) -> int | Mismatch:
    counts[name] = counts.get(name, 0) + 1
    if counts[name] > flag.max:
        return Mismatch(position, f"gives {name} more than {flag.max} times")
    problem = flag.check(value, place) if flag.check is not None else "takes no value"
    return 1 if problem is None else Mismatch(position, f"has a value that {problem}")


def _assign(argv: tuple[str, ...], found: list[int], slots: tuple[_Slot, ...], place: Place) -> Mismatch | None:
    """Give the positionals to the slots in order: each takes as many as fit, what later slots need is left to them."""
    taken_all, reserved = 0, sum(slot.min for slot in slots)
    problem: str | None = None
    for slot in slots:
        reserved -= slot.min
        taken = 0
        while taken < slot.max and taken_all < len(found) - reserved:
            position = found[taken_all]
            problem = slot.check(argv[position], place)
            if problem is not None:
                break
            taken += 1
            taken_all += 1
        if taken < slot.min:
            if taken_all < len(found) - reserved and problem is not None:
                return Mismatch(found[taken_all], problem)
            return Mismatch(len(argv), f"lacks {slot.name}")
    if taken_all < len(found):
        return Mismatch(found[taken_all], problem or "is one argument too many")
    return None
