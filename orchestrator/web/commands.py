"""Allowed commands as forms, and one command while it runs."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from html import escape
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from starlette.datastructures import FormData

from orchestrator.core.access import Scope
from orchestrator.core.allowlist.request import CommandRequest
from orchestrator.core.allowlist.rules import Decision, RuleModel
from orchestrator.core.allowlist.texts import shown_argv
from orchestrator.core.commands import ApprovalRequired, Command, CommandDenied, CommandMissing
from orchestrator.core.tenants import Tenant
from orchestrator.errors import InvalidInput
from orchestrator.store import commands, tenants
from orchestrator.web.activity import sentence
from orchestrator.web.visit import Visit, acting, reading
from orchestrator.web.wording import visible

router = APIRouter(include_in_schema=False)
Runner = Annotated[Visit, acting(Scope.COMMANDS_RUN)]
SHOWN_BYTES_MAX = 200_000


@router.get("/workspaces/{name}/commands")
def forms(
    name: str, visit: Annotated[Visit, reading(Scope.COMMANDS_RUN)], rule: Annotated[str, Query(max_length=80)] = ""
) -> Response:
    """Every command the allowlist lets this workspace run, and the form of the chosen one."""
    tenant = visit.tenant(name)
    return _forms(visit, tenant, rule)


def _forms(visit: Visit, tenant: Tenant, chosen: str, *, status: int = 200, problem: Any = None) -> Response:
    gate = visit.services.allowlist.in_force().gate(tenant)
    listed = [
        one.model
        for one in gate.rules
        if one.model.decision is not Decision.DENY and gate.programs[one.model.program].builtin is None
    ]
    listed.sort(key=lambda model: (model.program, model.id))
    return visit.show(
        "commands/forms.html",
        status=status,
        tenant=tenant,
        rules=listed,
        rule=next((one for one in listed if one.id == chosen), None),
        problem=problem,
        fields=getattr(problem, "fields", {}),
        typed=visit.text("line"),
    )


@router.post("/workspaces/{name}/commands")
def run(name: str, visit: Runner) -> Response:
    """Decide on it, then run it; its page follows along."""
    tenant = visit.tenant(name)
    chosen = visit.text("rule", length_max=80)
    try:
        request = CommandRequest.asked(
            argv=_argv(visit, tenant, chosen), stdin=visit.text("stdin", length_max=1_000_000)
        )
        command = visit.services.commands.start(tenant, request, actor=visit.who.actor)
    except (CommandDenied, ApprovalRequired) as error:
        return _forms(visit, tenant, chosen, status=403, problem=error)
    return visit.go(f"/commands/{command.id}")


def _argv(visit: Visit, tenant: Tenant, chosen: str) -> tuple[str, ...]:
    if not chosen:
        try:
            return tuple(shlex.split(visit.text("line")))
        except ValueError as error:
            raise InvalidInput(f"The line cannot be split into words: {error}.", effect="Nothing was run.") from None
    gate = visit.services.allowlist.in_force().gate(tenant)
    found = next((one.model for one in gate.rules if one.model.id == chosen), None)
    if found is None:
        raise InvalidInput("The allowlist has no such rule any more.", effect="Nothing was run.")
    return argv_of(found, visit.form)


def argv_of(rule: RuleModel, form: FormData) -> tuple[str, ...]:
    """What the fields of a rule's form say, as an argv; the gate decides on it like on any other."""

    def lines(field: str) -> list[str]:
        value = form.get(field, "")
        return [one for one in value.replace("\r", "").split("\n") if one] if isinstance(value, str) else []

    argv = [rule.program, *rule.subcommand]
    chosen = {value for value in form.getlist("switch") if isinstance(value, str)}
    argv += [one for one in rule.switches if one in chosen]
    for name, flag in rule.flags.items():
        for value in lines(f"flag {name}")[: flag.max]:
            argv += [name, value] if "split" in flag.forms else [f"{name}={value}"]
    values = [value for slot in rule.positionals for value in lines(f"value {slot.name}")[: slot.max]]
    after = [value for slot in rule.after_dashes for value in lines(f"after {slot.name}")[: slot.max]]
    if rule.dashes == "end" and any(value.startswith("-") for value in values):
        argv.append("--")
    argv += values
    return (*argv, "--", *after) if after else tuple(argv)


def _seen(visit: Visit, command_id: str) -> tuple[Command, Tenant]:
    """Raises CommandMissing, also for a foreign workspace's."""
    command = commands.get(visit.services.store, command_id[:60])
    if not visit.who.may_see(command.tenant_id):
        raise CommandMissing(f"There is no command {ascii(command_id)[:60]}.")
    return command, tenants.get(visit.services.store, command.tenant_id)


@router.get("/commands/{command_id}")
def show(command_id: str, visit: Annotated[Visit, reading(Scope.COMMANDS_READ)]) -> Response:
    """What was asked for, what was decided, what it printed."""
    command, tenant = _seen(visit, command_id)
    values: dict[str, Any] = {"command": command, "shown": shown_argv(command.argv), "said": sentence(command)}
    chunks = commands.output(visit.services.store, command.id) if command.has_ended else []
    output = b"".join(chunk.data for chunk in chunks)[:SHOWN_BYTES_MAX].decode("utf-8", "replace")
    return visit.show("commands/show.html", tenant=tenant, output=output, **values)


@router.get("/commands/{command_id}/output")
def output(command_id: str, visit: Annotated[Visit, reading(Scope.COMMANDS_READ)]) -> Response:
    """What it prints, as it prints it, as events whose data is harmless markup."""
    command, _ = _seen(visit, command_id)
    stream = _events(visit, command.id)
    return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


def _events(visit: Visit, command_id: str) -> Iterator[str]:
    sent = 0
    for chunk in visit.services.commands.follow(command_id):
        if chunk is None:
            yield ": still running\n\n"
            continue
        if sent < SHOWN_BYTES_MAX:
            sent += len(chunk.data)
            text = escape(visible(chunk.data.decode("utf-8", "replace"), SHOWN_BYTES_MAX))
            lines = "\n".join(f"data: {line}" for line in text.split("\n"))
            yield f"event: output\n{lines}\n\n"
    ended = commands.get(visit.services.store, command_id)
    done = escape(sentence(ended))
    yield f'event: done\ndata: {done} <a href="/commands/{command_id}">See the result</a>\n\n'


@router.post("/commands/{command_id}/cancel")
def cancel(command_id: str, visit: Runner) -> Response:
    """Stop it and everything it started."""
    command, tenant = _seen(visit, command_id)
    visit.services.commands.cancel(tenant, command.id, actor=visit.who.actor)
    return visit.go(f"/commands/{command.id}", "It is being stopped. What it wrote before stays.")


@router.post("/workspaces/{name}/commands/ask")
def ask(name: str, visit: Runner) -> Response:
    """Put a denied command before the admins."""
    tenant = visit.tenant(name)
    try:
        request = CommandRequest.asked(argv=tuple(shlex.split(visit.text("line"))))
    except ValueError as error:
        raise InvalidInput(f"The line cannot be split into words: {error}.", effect="Nobody was asked.") from None
    visit.services.approvals.ask_rule(
        tenant, request, actor=visit.who.actor, reason=visit.text("reason", length_max=500) or "needed for my work"
    )
    return visit.go(f"/workspaces/{name}/commands", "Asked. An admin sees it and may add a rule.")
