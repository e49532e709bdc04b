"""One caller's connection: frames in, frames out, both bounded; a running command dies with it."""

from __future__ import annotations

import socket

from . import protocol, settings
from .command import Command, Sink
from .loop import READ, WRITE, Loop, Timer
from .protocol import BadRequest

# The name is what type checkers look for: the module itself costs memory that stays.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Host(Protocol):
        """What a connection needs of the server."""

        loop: Loop
        connections: set[Connection]

        def handle(self, connection: Connection, frame: dict[str, object], *, first: bool) -> None: ...


# Less than what an allocator takes from the kernel for each time, and gives back.
_RECEIVE_BYTES = 64 * 1024


class Connection(Sink):
    """One caller, one request, its answer; a running command dies with it."""

    def __init__(self, host: Host, stream: socket.socket) -> None:
        self._host = host
        self._stream = stream
        self._in = bytearray()
        self._out = bytearray()
        self._closing = False
        self._asked = False
        self.command: Command | None = None
        self.open = True
        self._timer: Timer = host.loop.later(settings.REQUEST_WAIT_S, self.close)
        self._events = READ
        host.loop.watch(stream.fileno(), READ, self._on_event)

    def pending(self) -> int:
        return len(self._out)

    def send(self, data: bytes) -> None:
        if self.open:
            self._out += data
            self._flush()

    def answer(self, frame: dict[str, object]) -> None:
        self.send(protocol.encode(frame))
        self.finish()

    def finish(self) -> None:
        """Nothing more will be sent; close when the caller has taken it all, or after a while."""
        self._closing = True
        self._timer.cancel()
        if not self._out:
            self.close()
        elif self.open:
            self._timer = self._host.loop.later(settings.DRAIN_WAIT_S, self.close)

    def close(self) -> None:
        if not self.open:
            return
        self.open = False
        self._timer.cancel()
        self._host.loop.forget(self._stream.fileno())
        self._stream.close()
        self._out.clear()
        self._host.connections.discard(self)
        if self.command is not None:
            self.command.stop("disconnected")
            self.command.resume()

    def _on_event(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if self.open and events & ~WRITE:
            self._receive()

    def _flush(self) -> None:
        try:
            while self._out:
                sent = self._stream.send(memoryview(self._out)[: 256 * 1024])
                del self._out[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if not self._out and self._closing:
            self.close()
            return
        self._wait()
        if self.command is not None and len(self._out) < settings.PENDING_BYTES_MAX // 2:
            self.command.resume()

    def _wait(self) -> None:
        full = self.command is not None and self.command.input_pending() > settings.PENDING_BYTES_MAX
        events = (0 if full else READ) | (WRITE if self._out else 0)
        if events != self._events:
            self._events = events
            self._host.loop.watch(self._stream.fileno(), events, self._on_event)

    def _receive(self) -> None:
        try:
            data = self._stream.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        if self._closing:
            return
        self._in += data
        try:
            while self.open and not self._closing and (end := self._in.find(b"\n")) >= 0:
                line = bytes(self._in[:end])
                del self._in[: end + 1]
                if len(line) > settings.FRAME_BYTES_MAX:
                    raise BadRequest("invalid", "the frame is too long")
                self._host.handle(self, protocol.decode(line), first=not self._asked)
                self._asked = True
                self._timer.cancel()
            if len(self._in) > settings.FRAME_BYTES_MAX:
                raise BadRequest("invalid", "the frame is too long")
        except BadRequest as failure:
            self._refuse(failure)
            return
        if self.open:
            self._wait()

    def _refuse(self, failure: BadRequest) -> None:
        if self.command is not None:
            self.command.stop("disconnected")
        self.send(protocol.error(failure))
        self.finish()
