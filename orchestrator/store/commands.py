"""Commands in the control database, their bounded output and what disposable ones changed."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, delete, func, insert, select, text, update

from orchestrator.core.actors import Actor, ActorKind
from orchestrator.core.allowlist.request import CommandRequest
from orchestrator.core.commands import Command, CommandMissing, CommandState, FileChanged, Outcome, OutputChunk, Place
from orchestrator.core.tenants import Tenant
from orchestrator.store.session import single
from orchestrator.store.statement import Asked, Statement
from orchestrator.store.tables.commands import COMMAND_CHANGES, COMMAND_OUTPUTS, COMMANDS

NOW = func.clock_timestamp()
LISTED_MAX = 1_000
_COLUMNS = [column for column in COMMANDS.c if column.name not in ("timeout_s", "cancel_asked_at")]


def _command(row: RowMapping) -> Command:
    values: dict[str, Any] = dict(row)
    values["actor"] = Actor(
        ActorKind(values.pop("actor_kind")),
        values.pop("actor_id"),
        values.pop("actor_name"),
        values.pop("on_behalf_of"),
    )
    values["argv"] = tuple(values["argv"])
    values["changed_paths"] = tuple(values["changed_paths"])
    values["state"] = CommandState(values["state"])
    values["place"] = Place(values["place"])
    return Command(**values)


# The two statements every command pays for are written out: building and compiling them anew would cost more than
# running them. Neither waits for the disk: a crash can lose such a transaction, never tear it, and what a command may
# rely on is its audit record, which is flushed before it runs.
_ADD = Statement(
    text("""
INSERT INTO commands (
    id, tenant_id, tenant, actor_kind, actor_id, actor_name, on_behalf_of, argv, cwd, environment, stdin_bytes, place,
    network, timeout_s, decision, rule, reason, policy_version, approval_id, state, finished_at)
SELECT :id, :tenant_id, :tenant, :actor_kind, :actor_id, :actor_name, :on_behalf_of, CAST(:argv AS jsonb), :cwd,
    CAST(:environment AS jsonb), CAST(:stdin_bytes AS integer), :place, :network,
    CAST(:timeout_s AS double precision), :decision, :rule, :reason, CAST(:policy_version AS integer), :approval_id,
    :state,
    CASE WHEN CAST(:state AS text) <> 'running' THEN clock_timestamp() END
WHERE set_config('synchronous_commit', 'off', true) IS NOT NULL AND (
    CAST(:at_once AS integer) IS NULL OR CAST(:at_once AS integer) > (
        SELECT count(*) FROM commands WHERE tenant_id = CAST(:tenant_id AS text) AND state = 'running'))
RETURNING created_at, finished_at
""")
)
_FINISHING = """
UPDATE commands SET
    state = :state, exit_code = :exit_code, signal = :signal, stopped_by = :stopped_by, error = :error,
    truncated = :truncated, output_bytes = :output_bytes, written_bytes = :written_bytes, duration_ms = :duration_ms,
    changed_paths = CAST(:changed_paths AS jsonb), changed_complete = :changed_complete,
    finished_at = clock_timestamp()
WHERE id = :id AND state = 'running' AND set_config('synchronous_commit', 'off', true) IS NOT NULL
RETURNING finished_at
"""
_FINISH = Statement(text(_FINISHING))
_FINISH_WITH_OUTPUT = Statement(
    text(f"""
WITH done AS ({_FINISHING}), kept AS (
    INSERT INTO command_outputs (command_id, seq, stream, data)
    SELECT CAST(:id AS text), chunk.seq, chunk.stream, chunk.data
    FROM done, unnest(CAST(:seqs AS integer[]), CAST(:streams AS text[]), CAST(:datas AS bytea[]))
        AS chunk (seq, stream, data))
