"""COPY … TO STDOUT as batches of raw lines, and the lines as cells.

psycopg hands over one row per call. A full comparison reads tens of millions of them, so on a plain socket the
protocol's CopyData frames are cut here, a whole buffer at a time; over TLS psycopg's own loop is used.
"""

from __future__ import annotations

import os
import re
import select
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import Connection

BUFFER_BYTES = 1 << 20
_HEADER_BYTES = 5
_BATCH_LINES = 10_000
# One frame: 'd', its length, one line (text lines hold no raw newline, so the next one ends the frame). Whatever is
# not a whole frame is swallowed up to the end, so that nothing behind it can be taken for one.
_FRAME = re.compile(rb"d[\s\S]{4}([^\n]*)\n|[^d][\s\S]*")
_EMPTY_FRAME = b"d\0\0\0\5\n"
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_NULL = "\\N"


class CopyBroken(psycopg.OperationalError):
    """The server ended the stream early, or was silent for too long."""


class CopyLines:
    """One running COPY. Start several, then read them in turn: the servers work meanwhile."""

    def __init__(
        self, connection: Connection[Any], query: bytes, *, timeout_s: float, framed: bool | None = None
    ) -> None:
        """`framed` chooses who cuts the frames; by default psycopg does so over TLS only."""
        self._connection = connection
        self._query = query
        self._timeout_s = timeout_s
        self.lines_read = 0
        self.exhausted = False
        by_hand = not connection.pgconn.ssl_in_use if framed is None else framed
        self._batches = self._framed() if by_hand else self._plain()
        self._batches.__next__()

    def next_batch(self) -> list[bytes]:
        """The next lines without their newline; [] when there are none left. Raises psycopg.Error."""
        if self.exhausted:
            return []
        batch = next(self._batches, None)
        if batch is None:
            self.exhausted = True
            return []
        self.lines_read += len(batch)
        return batch

    def _plain(self) -> Iterator[list[bytes]]:
        yield []
        with self._connection.cursor().copy(self._query) as copy:
            batch: list[bytes] = []
            tail = b""
            for piece in copy:
                data = tail + bytes(piece)
                *lines, tail = data.split(b"\n")
                batch += lines
                if len(batch) >= _BATCH_LINES:
                    yield batch
                    batch = []
            if batch:
                yield batch

    def _framed(self) -> Iterator[list[bytes]]:
        # libpq's buffers are empty between commands, so the socket may be spoken to directly until ReadyForQuery.
        wire = socket.socket(fileno=os.dup(self._connection.fileno()))
        complete = False
        try:
            message = self._query + b"\0"
            _send(wire, b"Q" + struct.pack("!i", len(message) + 4) + message, self._timeout_s)
            yield []
            yield from _frames(wire, self._timeout_s)
            complete = True
        finally:
            wire.close()
            if not complete:
                self._connection.pgconn.finish()  # out of step with the server: of no further use


def _send(wire: socket.socket, data: bytes, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    view = memoryview(data)
    while view:
        if not select.select([], [wire], [], max(0.0, deadline - time.monotonic()))[1]:
            raise CopyBroken("the server does not take the query")
        view = view[wire.send(view) :]


def _frames(wire: socket.socket, timeout_s: float) -> Iterator[list[bytes]]:
    """Batches of lines up to ReadyForQuery. Raises the server's error as psycopg would."""
    pending = bytearray()
    failure: Exception | None = None
    while True:
        lines, used = _cut(pending)
        if lines:
            del pending[:used]
            yield lines
        needed = _needed(pending)
        while len(pending) < needed:
            _receive(wire, pending, timeout_s)
            needed = _needed(pending)
        kind = pending[:1]
        if kind == b"d":
            continue
        body = bytes(pending[_HEADER_BYTES:needed])
        del pending[:needed]
        if kind == b"E":
            failure = _server_error(body)
        elif kind == b"Z":
            if failure is not None:
                raise failure
            return


def _needed(pending: bytearray) -> int:
    """Bytes the first message has in all; at least its header."""
    if len(pending) < _HEADER_BYTES:
        return _HEADER_BYTES
    length: int = struct.unpack_from("!i", pending, 1)[0]
    return 1 + length


def _cut(pending: bytearray) -> tuple[list[bytes], int]:
    """All complete lines at the front of `pending` and the bytes their frames take."""
    if len(pending) < _HEADER_BYTES or pending[0] != ord("d") or len(pending) < _needed(pending):
        return [], 0
    lines: list[bytes] = _FRAME.findall(pending)
    used = sum(map(len, lines)) + len(_EMPTY_FRAME) * len(lines)
    if lines and not lines[-1]:  # an empty line, or the swallowed rest
        start = used - len(_EMPTY_FRAME)
        if pending[start:used] != _EMPTY_FRAME:
            lines.pop()
            used = start
    return lines, used


def _receive(wire: socket.socket, pending: bytearray, timeout_s: float) -> None:
    if not select.select([wire], [], [], timeout_s)[0]:
        raise CopyBroken("the server was silent for too long")
    data = wire.recv(BUFFER_BYTES)
    if not data:
        raise CopyBroken("the server closed the connection")
    pending += data


def _server_error(body: bytes) -> Exception:
    fields = {part[:1]: part[1:].decode("utf-8", "replace") for part in body.split(b"\0") if part}
    state = fields.get(b"C", "XX000")
    return (
        psycopg.errors.lookup(state)(fields.get(b"M", "unknown error"))
        if _known(state)
        else psycopg.DatabaseError(fields.get(b"M", state))
    )


def _known(state: str) -> bool:
    try:
        psycopg.errors.lookup(state)
    except KeyError:
        return False
    return True


def cells(line: bytes) -> tuple[str | None, ...]:
    """The fields of a line, unescaped. Bytes that are not UTF-8 become lone surrogates."""
    fields = line.decode("utf-8", "surrogateescape").split("\t")
    if b"\\" not in line:
        return tuple(fields)
    return tuple(None if field == _NULL else _unescaped(field) for field in fields)


def _unescaped(field: str) -> str:
    if "\\" not in field:
        return field
    return _ESCAPE.sub(lambda match: _ESCAPES.get(match[1], match[1]), field)
