"""One connection to sandboxd: JSON lines with a bound on each, and a deadline on every wait.

What arrives comes out of a tenant's container. It is checked like any hostile input: sandboxd itself is ours, but the
process behind the socket is only as good as the container it runs in.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import json
import os
import select
import socket
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from orchestrator.core.ports.sandboxd import (
    CommandUnknown,
    KernelGateBroken,
    PolicyMissing,
    ProgramNotListed,
    SandboxBusy,
    SandboxdUnreachable,
    SandboxRequestInvalid,
)
from orchestrator.errors import OrchestratorError, OutsideFailure

SOCKET_NAME = "sandboxd.sock"
FRAME_BYTES_MAX = 8 * 1024 * 1024
STDIN_CHUNK_BYTES = 128 * 1024

Frame = dict[str, object]


def unreachable(reason: str, cause: BaseException | None = None) -> SandboxdUnreachable:
    failure = SandboxdUnreachable(
        f"The sandbox does not answer: {reason}.",
        effect="Nothing was run in it.",
        next_step="Look at the tenant's page: it is restarted by itself when it should run.",
    )
    failure.__cause__ = cause
    return failure


class Connection:
    """Connected and checked; a context manager. Closing it ends whatever the request started."""

    def __init__(self, directory: Path, *, uid: int, timeout_s: float) -> None:
        self._buffer = bytearray()
        self._outgoing: Iterator[bytes] = iter(())
        self._piece = memoryview(b"")
        self._poll = select.poll()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(timeout_s)
            self._connect(directory / SOCKET_NAME, uid)
        except BaseException:
            self._socket.close()
            raise

    def _connect(self, path: Path, uid: int) -> None:
        try:
            status = path.lstat()
            if not stat.S_ISSOCK(status.st_mode) or status.st_uid != uid:
                raise unreachable("its socket was replaced by something else")
            self._socket.connect(os.fspath(path))
        except (OSError, ValueError) as failure:
            raise unreachable(str(getattr(failure, "strerror", None) or failure), failure) from failure
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        peer_uid = struct.unpack("3i", credentials)[1]
        if peer_uid != uid:
            raise unreachable(f"a process of uid {peer_uid} listens where uid {uid} should")
        self._socket.setblocking(False)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def send(self, frame: Frame, stdin: bytes = b"") -> None:
        """Queue a request and what follows it; it leaves while answers are read, so neither side waits for ever."""
        self._outgoing = _pieces(frame, stdin)
        self._piece = memoryview(next(self._outgoing))

    def add(self, frame: Frame) -> None:
        """Queue another frame behind what has not left yet, and hand over what goes now."""
        self._outgoing = itertools.chain(self._outgoing, _pieces(frame, b""))
        if not len(self._piece):
            self._piece = memoryview(next(self._outgoing))
        self.push()

    def push(self) -> None:
        """Hand over as much as the other side takes now."""
        try:
            while len(self._piece):
                self._piece = self._piece[self._socket.send(self._piece) :]
                if not len(self._piece):
                    self._piece = memoryview(next(self._outgoing, b""))
        except BlockingIOError:
            return
        except (BrokenPipeError, ConnectionResetError):
            # It refused and closed; the reason is waiting to be read.
            self._piece = memoryview(b"")
        except OSError as failure:
            raise unreachable("it stopped reading", failure) from failure

    def frames(self, *, wait_s: float) -> Iterator[Frame]:
        """Frames until the other side closes, all within `wait_s`. Raises what an error frame says."""
        deadline = time.monotonic() + wait_s
        while True:
            line = self._line(deadline)
            if line is None:
                return
            yield checked(line)

    def only(self, *, wait_s: float) -> Frame:
        for frame in self.frames(wait_s=wait_s):
            return frame
        raise unreachable("it closed the connection")

    def _line(self, deadline: float) -> bytes | None:
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > FRAME_BYTES_MAX:
                raise unreachable("its answer is too long")
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise unreachable("no answer in time")
            data = self._receive(left_s)
            if data == b"":
                return None
            self._buffer += data or b""
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def _receive(self, wait_s: float) -> bytes | None:
        """The next bytes, b"" at the end, None when only sending went on."""
        self._poll.register(self._socket, select.POLLIN | (select.POLLOUT if len(self._piece) else 0))
        ready = self._poll.poll(wait_s * 1000)
        if not ready:
            raise unreachable("no answer in time")
        if ready[0][1] & select.POLLOUT:
            self.push()
        if not ready[0][1] & ~select.POLLOUT:
            return None
        try:
            return self._socket.recv(65_536)
        except BlockingIOError:
            return None
        except OSError as failure:
            raise unreachable("the connection broke", failure) from failure


def _pieces(frame: Frame, stdin: bytes) -> Iterator[bytes]:
    yield json.dumps(frame, separators=(",", ":")).encode() + b"\n"
    for start in range(0, len(stdin), STDIN_CHUNK_BYTES):
        chunk = base64.b64encode(stdin[start : start + STDIN_CHUNK_BYTES])
        yield b'{"type":"stdin","data":"' + chunk + b'"}\n'


def checked(line: bytes) -> Frame:
    """A frame as a mapping with a type; an error frame becomes the error it stands for."""
    try:
        frame = json.loads(line)
    except (ValueError, RecursionError) as failure:
        raise unreachable("its answer is not JSON", failure) from failure
    if not isinstance(frame, dict) or not isinstance(frame.get("type"), str):
        raise unreachable("its answer has no type")
    if frame["type"] == "error":
        raise error_of(frame)
    return frame


def error_of(frame: Frame) -> OrchestratorError:
    code = str(frame.get("code"))
    message = str(frame.get("message", ""))[:2000]
    if code == "gate_broken":
        checks = frame.get("checks")
        names = [str(name)[:64] for name in checks[:32]] if isinstance(checks, list) else []
        return KernelGateBroken(
            f"The sandbox refuses to run anything: {message}.",
            effect="No command and no app runs in it.",
            next_step="Run the tenant's probe: it shows the evidence and the cure of each failed check.",
            checks=names,
        )
    if code in ("no_policy", "policy_changed"):
        return PolicyMissing(
            f"The sandbox does not have this policy: {message}.", next_step="Push the policy in force, then run again."
        )
    if code == "not_listed":
        return ProgramNotListed(f"The kernel gate is closed to this program: {message}.")
    if code == "busy":
        return SandboxBusy(f"The sandbox is busy: {message}.", next_step="Wait for a command to end, or cancel one.")
    if code == "unknown_command":
        return CommandUnknown("No such command is running in the sandbox.", effect="It may have ended by itself.")
    if code == "invalid":
        return SandboxRequestInvalid(f"The sandbox refused the request: {message}.")
    return OutsideFailure(f"The sandbox failed: {message}.")


def data_of(frame: Frame) -> bytes:
    try:
        return base64.b64decode(str(frame.get("data", "")), validate=True)
    except (binascii.Error, ValueError) as failure:
        raise unreachable("its output is not base64", failure) from failure
