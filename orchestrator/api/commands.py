"""/api/v1/commands and /api/v1/queries: ask, run, watch, stop."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BeforeValidator, Field

from orchestrator.api.deps import IDEMPOTENT, Body, CallDep, Once, ServicesDep, View, require, visible_tenant
from orchestrator.api.problems import reference_of
from orchestrator.core.access import Principal, Scope
from orchestrator.core.allowlist.request import CommandRequest, check_argv
from orchestrator.core.commands import Command, CommandMissing, CommandState
from orchestrator.core.tenants import Tenant
from orchestrator.parts.query import QueryArguments
from orchestrator.store import commands as store
from orchestrator.store import tenants
from orchestrator.wiring.services import Services

router = APIRouter(tags=["commands"])
Reader = Annotated[Principal, require(Scope.COMMANDS_READ)]
Runner = Annotated[Principal, require(Scope.COMMANDS_RUN)]
CommandId = Annotated[str, Path(max_length=40)]
TenantName = Annotated[str, Field(max_length=60)]


class CommandBody(Body):
    """One command. `argv` is an array: a string is refused, no shell is ever started."""

    tenant: TenantName
    argv: Annotated[list[str], BeforeValidator(lambda value: list(check_argv(value))), Field(max_length=6_000)]
    cwd: str = Field("/workspace", max_length=4_096)
    environment: dict[str, str] = Field(default_factory=dict, max_length=32)
    stdin: str = Field("", max_length=8_388_608)
    timeout_s: float | None = Field(None, gt=0, le=3_600, strict=False)
    place: Literal["sandbox", "disposable"] = "sandbox"
    network: str = Field("none", max_length=40, pattern=r"^[a-z][a-z0-9-]*$")
    approval: str | None = Field(None, max_length=40)

    def request(self) -> CommandRequest:
        return CommandRequest.model_validate({**self.model_dump(exclude={"tenant"}), "argv": self.argv})


class ExplainBody(CommandBody):
    """The same as for running it."""


class CommandView(View):
    """One command and how it ended."""

    id: str
    tenant: str
    actor: str
    actor_kind: str
    argv: list[str]
    cwd: str
    place: str
    network: str
    decision: str
    rule: str
    reason: str
    policy_version: int
    approval_id: str | None
    state: str
    exit_code: int | None
    signal: int | None
    stopped_by: str | None
    error: str | None
    truncated: bool
    output_bytes: int
    written_bytes: int
    duration_ms: int | None
    changed_paths: list[str]
    changed_complete: bool
    applied_at: datetime | None
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, command: Command) -> CommandView:
        names = [name for name in cls.model_fields if name not in ("actor", "actor_kind", "argv", "changed_paths")]
        values = {name: getattr(command, name) for name in names}
        return cls(
            actor=command.actor.name,
            actor_kind=command.actor.kind.value,
            argv=list(command.argv),
            changed_paths=list(command.changed_paths),
            **values,
        )


class RanView(CommandView):
    """A command with what it printed, as far as it is kept; bytes that are no UTF-8 are replaced."""

    stdout: str
    stderr: str


class ExplanationView(View):
    """What would be decided, by which rule, and what a denied command lacks."""

    decision: str
    rule: str
    reason: str
    matched: list[str]
    nearest: str
    why_not: str
    how_to_ask: str
    shown: str


class QueryBody(Body):
    """One statement on the tenant's own database. A dry run shows real errors and counts and keeps nothing."""

    tenant: TenantName
    statement: str = Field(max_length=65_536)
    dry_run: bool = False
    rows: int = Field(1_000, ge=1, le=10_000)


class SqlErrorView(View):
    sqlstate: str
    message: str
    detail: str
    hint: str
    position: int | None


class QueryView(View):
    """Rows as texts (null is NULL), and whether the statement's effects were kept."""

    command_id: str
    columns: list[str]
    rows: list[list[str | None]]
    row_count: int
    truncated: bool
    tag: str
    kept: bool
    dry_run: bool
    duration_ms: int
    stopped_by: str
    error: SqlErrorView | None


@router.post("/commands", status_code=201, response_model=RanView, openapi_extra=IDEMPOTENT)
def run(
    body: CommandBody,
    call: CallDep,
    wait: Annotated[bool, Query(description="answer when it has ended")] = True,
) -> Any:
    """Run a command; with `wait=false` the answer comes at once and its events can be followed."""
    services, who = call.services, call.caller.with_scope(Scope.COMMANDS_RUN)
    tenant = visible_tenant(services, who, body.tenant)
    perform = services.commands.run if wait else services.commands.start

    def work() -> RanView:
        return _ran(services, perform(tenant, body.request(), actor=who.actor, request_id=call.reference))

    return Once(services, who, call.mark)(work)


