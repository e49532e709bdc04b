"""From a file's text to an allowlist: read, check every key, lint, run every example. All problems, not the first."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from orchestrator.core.allowlist import rules as shape
from orchestrator.core.allowlist.decide import Gate
from orchestrator.core.allowlist.errors import InvalidAllowlist
from orchestrator.core.allowlist.lint import lint
from orchestrator.core.allowlist.matching import CompiledRule
from orchestrator.core.allowlist.paths import Place, Root
from orchestrator.core.allowlist.request import argv_problem
from orchestrator.core.allowlist.texts import shown_argv
from orchestrator.core.allowlist.values import PathValue

TEXT_BYTES_MAX = 1_048_576
RULES_MAX = 5_000
PROBLEMS_MAX = 50


@dataclass(frozen=True)
class Allowlist:
    """A checked file. `digest` is that of its exact bytes."""

    text: str
    digest: str
    model: shape.AllowlistModel
    rules: tuple[CompiledRule, ...]
    roots: tuple[Root, ...]
    _gates: dict[tuple[str, str], Gate] = field(default_factory=dict, compare=False, repr=False)

    def gate(self, *, profile: str, tenant: str) -> Gate:
        """The rules that hold for one tenant."""
        key = (profile, tenant)
        gate = self._gates.get(key)
        if gate is None:
            scopes = {"all", f"profile:{profile}", f"tenant:{tenant}"}
            held = [rule for rule in self.rules if rule.model.scope in scopes]
            gate = Gate(
                held,
                programs=self.model.programs,
                roots=self.roots,
                environment=self.model.environment,
                limits=self.model.limits,
                digest=self.digest,
                scope_key=hashlib.sha256("\n".join(sorted(rule.id for rule in held)).encode()).hexdigest()[:16],
            )
            if len(self._gates) > 1_000:
                self._gates.clear()
            self._gates[key] = gate
        return gate


def load(text: str, *, source: str) -> Allowlist:
    """Read and check an allowlist. Raises InvalidAllowlist with every problem and its place."""
    model = _parse(text, source)
    problems = [*_references(model), *_lint(model)]
    if problems:
        raise InvalidAllowlist(problems[:PROBLEMS_MAX], source=source)
    rules = tuple(CompiledRule(rule) for rule in model.rules)
    roots = tuple(Root(name, root.path, root.access == "rw") for name, root in model.roots.items())
    problems = [problem for rule in rules for problem in _examples(rule, model, roots)]
    if problems:
        raise InvalidAllowlist(problems[:PROBLEMS_MAX], source=source)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Allowlist(text, digest, model, rules, roots)


class _Loader(yaml.SafeLoader):
    """YAML without aliases (they can grow without end) and without silently overwritten keys."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.YAMLError(f"the key {key!r} stands twice (line {key_node.start_mark.line + 1})")
            seen.add(key)
        return super().construct_mapping(node, deep)


def _parse(text: str, source: str) -> shape.AllowlistModel:
    if len(text.encode("utf-8", "replace")) > TEXT_BYTES_MAX:
        raise InvalidAllowlist([f"the file has more than {TEXT_BYTES_MAX} bytes"], source=source)
    try:
        values = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as problem:
        raise InvalidAllowlist([f"not valid YAML: {' '.join(str(problem).split())[:300]}"], source=source) from None
    if not isinstance(values, dict):
        raise InvalidAllowlist(["the file is not a mapping of version, roots, programs and rules"], source=source)
    try:
        return shape.AllowlistModel.model_validate(values)
    except ValidationError as problem:
        problems = [_explained(one, values) for one in problem.errors()]
        raise InvalidAllowlist(problems[:PROBLEMS_MAX], source=source) from None


def _explained(error: Any, values: dict[str, Any]) -> str:
    """One validation error with its place and, for an unknown key, what is allowed there."""
    loc = [
        part
        for part in error["loc"]
        if part not in ("path", "int", "enum", "text", "pattern") or part == error["loc"][-1]
    ]
    where = _where(loc, values)
    if error["type"] == "extra_forbidden":
        allowed = ", ".join(sorted(_model_at(error["loc"]).model_fields))
        return f"{where} is not a known key; allowed here: {allowed}"
    if error["type"] == "union_tag_invalid":
        return f"{where}: unknown type; allowed: {error['ctx']['expected_tags']}"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{where}: {message[0].lower()}{message[1:]}"


