"""The Sandboxd port over its Unix socket."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from orchestrator.core.ports.sandboxd import (
    AppSpec,
    AppStatus,
    CommandEvent,
    CommandExited,
    DiskUsage,
    HeldCommand,
    PolicyReport,
    SandboxCommand,
    Sandboxd,
    SandboxdStatus,
    SandboxdUnreachable,
    SandboxPolicy,
)
from orchestrator.drivers.sandboxd import frames
from orchestrator.drivers.sandboxd.connection import Connection, Frame, unreachable

_REQUEST_WAIT_S = 10.0
_DISK_WAIT_S = 20.0
# Above a command's own wall time: the time its tree may take to die, and a busy machine.
_COMMAND_GRACE_S = 60.0
_POLL_S = 0.02


class SandboxdClient:
    """Implements `Sandboxd`. Stateless and safe to share between threads: every call has its own connection."""

    def __init__(self, sockets: Path, *, uid: int, request_wait_s: float = _REQUEST_WAIT_S) -> None:
        self._sockets = sockets
        self._uid = uid
        self._request_wait_s = request_wait_s

    def _connect(self) -> Connection:
        return Connection(self._sockets, uid=self._uid, timeout_s=self._request_wait_s)

    def _ask(self, frame: Frame, *, wait_s: float | None = None) -> Frame:
        with self._connect() as connection:
            connection.send(frame)
            return connection.only(wait_s=wait_s or self._request_wait_s)

    def status(self) -> SandboxdStatus:
        return frames.status_of(self._ask({"type": "hello"}))

    def wait(self, *, timeout_s: float) -> SandboxdStatus:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return self.status()
            except SandboxdUnreachable:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(_POLL_S)

    def set_policy(self, policy: SandboxPolicy) -> PolicyReport:
        return frames.policy_report_of(self._ask(frames.policy_frame(policy)))

    def check_policy(self, policy: SandboxPolicy) -> PolicyReport:
        return frames.policy_report_of(self._ask({**frames.policy_frame(policy), "check": True}))

    def run(self, command: SandboxCommand) -> Iterator[CommandEvent]:
        with self._connect() as connection:
            connection.send(frames.run_frame(command), command.stdin)
            yield from _events(connection, command)

    def hold(self, command: SandboxCommand) -> HeldCommand:
        connection = self._connect()
        try:
            connection.send({**frames.run_frame(command), "hold": True})
            connection.push()
        except BaseException:
            connection.close()
            raise
        return _Held(connection, command)

    def cancel(self, command_id: str) -> None:
        self._ask({"type": "cancel", "id": command_id})

    def start_app(self, spec: AppSpec) -> AppStatus:
        return frames.app_of(self._ask(frames.app_frame(spec)))

    def stop_app(self) -> AppStatus:
        return frames.app_of(self._ask({"type": "app_stop"}))

    def restart_app(self) -> AppStatus:
        return frames.app_of(self._ask({"type": "app_restart"}))

    def app(self) -> AppStatus:
        return frames.app_of(self._ask({"type": "app_state"}))

    def app_log(self, *, bytes_max: int = 65_536) -> str:
        return str(self._ask({"type": "app_log", "bytes": bytes_max}).get("log", ""))

    def disk_usage(self) -> tuple[DiskUsage, ...]:
        return frames.disk_usage_of(self._ask({"type": "disk"}, wait_s=_DISK_WAIT_S))


class _Held:
    """Implements `HeldCommand` on the connection that made it ready."""

    def __init__(self, connection: Connection, command: SandboxCommand) -> None:
        self._connection = connection
        self._command = command
        self._is_told = False

    def go(self) -> Iterator[CommandEvent]:
        self._is_told = True
        with self._connection as connection:
            connection.add({"type": "go"})
            yield from _events(connection, self._command)

    def close(self) -> None:
        if not self._is_told:
            self._connection.close()


def _events(connection: Connection, command: SandboxCommand) -> Iterator[CommandEvent]:
    for frame in connection.frames(wait_s=command.limits.wall_s + _COMMAND_GRACE_S):
        event = frames.event_of(frame)
        yield event
        if isinstance(event, CommandExited):
            return
    raise unreachable("it ended before the command did")


class SandboxdClients:
    """Implements `Sandboxds`."""

    def connect(self, sockets: Path, *, uid: int) -> Sandboxd:
        return SandboxdClient(sockets, uid=uid)