@router.post("/commands/explain", response_model=ExplanationView)
def explain(body: ExplainBody, services: ServicesDep, who: Reader) -> Any:
    """What would be decided and why; nothing runs and nothing is recorded."""
    tenant = visible_tenant(services, who, body.tenant)
    found = services.commands.explain(tenant, body.request())
    return ExplanationView.model_validate(found, from_attributes=True)


@router.get("/commands")
def listed(
    services: ServicesDep,
    who: Reader,
    tenant: Annotated[str | None, Query(max_length=60)] = None,
    state: CommandState | None = None,
    decision: Literal["allow", "approval", "deny"] | None = None,
    before: datetime | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[CommandView]:
    """Newest first; `before` pages towards older ones."""
    seen = _seen(services, who, tenant)
    found = store.listed(services.store, tenant_ids=seen, state=state, decision=decision, before=before, limit=limit)
    return [CommandView.of(command) for command in found]


@router.get("/commands/{command_id}")
def show(command_id: CommandId, services: ServicesDep, who: Reader) -> RanView:
    """One command with its output."""
    return _ran(services, _command(services, who, command_id))


@router.post("/commands/{command_id}/cancel")
def cancel(command_id: CommandId, services: ServicesDep, who: Runner) -> CommandView:
    """Stop a running command and everything it started."""
    command = _command(services, who, command_id)
    tenant = tenants.get(services.store, command.tenant_id)
    return CommandView.of(services.commands.cancel(tenant, command.id, actor=who.actor))


@router.post("/commands/{command_id}/apply")
def apply(command_id: CommandId, request: Request, services: ServicesDep, who: Runner) -> CommandView:
    """Bring what a disposable command changed into the workspace, once."""
    command = _command(services, who, command_id)
    tenant = tenants.get(services.store, command.tenant_id)
    applied = services.commands.apply(tenant, command.id, actor=who.actor, request_id=reference_of(request))
    return CommandView.of(applied)


@router.get("/commands/{command_id}/events", response_class=StreamingResponse)
def events(
    command_id: CommandId,
    services: ServicesDep,
    who: Reader,
    last_event_id: Annotated[int, Header(ge=-1, le=2**31)] = -1,
) -> StreamingResponse:
    """Its output as server-sent events (`stdout`, `stderr`: base64 in JSON; `end`: the command), from the start."""
    command = _command(services, who, command_id)
    stream = _events(services, command.id, last_event_id)
    return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


@router.post("/queries", response_model=QueryView)
def query(body: QueryBody, request: Request, services: ServicesDep, who: Runner) -> JSONResponse:
    """Run one statement as the tenant's role; decided, recorded and listed like the command `query`."""
    tenant = visible_tenant(services, who, body.tenant)
    arguments = QueryArguments(body.statement, body.dry_run, "json", body.rows)
    command, result = services.commands.query(tenant, arguments, actor=who.actor, request_id=reference_of(request))
    error = SqlErrorView.model_validate(result.error, from_attributes=True) if result.error else None
    view = QueryView(
        command_id=command.id,
        columns=list(result.columns),
        rows=[list(row) for row in result.rows],
        row_count=result.row_count,
        truncated=result.truncated,
        tag=result.tag,
        kept=result.kept,
        dry_run=result.dry_run,
        duration_ms=result.duration_ms,
        stopped_by=result.stopped_by,
        error=error,
    )
    return JSONResponse(view.model_dump(mode="json"))


def _command(services: Services, who: Principal, command_id: str) -> Command:
    """Raises CommandMissing, also for one of a tenant the caller may not see."""
    command = store.get(services.store, command_id)
    if not who.may_see(command.tenant_id):
        raise CommandMissing(f"There is no command {ascii(command_id)[:60]}.")
    return command


def _seen(services: Services, who: Principal, tenant: str | None) -> frozenset[str] | None:
    if tenant is not None:
        found: Tenant = visible_tenant(services, who, tenant)
        return frozenset({found.id})
    return who.tenant_ids


def _ran(services: Services, command: Command) -> RanView:
    chunks = store.output(services.store, command.id) if command.output_bytes or not command.has_ended else []
    texts = {
        stream: b"".join(one.data for one in chunks if one.stream == stream).decode("utf-8", "replace")
        for stream in ("stdout", "stderr")
    }
    return RanView(**CommandView.of(command).model_dump(), **texts)


def _events(services: Services, command_id: str, after: int) -> Iterator[str]:
    for chunk in services.commands.follow(command_id, after=after):
        if chunk is None:
            yield ": still running\n\n"
            continue
        data = json.dumps({"data": base64.b64encode(chunk.data).decode("ascii")})
        yield f"id: {chunk.seq}\nevent: {chunk.stream}\ndata: {data}\n\n"
    ended = CommandView.of(store.get(services.store, command_id)).model_dump_json()
    yield f"event: end\ndata: {ended}\n\n"
