"""Running one decided command where it belongs, and passing on what it prints."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

from orchestrator.core.allowlist.execution import Execution
from orchestrator.core.allowlist.rules import CommandDefaults
from orchestrator.core.commands import CommandState, FileChanged, Outcome
from orchestrator.core.limits import Profile
from orchestrator.core.ports.queries import QueryLimits, QueryResult
from orchestrator.core.ports.sandboxd import (
    CommandEvent,
    CommandExited,
    CommandLimits,
    CommandOutput,
    HeldCommand,
    PolicyMissing,
    SandboxBusy,
    SandboxCommand,
    Sandboxd,
    SandboxPolicy,
    StoppedBy,
)
from orchestrator.core.tenants import Tenant
from orchestrator.errors import OrchestratorError
from orchestrator.parts.egress import Way
from orchestrator.parts.query import QueryArguments, QueryPart, parse, printed, remarks

Publish = Callable[[str, bytes], None]
CHUNK_BYTES = 65_536
BUSY_TRIES = 40
BUSY_PAUSE_S = 0.05


@dataclass(frozen=True)
class Task:
    """A command about to run. `policy` is what the kernel must enforce, `network` the profile it asked for.

    `held`: where it was made ready already, and waits for the word to go.
    """

    id: str
    tenant: Tenant
    execution: Execution
    stdin: str
    limits: CommandLimits
    policy: SandboxPolicy
    network: str = "none"
    held: HeldCommand | None = None


@dataclass(frozen=True)
class Ran:
    """How it ended, and for a disposable place what it changed."""

    outcome: Outcome
    changes: tuple[FileChanged, ...] = ()


class Runner(Protocol):
    def run(self, task: Task, publish: Publish) -> Ran:
        """Run to the end. Raises OrchestratorError when it could not be started."""
        ...

    def cancel(self, tenant: Tenant, command_id: str) -> bool:
        """Stop it; False when it does not run there."""
        ...


class Holder(Protocol):
    """A runner that can make a command ready while it is being recorded."""

    def hold(self, task: Task) -> HeldCommand | None:
        """Ready, and running nothing; None when it can only be run."""
        ...


def limits_of(defaults: CommandDefaults, profile: Profile, timeout_s: float) -> CommandLimits:
    """The stricter of the allowlist's caps and the profile's; of times, `timeout_s` is that already."""
    section = profile.commands
    return CommandLimits(
        wall_s=timeout_s,
        output_bytes=min(defaults.output_bytes, section.output),
        write_bytes=min(defaults.write_bytes, section.written),
        processes=max(1, profile.sandbox.pids - 28),
    )


@dataclass(frozen=True)
class SandboxRunner:
    """Runs in the tenant's own sandbox. `way` sees to the way out of a network profile."""

    connect: Callable[[Tenant], Sandboxd]
    way: Callable[[Tenant, str], Way | None]

    def run(self, task: Task, publish: Publish) -> Ran:
        """See Runner; a sandbox that just started gets its policy first."""
        return Ran(run_in(self.connect(task.tenant), task, publish, self.way(task.tenant, task.network)))

    def hold(self, task: Task) -> HeldCommand | None:
        """See Holder. What goes wrong is said by the run, which is tried all the same."""
        if task.network != "none" or task.stdin:
            return None
        try:
            return self.connect(task.tenant).hold(_command(task, None))
        except OrchestratorError:
            return None

    def cancel(self, tenant: Tenant, command_id: str) -> bool:
        """Raises CommandUnknown, SandboxdUnreachable."""
        self.connect(tenant).cancel(command_id)
        return True


