"""The record of a command: what was asked for, what was decided, what became of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from orchestrator.core.actors import Actor
from orchestrator.errors import Conflict, Denied, LimitReached, NotFound, OutsideFailure


class CommandDenied(Denied):
    """The allowlist says no. `fields` hold the explanation: decision, rule, reason, nearest, why_not, how_to_ask."""

    code = "denied.command"


class ApprovalRequired(Denied):
    """A person must approve first; `fields["approval_id"]` is the request that now waits."""

    code = "denied.approval_required"


class CommandMissing(NotFound):
    code = "not_found.command"


class CommandNotRunning(Conflict):
    code = "conflict.command_not_running"


class TooManyCommands(LimitReached):
    code = "limit_reached.commands_at_once"


class SandboxNotRunning(Conflict):
    code = "conflict.sandbox_not_running"


class NothingToApply(Conflict):
    """The command was not disposable, changed nothing, or was applied already."""

    code = "conflict.nothing_to_apply"


class WorkspaceMoved(Conflict):
    """A file that the disposable command changed has changed in the workspace since."""

    code = "conflict.workspace_moved"


class NotApplicable(Conflict):
    """Something among what the disposable command changed cannot be put into the workspace; `fields` say what."""

    code = "conflict.not_applicable"


class ResultGone(Conflict):
    """Newer results of the tenant's took the room of this one's large files."""

    code = "conflict.result_gone"


class WorkspaceNotCopyable(Conflict):
    """The workspace holds what must not be copied: a link that leaves it, or a special file."""

    code = "conflict.workspace_not_copyable"


class CommandFailed(OutsideFailure):
    """The command could not be started or watched."""

    code = "outside_failure.command"


class CommandState(StrEnum):
    DENIED = "denied"
    RUNNING = "running"
    FINISHED = "finished"  # by itself, whatever its exit code
    FAILED = "failed"  # could not be run
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    STOPPED = "stopped"  # over a limit: output, bytes written, memory
    INTERRUPTED = "interrupted"  # the control plane ended meanwhile


ENDED = frozenset(CommandState) - {CommandState.RUNNING}


class Place(StrEnum):
    SANDBOX = "sandbox"
    DISPOSABLE = "disposable"


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    state: CommandState
    exit_code: int | None = None
    signal: int | None = None
    stopped_by: str | None = None
    error: str | None = None
    truncated: bool = False
    output_bytes: int = 0
    written_bytes: int = 0
    duration_ms: int = 0
    changed_paths: tuple[str, ...] = ()
    changed_complete: bool = True


@dataclass(frozen=True)
class Command:
    """One command as stored. `environment` is what the caller set, not the pins."""

    id: str
    tenant_id: str
    tenant: str
    actor: Actor
    argv: tuple[str, ...]
    cwd: str
    environment: dict[str, str]
    stdin_bytes: int
    place: Place
    network: str
    decision: str
    rule: str
    reason: str
    policy_version: int
    approval_id: str | None
    state: CommandState
    created_at: datetime
    finished_at: datetime | None = None
    exit_code: int | None = None
    signal: int | None = None
    stopped_by: str | None = None
    error: str | None = None
    truncated: bool = False
    output_bytes: int = 0
    written_bytes: int = 0
    duration_ms: int | None = None
    changed_paths: tuple[str, ...] = ()
    changed_complete: bool = True
    applied_at: datetime | None = None

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True)
class OutputChunk:
    """A piece of output in the order it came; `seq` counts from 0."""

    seq: int
    stream: str
    data: bytes


@dataclass(frozen=True)
class FileChanged:
    """One path a disposable command added, modified or deleted.

    Digests are states as the Placer tells them (a file's SHA-256, "link:TARGET", "" for nothing). `link` is the new
    target of a link. `content` holds small files; larger ones are kept aside under their digest. `problem` says why
    the path cannot be applied, empty when it can.
    """

    path: str
    kind: str
    before_digest: str = ""
    after_digest: str = ""
    content: bytes | None = field(default=None, repr=False)
    link: str | None = None
    size_bytes: int = 0
    problem: str = ""

    @property
    def is_kept_aside(self) -> bool:
        return self.kind != "deleted" and self.link is None and self.content is None and not self.problem