def _where(loc: list[Any], values: dict[str, Any]) -> str:
    shown = ".".join(str(part) for part in loc)
    if len(loc) > 1 and loc[0] == "rules" and isinstance(loc[1], int):
        try:
            name = values["rules"][loc[1]]["id"]
        except (LookupError, TypeError):
            name = ""
        shown = f"rules[{name or loc[1]}]" + "".join(f".{part}" for part in loc[2:])
    return shown or "the file"


def _model_at(loc: tuple[Any, ...]) -> type[BaseModel]:
    if loc[0] == "rules":
        if "positionals" in loc or "after_dashes" in loc:
            return PathValue if "value" in loc[:-1] else shape.PositionalModel
        if "flags" in loc:
            return PathValue if "value" in loc[:-1] else shape.FlagModel
        return shape.RuleModel
    sections: dict[str, type[BaseModel]] = {
        "roots": shape.RootModel,
        "programs": shape.ProgramModel,
        "limits": shape.CommandDefaults,
    }
    return sections.get(str(loc[0]), shape.AllowlistModel) if len(loc) > 1 else shape.AllowlistModel


def _references(model: shape.AllowlistModel) -> list[str]:
    problems: list[str] = []
    if len(model.rules) > RULES_MAX:
        problems.append(f"there are {len(model.rules)} rules, the limit is {RULES_MAX}")
    seen: set[str] = set()
    for rule in model.rules:
        if rule.id in seen:
            problems.append(f"rules[{rule.id}]: the id stands twice")
        seen.add(rule.id)
        if rule.program not in model.programs:
            problems.append(f"rules[{rule.id}].program: {rule.program!r} is not under programs")
        values = [slot.value for slot in (*rule.positionals, *rule.after_dashes)]
        values += [flag.value for flag in rule.flags.values()]
        for value in values:
            unknown = set(value.roots or ()) - set(model.roots) if isinstance(value, PathValue) else set()
            problems += [f"rules[{rule.id}]: {name!r} is not under roots" for name in sorted(unknown)]
    if not model.roots:
        problems.append("roots: there is none")
    return problems


def _lint(model: shape.AllowlistModel) -> list[str]:
    found = []
    for one in lint(model):
        hint = f" (accepts: {{{one.code}: why}} overrides this)" if one.acceptable else ""
        place = f"rules[{one.rule}] " if one.rule else ""
        found.append(f"{place}{one.why} [{one.code}]{hint}")
    return found


def _examples(rule: CompiledRule, model: shape.AllowlistModel, roots: tuple[Root, ...]) -> list[str]:
    """Every `match` example must match this rule, no `not_match` example may; they stand in the first writable root."""
    names = _names(rule, model)
    home = next((root for root in roots if root.writable), roots[0])
    place = Place(home.path, roots)
    problems = []
    for argv in rule.model.match:
        trouble = argv_problem(argv)
        mismatch = rule.mismatch(argv, place) if trouble is None and argv[0] in names else None
        if trouble is not None or argv[0] not in names:
            problems.append(f"rules[{rule.id}].match: {shown_argv(argv)}: {trouble or 'is another program'}")
        elif mismatch is not None:
            token = argv[mismatch.position] if mismatch.position < len(argv) else "the end"
            problems.append(f"rules[{rule.id}].match: {shown_argv(argv)} does not match: {token} {mismatch.why}")
    for argv in rule.model.not_match:
        if argv and argv[0] in names and rule.mismatch(argv, place) is None:
            problems.append(f"rules[{rule.id}].not_match: {shown_argv(argv)} matches")
    return problems


def _names(rule: CompiledRule, model: shape.AllowlistModel) -> set[str]:
    path = model.programs[rule.model.program].path
    return {rule.model.program, *([path] if path else [])}