SELECT finished_at FROM done
""")
)


@dataclass(frozen=True)
class Storing:
    """A command on its way into the control database; meanwhile something else can be done.

    `command` is as it will be, but for what the database says: its times.
    """

    command: Command
    _asked: Asked

    def done(self) -> Command | None:
        """As it is now; None when it was refused. Once. Raises DBAPIError."""
        row = self._asked.one()
        return None if row is None else replace(self.command, **row._asdict())

    def __enter__(self) -> Storing:
        return self

    def __exit__(self, *_: object) -> None:
        self._asked.close()


def draft(
    command_id: str,
    *,
    tenant: Tenant,
    actor: Actor,
    request: CommandRequest,
    decision: str,
    rule: str,
    reason: str,
    policy_version: int,
    state: CommandState,
    approval_id: str | None = None,
) -> Command:
    """What is to be remembered of a request, as it can be stored."""
    return Command(
        id=command_id,
        tenant_id=tenant.id,
        tenant=tenant.name,
        actor=actor,
        argv=tuple(_storable(argument) for argument in request.argv[:1_000]),
        cwd=_storable(request.cwd),
        environment={_storable(name): _storable(value) for name, value in request.environment.items()},
        stdin_bytes=len(request.stdin.encode("utf-8", "surrogatepass")),
        place=Place(request.place),
        network=request.network,
        decision=decision,
        rule=rule,
        reason=_storable(reason),
        policy_version=policy_version,
        approval_id=approval_id,
        state=state,
        created_at=datetime.now(UTC),
    )


def adding(store: Engine, command: Command, *, timeout_s: float | None = None, at_once: int | None = None) -> Storing:
    """Remember a command before anything of it runs; refused when `at_once` of the tenant's run already."""
    parameters = {
        "id": command.id,
        "tenant_id": command.tenant_id,
        "tenant": command.tenant,
        "actor_kind": command.actor.kind.value,
        "actor_id": command.actor.id,
        "actor_name": command.actor.name,
        "on_behalf_of": command.actor.on_behalf_of,
        "argv": json.dumps(command.argv),
        "cwd": command.cwd,
        "environment": json.dumps(command.environment),
        "stdin_bytes": command.stdin_bytes,
        "place": command.place.value,
        "network": command.network,
        "timeout_s": timeout_s,
        "decision": command.decision,
        "rule": command.rule,
        "reason": command.reason,
        "policy_version": command.policy_version,
        "approval_id": command.approval_id,
        "state": command.state.value,
        "at_once": at_once,
    }
    return Storing(command, _ADD.ask(store, parameters))


def add(store: Engine, command: Command) -> Command:
    """Remember a command that does not run any more. Raises DBAPIError."""
    with adding(store, command) as storing:
        return storing.done() or command


def _storable(given: str) -> str:
    """NUL and lone surrogates cannot be stored; requests that hold them are denied but remembered."""
    kept = given[:65_536]
    if "\0" in kept:
        kept = kept.replace("\0", "\\0")
    return kept.encode("utf-8", "backslashreplace").decode("utf-8")


def finishing(store: Engine, command: Command, outcome: Outcome, output: Sequence[OutputChunk] = ()) -> Storing:
    """Store how it ended and the rest of its output; refused when somebody else has settled it already."""
    ending: dict[str, Any] = {
        "exit_code": outcome.exit_code,
        "signal": outcome.signal,
        "stopped_by": outcome.stopped_by,
        "error": None if outcome.error is None else _storable(outcome.error),
        "truncated": outcome.truncated,
        "output_bytes": outcome.output_bytes,
        "written_bytes": outcome.written_bytes,
        "duration_ms": outcome.duration_ms,
        "changed_complete": outcome.changed_complete,
    }
    changed_paths = tuple(_storable(path) for path in outcome.changed_paths)
    parameters = {
        **ending,
        "id": command.id,
        "state": outcome.state.value,
        "changed_paths": json.dumps(changed_paths),
    }
    if output:
        parameters["seqs"] = [one.seq for one in output]
        parameters["streams"] = [one.stream for one in output]
        parameters["datas"] = [one.data for one in output]
    ended = replace(command, **ending, state=outcome.state, changed_paths=changed_paths)
    return Storing(ended, (_FINISH_WITH_OUTPUT if output else _FINISH).ask(store, parameters))


def finish(store: Engine, command: Command, outcome: Outcome) -> Command | None:
    """Store how it ended; None when somebody else has settled it already. Raises DBAPIError."""
    with finishing(store, command, outcome) as storing:
        return storing.done()


def get(store: Engine, command_id: str) -> Command:
    """Raises CommandMissing."""
    with single(store) as connection:
        row = connection.execute(select(*_COLUMNS).where(COMMANDS.c.id == command_id)).mappings().one_or_none()
    if row is None:
        raise CommandMissing(f"There is no command {ascii(command_id)[:60]}.")
    return _command(row)


def listed(
    store: Engine,
    *,
    tenant_ids: Collection[str] | None = None,
    state: CommandState | None = None,
    decision: str | None = None,
    before: datetime | None = None,
    limit: int = 100,
) -> list[Command]:
    """Newest first; `before` pages towards older ones."""
    query = select(*_COLUMNS).order_by(COMMANDS.c.created_at.desc()).limit(max(1, min(limit, LISTED_MAX)))
    if tenant_ids is not None:
        query = query.where(COMMANDS.c.tenant_id.in_(tenant_ids))
    if state is not None:
        query = query.where(COMMANDS.c.state == state.value)
    if decision is not None:
        query = query.where(COMMANDS.c.decision == decision)
    if before is not None:
        query = query.where(COMMANDS.c.created_at < before)
    with store.connect() as connection:
        return [_command(row) for row in connection.execute(query).mappings()]


def running_ids(connection: Connection) -> frozenset[str]:
    """The commands called running, of every tenant and process."""
    query = select(COMMANDS.c.id).where(COMMANDS.c.state == CommandState.RUNNING.value)
    return frozenset(connection.scalars(query))


