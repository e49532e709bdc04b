"""sandboxd: the supervisor inside a tenant's container, reached over its Unix socket.

It starts nothing before a policy is pushed, then only the listed programs, each in a kernel domain of its own
that holds for everything the program starts. What it says of itself (`status`) is its own self-test's evidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from orchestrator.errors import Conflict, Denied, InvalidInput, LimitReached, NotFound, OutsideFailure


class SandboxdUnreachable(OutsideFailure):
    """Nobody answers on the socket, the answer is not sandboxd's, or it stopped answering half-way."""

    code = "outside_failure.sandboxd"


class KernelGateBroken(OutsideFailure):
    """The self-test failed: sandboxd refuses to run anything. `fields["checks"]` names what failed."""

    code = "outside_failure.kernel_gate"


class PolicyMissing(Conflict):
    """No policy was pushed yet (a container that just started), or another one than the caller decided by."""

    code = "conflict.sandbox_policy"


class ProgramNotListed(Denied):
    """The program is not in the policy in force, or is not in the image."""

    code = "denied.program"


class SandboxRequestInvalid(InvalidInput):
    code = "invalid.sandbox_request"


class SandboxBusy(LimitReached):
    """As many commands or connections as the sandbox takes at once."""

    code = "limit_reached.sandbox_busy"


class CommandUnknown(NotFound):
    code = "not_found.sandbox_command"


class KernelGate(StrEnum):
    """What holds a program that is not listed: the kernel, only the decision before it, or nothing (refused)."""

    ENFORCED = "enforced"
    GATE_ONLY = "gate_only"
    BROKEN = "broken"


class Access(StrEnum):
    """LIST: names in a directory. READ: names and contents. WRITE: read, create, change and delete. Never execute."""

    LIST = "list"
    READ = "read"
    WRITE = "write"


@dataclass(frozen=True)
class PathGrant:
    """Access to `path` and everything below it. A path that does not exist is skipped."""

    path: str
    access: Access


@dataclass(frozen=True)
class Program:
    """One listed program by absolute path.

    What the image knows the program needs (its libraries, /dev/null …) is added by sandboxd itself; `grants`
    say which of the tenant's files it may touch. `starts` are other absolute paths it may execute.
    """

    path: str
    grants: tuple[PathGrant, ...] = ()
    starts: tuple[str, ...] = ()


@dataclass(frozen=True)
class SandboxPolicy:
    """What can start at all. `digest` is the caller's name for it (the policy version it came from)."""

    digest: str
    programs: tuple[Program, ...]


@dataclass(frozen=True)
class PolicyReport:
    """How sandboxd understood a policy: the real file behind each program, and what it could not list and why."""

    digest: str
    programs: Mapping[str, str]
    refused: Mapping[str, str]


@dataclass(frozen=True)
class CommandLimits:
    """`processes` counts the tenant's processes at once, the app's included; `write_bytes` what reaches the disk."""

    wall_s: float = 60.0
    output_bytes: int = 1_048_576
    write_bytes: int = 268_435_456
    processes: int = 100
    changed_paths: int = 200


@dataclass(frozen=True)
class SandboxCommand:
    """One run of one listed program. `argv` is complete, argv[0] included; no shell is ever involved."""

    id: str
    program: str
    argv: tuple[str, ...]
    cwd: str
    environment: Mapping[str, str] = field(default_factory=dict)
    stdin: bytes = b""
    limits: CommandLimits = CommandLimits()
    grants: tuple[PathGrant, ...] = ()
    replace_grants: bool = False  # True: `grants` instead of the program's own, not on top of them
    tcp_connect: tuple[int, ...] = ()
    policy_digest: str | None = None  # refuse with PolicyMissing unless this policy is in force


class StoppedBy(StrEnum):
    """Why a command did not end by itself."""

    WALL = "wall"
    OUTPUT = "output"
    WRITE = "write"
    MEMORY = "memory"
    CANCELLED = "cancelled"
    DISCONNECTED = "disconnected"
    SHUTDOWN = "shutdown"


@dataclass(frozen=True)
class CommandStarted:
    pid: int


@dataclass(frozen=True)
class CommandOutput:
    stream: str  # stdout or stderr
    data: bytes


@dataclass(frozen=True)
class CommandExited:
    """The end of a command and of everything it started.

    `exit_code` is None when a signal ended it. `start_error` says why the program could not be executed at all.
    `changed` are paths relative to the workspace; incomplete when the workspace is too large to list.
    """

    exit_code: int | None
    signal: int | None
    stopped_by: StoppedBy | None
    start_error: str | None
    truncated: bool
    duration_s: float
    cpu_s: float
    memory_peak_bytes: int
    output_bytes: int
    written_bytes: int
    changed: tuple[str, ...]
    changed_complete: bool


