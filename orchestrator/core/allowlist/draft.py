"""From a denied command to a draft of the narrowest rule that would match it. An admin reads, widens or drops it."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

import yaml

from orchestrator.core.allowlist.decide import Gate
from orchestrator.core.allowlist.request import CommandRequest
from orchestrator.core.allowlist.rules import NAME


def draft(gate: Gate, request: CommandRequest, *, reason: str, tenant: str) -> str:
    """A YAML rule (and program, when it is not listed yet) for exactly this command, scoped to one tenant.

    It asks for approval, and is not checked: saving the whole file runs the linter and the examples.
    """
    argv0 = request.argv[0] if request.argv else ""
    name = gate.program_of(argv0) or _name(PurePosixPath(argv0).name)
    lines = []
    if gate.program_of(argv0) is None:
        path = argv0 if argv0.startswith("/") else f"/usr/bin/{name}"
        lines.append(f"# Under programs, if the image has it there:\n#   {name}: {{path: {path}}}")
    arguments = list(request.argv[1:])
    subcommand: list[str] = []
    if arguments and re.fullmatch(r"[a-z][a-z-]{1,30}", arguments[0]) and len(gate.rules_of(name)) > 1:
        subcommand.append(arguments.pop(0))
    rule = _rule(name, subcommand, arguments, gate, request)
    rule |= {
        "decision": "approval",
        "reason": reason or "Say why this is needed.",
        "scope": f"tenant:{tenant}",
        "match": [list(request.argv)],
    }
    lines.append(yaml.safe_dump([rule], sort_keys=False, allow_unicode=False, width=110).rstrip())
    return "\n".join(lines) + "\n"


def _rule(
    name: str, subcommand: list[str], arguments: list[str], gate: Gate, request: CommandRequest
) -> dict[str, Any]:
    place = gate.place(request.cwd)
    switches: list[str] = []
    flags: dict[str, Any] = {}
    positionals: list[dict[str, Any]] = []
    for argument in arguments:
        if argument == "--":
            continue
        flag, equals, value = argument.partition("=")
        if argument.startswith("--") and equals:
            flags[flag] = {"value": {"type": "enum", "values": [value]}, "forms": ["equals"]}
        elif argument.startswith("-") and len(argument) > 1:
            switches.append(argument)
        else:
            is_path = place.problem(argument, write=False, names=None, root_itself=True) is None
            kind: dict[str, Any] = {"type": "path"} if is_path else {"type": "enum", "values": [argument]}
            positionals.append({"name": f"argument{len(positionals) + 1}", "value": kind})
    rule: dict[str, Any] = {"id": _name(".".join(["draft", name, *subcommand])), "program": name}
    if subcommand:
        rule["subcommand"] = subcommand
    if switches:
        rule["switches"] = sorted(set(switches))
    if flags:
        rule["flags"] = flags
    if positionals:
        rule["positionals"] = positionals
    return rule


def _name(text: str) -> str:
    name = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._") or "program"
    return name[:80] if NAME.fullmatch(name[:80]) else "program"
