"""One command from asking to its end: decide, record, run, record. What cannot be recorded does not run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from sqlalchemy import Engine

from orchestrator import logs
from orchestrator.core.actors import Actor, system
from orchestrator.core.allowlist.explain import Explanation
from orchestrator.core.allowlist.request import CommandRequest
from orchestrator.core.audit import AuditEvent, Phase, Result
from orchestrator.core.commands import (
    Command,
    CommandNotRunning,
    CommandState,
    NothingToApply,
    Outcome,
    OutputChunk,
    Place,
)
from orchestrator.core.ports.audit import AuditLog
from orchestrator.core.ports.queries import QueryResult
from orchestrator.core.ports.sandboxd import CommandUnknown
from orchestrator.core.tenants import Tenant
from orchestrator.errors import OrchestratorError, OutsideFailure
from orchestrator.parts.applying import ChangeApplier
from orchestrator.parts.broker import Broker, Output
from orchestrator.parts.disposable import DisposableRunner
from orchestrator.parts.gatekeeping import Begun, Gatekeeper, command_event
from orchestrator.parts.query import QueryArguments, argv_of
from orchestrator.parts.running import Publish, QueryRunner, Ran, Task
from orchestrator.store import commands

LOG = logs.get("command")
FOLLOW_POLL_S = 0.5
FOLLOW_IDLE_S = 10.0
CANCEL_POLL_S = 0.05
RESULTS = {
    CommandState.FINISHED: Result.OK,
    CommandState.CANCELLED: Result.CANCELLED,
    CommandState.TIMED_OUT: Result.TIMED_OUT,
    CommandState.INTERRUPTED: Result.INTERRUPTED,
}


@dataclass(frozen=True)
class CommandFlow:
    """`output_kept_bytes` of each command's output are stored; those who watch live see all of it."""

    store: Engine
    audit: AuditLog
    gatekeeper: Gatekeeper
    applier: ChangeApplier | None = None
    output_kept_bytes: int = 262_144
    cancel_wait_s: float = 10.0
    broker: Broker = field(default_factory=Broker)

    def explain(self, tenant: Tenant, request: CommandRequest) -> Explanation:
        """What would be decided and why; nothing is recorded or run."""
        return self.gatekeeper.explain(tenant, request)

    def run(self, tenant: Tenant, request: CommandRequest, *, actor: Actor, request_id: str = "") -> Command:
        """Run to the end and return the stored command.

        Raises CommandDenied, ApprovalRequired, ApprovalUnfit, TooManyCommands, AuditUnavailable, PolicyUnavailable;
        then nothing has run. A command that could not be started is returned with state `failed`.
        """
        return self._finish(self.gatekeeper.let_through(tenant, request, actor=actor, request_id=request_id))

    def start(self, tenant: Tenant, request: CommandRequest, *, actor: Actor, request_id: str = "") -> Command:
        """Like `run`, but returns as soon as it is let through; follow it by its id."""
        begun = self.gatekeeper.let_through(tenant, request, actor=actor, request_id=request_id)
        threading.Thread(target=self._finish, args=(begun,), daemon=True, name=f"command-{begun.command.id}").start()
        return begun.command

    def query(
        self, tenant: Tenant, arguments: QueryArguments, *, actor: Actor, request_id: str = ""
    ) -> tuple[Command, QueryResult]:
        """A query with its rows as data: decided, recorded and stored like the command `query`."""
        request = CommandRequest(argv=argv_of(arguments))
        begun = self.gatekeeper.let_through(tenant, request, actor=actor, request_id=request_id)
        runner, results = begun.runner, []
        if not isinstance(runner, QueryRunner):
            raise TypeError("the allowlist gave `query` to another program")

        def ask(task: Task, publish: Publish) -> Ran:
            outcome, result = runner.ask(task, arguments, publish)
            results.append(result)
            return Ran(outcome)

        command = self._finish(begun, ask)
        if not results:
            raise OutsideFailure(command.error or "The query could not be run.", effect="Nothing was kept.")
        return command, results[0]

    def cancel(self, tenant: Tenant, command_id: str, *, actor: Actor) -> Command:
        """Stop a running command and everything it started; as it ended, or still running when that takes long.

        Raises CommandNotRunning.
        """
        command = commands.get(self.store, command_id)
        if command.state is not CommandState.RUNNING or command.tenant_id != tenant.id:
            raise CommandNotRunning(f"The command is {command.state.value} already.")
        self.audit.append(command_event(command, "command.cancel", actor=actor))
        commands.ask_to_cancel(self.store, command_id)  # for a process that is not this one
        for runner in (self.gatekeeper.runners["query"], self.gatekeeper.runners.get(command.place.value)):
            try:
                if runner is not None and runner.cancel(tenant, command_id):
                    return self._awaited(command_id)
            except CommandUnknown:
                continue
        command = self._awaited(command_id)
        if not command.has_ended:
            raise CommandNotRunning(
                "Nothing answered: the command is not running any more, or has not begun yet.",
                next_step="Look at it again in a moment; it ends at its time limit at the latest.",
            )
        return command

    def _awaited(self, command_id: str) -> Command:
        """Its end, stored by whichever process runs it; as it is when that takes longer than `cancel_wait_s`."""
        deadline = time.monotonic() + self.cancel_wait_s
        while not (command := commands.get(self.store, command_id)).has_ended and time.monotonic() < deadline:
            time.sleep(CANCEL_POLL_S)
        return command

    def apply(self, tenant: Tenant, command_id: str, *, actor: Actor, request_id: str = "") -> Command:
        """Bring what a disposable command changed into the workspace, once, if nothing there has moved.

        Raises NothingToApply, NotApplicable, ResultGone and WorkspaceMoved; then nothing is applied.
        """
        command = commands.get(self.store, command_id)
        changes = commands.changes(self.store, command_id)
        if self.applier is None or command.place is not Place.DISPOSABLE or not changes or command.applied_at:
            raise NothingToApply("There is nothing to apply: it changed no file, or was applied already.")
        self.applier.check(tenant, command_id, changes)
        if not command.changed_complete:
            raise NothingToApply(
                "The command changed more files than can be kept, and a part alone is not applied.",
                next_step="Run it in the sandbox itself, or on fewer files.",
            )
        event = replace(command_event(command, "command.apply", actor=actor), request_id=request_id)
        self.audit.append(replace(event, phase=Phase.BEFORE, changed_paths=command.changed_paths))
        result = Result.FAILED
        try:
            with self.store.begin() as connection:
                if not commands.mark_applied(connection, command_id):
                    raise NothingToApply("It was applied already.")
                self.applier.apply(tenant, command_id, changes)
            result = Result.OK
        finally:
            self.audit.append(replace(event, phase=Phase.AFTER, result=result, changed_paths=command.changed_paths))
        return commands.get(self.store, command_id)

    def settle(self) -> list[str]:
        """What a dead process left: commands still called running, disposable places. Says what it did."""
        closed = self.close_interrupted()
        done = [f"closed {closed} interrupted commands"] if closed else []
        disposable = self.gatekeeper.runners.get("disposable")
        if isinstance(disposable, DisposableRunner):
            # What is there is looked up before what runs: a command that begins meanwhile is not swept away.
            runs, results = disposable.left()
            with self.store.connect() as connection:
                running = commands.running_ids(connection)
                kept = commands.keepers(connection, results) if results else frozenset()
            disposable.sweep(runs - running, results - running - kept)
            done += [f"removed what the disposable command {one} left" for one in sorted(runs - running)]
        return done

    def follow(self, command_id: str, *, after: int = -1) -> Iterator[OutputChunk | None]:
        """Its output as it comes, wherever it runs, until it has ended; None now and then when nothing comes."""
        live = self.broker.follow(command_id, after=after, idle_s=FOLLOW_IDLE_S)
        if live is not None:
            yield from live
            return
        while True:
            ended = commands.get(self.store, command_id).has_ended
            chunks = commands.output(self.store, command_id, after=after)
            yield from chunks
            after = chunks[-1].seq if chunks else after
            if ended:
                return
            yield None
            time.sleep(FOLLOW_POLL_S)

    def close_interrupted(self, *, grace_s: float = 60.0) -> int:
        """Close commands whose time was over long ago: the process of the control plane that ran them died."""
        left = commands.interrupt(self.store, grace_s=grace_s, keep=self.broker.running())
        for command in left:
            self.audit.append(
                replace(command_event(command, "command.run", actor=system("reconcile")), result=Result.INTERRUPTED)
            )
        return len(left)

    def _finish(self, begun: Begun, run: Callable[[Task, Publish], Ran] | None = None) -> Command:
        """Run what was let through, store how it ended, record it, and let go of the subscribers."""
        command = begun.command
        output = Output(command.id, self.broker, self.output_kept_bytes)
        self.broker.open(command.id)
        try:
            ran = self._ran(begun, run or begun.runner.run, output)
            if ran.changes:
                commands.add_changes(self.store, command.id, ran.changes)
            outcome = replace(ran.outcome, truncated=ran.outcome.truncated or output.truncated)
            with commands.finishing(self.store, command, outcome, output.kept) as storing:
                try:
                    self.audit.append(_after(begun.event, storing.command), durable=False)
                finally:
                    stored = storing.done()
        finally:
            self.broker.close(command.id)
        return stored if stored is not None else commands.get(self.store, command.id)

    def _ran(self, begun: Begun, run: Callable[[Task, Publish], Ran], output: Output) -> Ran:
        started = time.monotonic()
        try:
            return run(begun.task, output.publish)
        except OrchestratorError as problem:
            error = f"{problem.code}: {problem}"
        except Exception as problem:  # a driver's fault must still end the command, its record and its subscribers
            LOG.exception("command.broken", command=begun.command.id)
            error = f"error: {type(problem).__name__}"
        return Ran(Outcome(CommandState.FAILED, error=error, duration_ms=int((time.monotonic() - started) * 1000)))


def _after(event: AuditEvent, ended: Command) -> AuditEvent:
    """The record of its end to the one of its beginning."""
    end: dict[str, object] = {
        "state": ended.state.value,
        "signal": ended.signal,
        "stopped_by": ended.stopped_by,
        "error": ended.error,
        "truncated": ended.truncated,
        "written_bytes": ended.written_bytes,
    }
    return replace(
        event,
        phase=Phase.AFTER,
        result=RESULTS.get(ended.state, Result.FAILED),
        exit_code=ended.exit_code,
        duration_ms=ended.duration_ms,
        bytes=ended.output_bytes,
        changed_paths=ended.changed_paths,
        details={**event.details, **end},
    )