CommandEvent = CommandStarted | CommandOutput | CommandExited


@dataclass(frozen=True)
class Check:
    """One line of the self-test. `waivable` checks may fail where *gate only* is configured."""

    name: str
    ok: bool
    waivable: bool
    evidence: str


class AppState(StrEnum):
    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    BROKEN = "broken"  # it died; visitors see its traceback until its files change or the back-off ends


@dataclass(frozen=True)
class AppSpec:
    """The tenant's app. sandboxd holds the listening socket across restarts and passes it as descriptor 3.

    With `pass_socket=False` the app binds `port` itself. Files below `watch` with one of the suffixes restart it.
    """

    argv: tuple[str, ...]
    cwd: str = "/workspace"
    port: int = 8000
    pass_socket: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)
    grants: tuple[PathGrant, ...] = (PathGrant("/workspace", Access.READ), PathGrant("/tmp", Access.WRITE))  # noqa: S108
    starts: tuple[str, ...] = ()
    tcp_connect: tuple[int, ...] = ()
    processes: int = 100
    watch: tuple[str, ...] = ("/workspace",)
    watch_suffixes: tuple[str, ...] = (".py", ".html", ".css", ".js", ".sql", ".toml", ".json", ".yaml")


@dataclass(frozen=True)
class AppStatus:
    """`error` is the end of what the app last printed before it died (its traceback), empty while it runs."""

    state: AppState
    pid: int | None = None
    restarts: int = 0
    started_at: datetime | None = None
    exit_code: int | None = None
    error: str = ""


@dataclass(frozen=True)
class SandboxdStatus:
    version: str
    landlock_abi: int
    kernel_gate: KernelGate
    checks: tuple[Check, ...]
    policy_digest: str | None
    commands: int
    app: AppStatus
    started_at: datetime

    @property
    def failed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.ok)


@dataclass(frozen=True)
class DiskUsage:
    """One mounted directory: its file system's size and free bytes, and what lies in it (bounded count)."""

    path: str
    used_bytes: int
    files: int
    complete: bool
    file_system_bytes: int
    free_bytes: int


class HeldCommand(Protocol):
    """A command that is ready and runs nothing yet. It lapses by itself when nobody says a word."""

    def go(self) -> Iterator[CommandEvent]:
        """Let it run; once. Events and errors are those of Sandboxd.run; one that has lapsed is SandboxBusy."""
        ...

    def close(self) -> None:
        """It will never run; nothing when it was told to go."""
        ...


class Sandboxd(Protocol):
    """One tenant's supervisor. Every call has a time limit and raises SandboxdUnreachable when it passes."""

    def status(self) -> SandboxdStatus: ...

    def wait(self, *, timeout_s: float) -> SandboxdStatus:
        """Poll until it answers; raises SandboxdUnreachable after `timeout_s`. For a container just started."""
        ...

    def set_policy(self, policy: SandboxPolicy) -> PolicyReport:
        """Replace the policy; commands already running keep theirs, the app keeps its domain until restarted."""
        ...

    def check_policy(self, policy: SandboxPolicy) -> PolicyReport:
        """What a policy would come to in this image; the one in force stays."""
        ...

    def run(self, command: SandboxCommand) -> Iterator[CommandEvent]:
        """Start at the first next(): CommandStarted, outputs as they come, one CommandExited last.

        Closing the iterator early kills the command's whole tree. Raises KernelGateBroken, PolicyMissing,
        ProgramNotListed, SandboxBusy, SandboxRequestInvalid before anything started.
        """
        ...

    def hold(self, command: SandboxCommand) -> HeldCommand:
        """Have a command without input made ready up to its execution, and return at once.

        Raises SandboxdUnreachable; whatever else is wrong is raised when it is told to go.
        """
        ...

    def cancel(self, command_id: str) -> None:
        """Kill a running command's tree; its run() ends with stopped_by=CANCELLED. Raises CommandUnknown."""
        ...

    def start_app(self, spec: AppSpec) -> AppStatus:
        """Start or replace the app; returns at once. argv[0] must be listed like any program."""
        ...

    def stop_app(self) -> AppStatus: ...

    def restart_app(self) -> AppStatus: ...

    def app(self) -> AppStatus: ...

    def app_log(self, *, bytes_max: int = 65_536) -> str:
        """The end of what the app printed."""
        ...

    def disk_usage(self) -> tuple[DiskUsage, ...]: ...


class Sandboxds(Protocol):
    """Finds a tenant's supervisor."""

    def connect(self, sockets: Path, *, uid: int) -> Sandboxd:
        """The supervisor listening in the directory `sockets`, which must run as `uid`. Opens nothing yet."""
        ...