def output(store: Engine, command_id: str, *, after: int = -1) -> list[OutputChunk]:
    """Stored output in order, from the chunk behind `after` on."""
    table = COMMAND_OUTPUTS
    query = (
        select(table.c.seq, table.c.stream, table.c.data)
        .where(table.c.command_id == command_id, table.c.seq > after)
        .order_by(table.c.seq)
    )
    with single(store) as connection:
        return [OutputChunk(row.seq, row.stream, bytes(row.data)) for row in connection.execute(query)]


def add_changes(store: Engine, command_id: str, changes: Sequence[FileChanged]) -> None:
    """Keep what a disposable command changed, so that any process can apply it later."""
    if not changes:
        return
    rows = [
        {
            "command_id": command_id,
            "path": one.path,
            "kind": one.kind,
            "before_digest": one.before_digest,
            "after_digest": one.after_digest,
            "content": one.content,
            "link": one.link,
            "size_bytes": one.size_bytes,
            "problem": _storable(one.problem),
        }
        for one in changes
    ]
    with store.begin() as connection:
        connection.execute(insert(COMMAND_CHANGES), rows)


def changes(store: Engine, command_id: str) -> list[FileChanged]:
    """What a disposable command changed, by path, contents included."""
    table = COMMAND_CHANGES
    query = select(table).where(table.c.command_id == command_id).order_by(table.c.path)
    with store.connect() as connection:
        return [
            FileChanged(
                row.path,
                row.kind,
                row.before_digest,
                row.after_digest,
                None if row.content is None else bytes(row.content),
                row.link,
                row.size_bytes,
                row.problem,
            )
            for row in connection.execute(query)
        ]


def keepers(connection: Connection, command_ids: Collection[str]) -> frozenset[str]:
    """Those of the commands whose result may still be applied."""
    query = select(COMMANDS.c.id).where(COMMANDS.c.id.in_(command_ids), COMMANDS.c.applied_at.is_(None))
    return frozenset(connection.scalars(query))


def ask_to_cancel(store: Engine, command_id: str) -> None:
    """Leave word for whichever process runs it."""
    with single(store) as connection:
        connection.execute(
            update(COMMANDS)
            .where(COMMANDS.c.id == command_id, COMMANDS.c.state == CommandState.RUNNING.value)
            .values(cancel_asked_at=NOW)
        )


def is_to_cancel(store: Engine, command_id: str) -> bool:
    """Whether somebody left word that it is to be stopped."""
    with single(store) as connection:
        asked = connection.scalar(select(COMMANDS.c.cancel_asked_at).where(COMMANDS.c.id == command_id))
    return asked is not None


def mark_applied(connection: Connection, command_id: str) -> bool:
    """Claim the application of a disposable command's changes; False when it was applied already."""
    done = connection.execute(
        update(COMMANDS).where(COMMANDS.c.id == command_id, COMMANDS.c.applied_at.is_(None)).values(applied_at=NOW)
    )
    return done.rowcount == 1


def interrupt(store: Engine, *, grace_s: float, keep: Collection[str] = ()) -> list[Command]:
    """Close commands still called running although their time was over `grace_s` ago; `keep` are watched here."""
    over = COMMANDS.c.created_at + func.make_interval(0, 0, 0, 0, 0, 0, COMMANDS.c.timeout_s + grace_s) < NOW
    statement = (
        update(COMMANDS)
        .where(COMMANDS.c.state == CommandState.RUNNING.value, over, COMMANDS.c.id.not_in(list(keep)))
        .values(state=CommandState.INTERRUPTED.value, finished_at=NOW, error="The control plane ended meanwhile.")
        .returning(*_COLUMNS)
    )
    with store.begin() as connection:
        return [_command(row) for row in connection.execute(statement).mappings()]


def prune(store: Engine, *, before: datetime) -> int:
    """Delete ended commands older than `before`; the audit trail keeps its own."""
    with store.begin() as connection:
        done = connection.execute(
            delete(COMMANDS).where(COMMANDS.c.created_at < before, COMMANDS.c.state != CommandState.RUNNING.value)
        )
    return int(done.rowcount)


def denials(store: Engine, *, since: datetime, limit: int = 20) -> list[tuple[str, int]]:
    """How often each rule denied since then, most often first; the empty rule is that none allowed it."""
    number = func.count()
    query = (
        select(COMMANDS.c.rule, number)
        .where(COMMANDS.c.decision == "deny", COMMANDS.c.created_at > since)
        .group_by(COMMANDS.c.rule)
        .order_by(number.desc(), COMMANDS.c.rule)
        .limit(limit)
    )
    with store.connect() as connection:
        return [(str(rule), int(count)) for rule, count in connection.execute(query)]