@dataclass(frozen=True)
class QueryRunner:
    """Runs the `query` command on the tenant's database."""

    queries: QueryPart

    def run(self, task: Task, publish: Publish) -> Ran:
        """See Runner; an error of the statement is exit code 1."""
        return Ran(self.ask(task, parse(task.execution.argv), publish)[0])

    def ask(self, task: Task, arguments: QueryArguments, publish: Publish) -> tuple[Outcome, QueryResult]:
        """The outcome and the structured result."""
        caps = QueryLimits(rows=arguments.rows, bytes=task.limits.output_bytes, time_s=task.limits.wall_s)
        result = self.queries.run(task.tenant, task.id, arguments, limits=caps)
        told = printed(result, arguments.format).encode("utf-8", "replace")
        remarked = remarks(result).encode("utf-8", "replace")
        for stream, data in (("stdout", told), ("stderr", remarked)):
            for start in range(0, len(data), CHUNK_BYTES):
                publish(stream, data[start : start + CHUNK_BYTES])
        states = {"time": CommandState.TIMED_OUT, "cancelled": CommandState.CANCELLED, "bytes": CommandState.STOPPED}
        outcome = Outcome(
            state=states.get(result.stopped_by, CommandState.FINISHED),
            exit_code=1 if result.error is not None or result.stopped_by else 0,
            stopped_by=result.stopped_by or None,
            truncated=result.truncated,
            output_bytes=len(told) + len(remarked),
            duration_ms=result.duration_ms,
        )
        return outcome, result

    def cancel(self, tenant: Tenant, command_id: str) -> bool:
        """Only a query of this process can be stopped; others end at their time limit."""
        del tenant
        return self.queries.cancel(command_id)


def run_in(sandboxd: Sandboxd, task: Task, publish: Publish, way: Way | None = None) -> Outcome:
    """Run in the container behind `sandboxd`, pushing the policy when it has none or an older one.

    Without a `way` the kernel lets the command connect to no port at all. A held command goes first; when that
    cannot go (another policy came, or too much runs) it is run anew.
    """
    command, held = _command(task, way), task.held
    for _ in range(BUSY_TRIES):
        try:
            return _watched(held.go() if held is not None else sandboxd.run(command), publish)
        except PolicyMissing:
            sandboxd.set_policy(task.policy)
        except SandboxBusy:
            # By our count there is room: a command that has just ended is still being cleared away.
            time.sleep(BUSY_PAUSE_S)
        held = None
    return _watched(sandboxd.run(command), publish)


def _command(task: Task, way: Way | None) -> SandboxCommand:
    return SandboxCommand(
        id=task.id,
        program=task.execution.program,
        argv=task.execution.argv,
        cwd=task.execution.cwd,
        environment={**task.execution.environment, **(way.environment if way else {})},
        stdin=task.stdin.encode("utf-8", "surrogatepass"),
        limits=task.limits,
        tcp_connect=(way.port,) if way else (),
        policy_digest=task.policy.digest,
    )


def _watched(events: Iterator[CommandEvent], publish: Publish) -> Outcome:
    begun = time.monotonic()
    with closing(_closable(events)) as running:
        for event in running:
            if isinstance(event, CommandOutput):
                publish(event.stream, event.data)
            elif isinstance(event, CommandExited):
                return _outcome(event)
    spent = int((time.monotonic() - begun) * 1000)
    return Outcome(CommandState.FAILED, error="The sandbox said nothing of its end.", duration_ms=spent)


def _closable(events: Iterator[CommandEvent]) -> Generator[CommandEvent, None, None]:
    """A generator, so that leaving early closes the one behind it, which kills the command."""
    yield from events


def _outcome(event: CommandExited) -> Outcome:
    states = {
        None: CommandState.FINISHED,
        StoppedBy.WALL: CommandState.TIMED_OUT,
        StoppedBy.CANCELLED: CommandState.CANCELLED,
        StoppedBy.DISCONNECTED: CommandState.CANCELLED,
        StoppedBy.SHUTDOWN: CommandState.INTERRUPTED,
    }
    state = CommandState.FAILED if event.start_error else states.get(event.stopped_by, CommandState.STOPPED)
    return Outcome(
        state=state,
        exit_code=event.exit_code,
        signal=event.signal,
        stopped_by=event.stopped_by.value if event.stopped_by else None,
        error=event.start_error,
        truncated=event.truncated,
        output_bytes=event.output_bytes,
        written_bytes=event.written_bytes,
        duration_ms=int(event.duration_s * 1000),
        changed_paths=event.changed,
        changed_complete=event.changed_complete,
    )
