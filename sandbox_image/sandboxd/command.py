"""A running command as the supervisor sees it: its streams to the caller, its limits, its end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from . import protocol, settings
from .cgroup import memory_kills
from .loop import READ, WRITE, Loop, log
from .program import GO, NEVER
from .starter import Monitored

# How long a monitor may take to end its tree before it is ended itself.
_KILL_WAIT_S = 10.0


class Sink:
    """Where a command's frames go: a connection, or nothing."""

    def send(self, data: bytes) -> None: ...

    def pending(self) -> int:
        return 0


class Command:
    """Forward streams, enforce the output and wall limits, report the end through `on_end(command)`.

    A held one runs nothing until `go`; its wall time begins there.
    """

    def __init__(
        self,
        loop: Loop,
        name: str,
        monitored: Monitored,
        *,
        sink: Sink,
        output_bytes: int,
        wall_s: float,
        stdin_bytes: int,
        policy_digest: str | None,
        on_end: Callable[[Command], None],
    ) -> None:
        self.name = name
        self.monitored = monitored
        # Of the policy it was made ready under.
        self.policy_digest = policy_digest
        self.stopped_by = ""
        self._loop = loop
        self._sink = sink
        self._on_end = on_end
        self._output_left = output_bytes
        self._output_bytes = 0
        self._truncated = False
        self._started = False
        # Stopped while it was held: nothing of it ran.
        self._dropped = False
        # Said with what comes next: each frame sent alone wakes the caller once more.
        self._unsent = b""
        self._paused = False
        self._stdin = bytearray()
        self._stdin_left = stdin_bytes
        self._memory_kills = memory_kills()
        self._wall_s = wall_s
        if monitored.gate >= 0:
            self._wall = loop.later(settings.HOLD_WAIT_S, self._lapse)
        else:
            self._wall = loop.later(wall_s, lambda: self.stop("wall"))
        self._patience = self._wall
        # Its output is read from the moment it is known to have started, so that this is said first.
        loop.watch(monitored.channel, READ, lambda _: self._on_report())

    # Output

    def _watch_stream(self, stream: str) -> None:
        descriptor = getattr(self.monitored, stream)
        if descriptor >= 0:
            self._loop.watch(descriptor, READ, lambda _: self._on_output(stream))

    def _on_output(self, stream: str) -> None:
        if self._read(stream) and self._sink.pending() > settings.PENDING_BYTES_MAX:
            self._paused = True
            for name in ("stdout", "stderr"):
                self._loop.forget(getattr(self.monitored, name))

    def _read(self, stream: str) -> bool:
        """Forward one chunk; False when there is nothing more now or ever."""
        descriptor = getattr(self.monitored, stream)
        if descriptor < 0:
            return False
        try:
            data = os.read(descriptor, settings.CHUNK_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._close(stream)
            return False
        if len(data) > self._output_left:
            data = data[: self._output_left]
            self._truncated = True
            self.stop("output")
        self._output_left -= len(data)
        self._output_bytes += len(data)
        if data:
            self._send(protocol.output(stream, data))
        return True

    def _send(self, data: bytes) -> None:
        unsent, self._unsent = self._unsent, b""
        self._sink.send(unsent + data)

    def resume(self) -> None:
        """The caller has caught up."""
        if self._paused:
            self._paused = False
            for stream in ("stdout", "stderr"):
                self._watch_stream(stream)

    def _close(self, name: str) -> None:
        self._loop.forget(getattr(self.monitored, name))
        self.monitored.close(name)

    # Input

    def feed(self, data: bytes) -> None:
        """More of stdin. Raises BadRequest past the announced size."""
        if len(data) > self._stdin_left:
            raise protocol.BadRequest("invalid", "more input than was announced")
        self._stdin_left -= len(data)
        if self.monitored.stdin < 0:
            return  # the program closed it or has ended
        self._stdin += data
        self._on_input()

    def input_pending(self) -> int:
        return len(self._stdin)

    def _on_input(self) -> None:
        descriptor = self.monitored.stdin
        if descriptor < 0:
            return
        try:
            while self._stdin:
                written = os.write(descriptor, self._stdin[: settings.CHUNK_BYTES])
                del self._stdin[:written]
        except BlockingIOError:
            self._loop.watch(descriptor, WRITE, lambda _: self._on_input())
            return
        except OSError:
            self._stdin.clear()
            self._close("stdin")
            return
        self._loop.forget(descriptor)
        if self._stdin_left == 0:
            self._close("stdin")

    def go(self) -> None:
        """Let a held program be executed. Raises BadRequest when it does not wait."""
        if self.stopped_by or self.monitored.gate < 0:
            raise protocol.BadRequest("invalid", "no command is held here")
        self.monitored.answer(GO)
        self._wall.cancel()
        self._wall = self._loop.later(self._wall_s, lambda: self.stop("wall"))

    def _lapse(self) -> None:
        """The word to go did not come: the caller may ask anew."""
        self._send(protocol.error(protocol.BadRequest("busy", "the command was held for too long")))
        self.stop("disconnected")

    # The end

    def stop(self, reason: str) -> None:
        """Kill the whole tree; the first reason stays."""
        if self.stopped_by:
            return
        self.stopped_by = reason
        self._dropped = self.monitored.gate >= 0
        self.monitored.answer(NEVER)
        self._wall.cancel()
        self.monitored.tell(b"k")
        self._patience = self._loop.later(_KILL_WAIT_S, self._lose_patience)

    def _lose_patience(self) -> None:
        log(f"the monitor of {self.name} did not end; killing it")
        try:
            os.kill(self.monitored.pid, signal.SIGKILL)
        except OSError:
            pass

    def _on_report(self) -> None:
        more = self.monitored.hear()
        if self.monitored.program and not self._started and not self._dropped:
            self._started = True
            self._unsent = b'{"type":"started","pid":%d}\n' % self.monitored.program
            if more:
                self._send(b"")
                for stream in ("stdout", "stderr"):
                    self._watch_stream(stream)
        if not more:
            self._finish()

    def _finish(self) -> None:
        """The monitor is gone, and with it everything that could write to the streams."""
        self._wall.cancel()
        self._patience.cancel()
        for stream in ("stdout", "stderr"):
            while self._read(stream):
                pass
        self._send(protocol.encode(self._exited()))
        for name in ("stdin", "stdout", "stderr"):
            self._close(name)
        self.monitored.close("gate")
        self._loop.forget(self.monitored.channel)
        self._on_end(self)

    @property
    def orphaned(self) -> bool:
        """The monitor died without a report: its tree is the supervisor's to kill."""
        return self.monitored.report is None

    def _exited(self) -> dict[str, object]:
        report = self.monitored.report or {}
        status = None if self._dropped else report.get("status")
        number = os.WTERMSIG(status) if isinstance(status, int) and os.WIFSIGNALED(status) else None
        problem = report.get("problem") or ("" if report else "the monitor of the command was killed")
        reason = self.stopped_by or str(report.get("over") or "")
        if not reason and number == signal.SIGXFSZ:
            reason = "write"
        killed = number == signal.SIGKILL or not report
        if not reason and killed and memory_kills() > self._memory_kills:
            reason = "memory"
        return {
            "type": "exited",
            "exit_code": os.WEXITSTATUS(status) if isinstance(status, int) and os.WIFEXITED(status) else None,
            "signal": number,
            "stopped_by": reason or None,
            "start_error": problem or None,
            "truncated": self._truncated,
            "duration_s": report.get("duration_s", 0.0),
            "cpu_s": report.get("cpu_s", 0.0),
            "memory_peak_bytes": report.get("memory_peak_bytes", 0),
            "output_bytes": self._output_bytes,
            "written_bytes": report.get("written_bytes", 0),
            "changed": report.get("changed", []),
            "changed_complete": report.get("changed_complete", False),
        }
