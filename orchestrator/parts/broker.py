"""Live output: what a running command prints, to everybody in this process who wants to see it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from orchestrator.core.commands import OutputChunk

CHUNKS_MAX = 20_000


@dataclass
class _Channel:
    condition: threading.Condition = field(default_factory=threading.Condition)
    chunks: list[OutputChunk] = field(default_factory=list)
    closed: bool = False


class Broker:
    """Keeps a running command's output in memory until it ends; how much that is the caller bounds."""

    def __init__(self) -> None:
        self._channels: dict[str, _Channel] = {}
        self._mutex = threading.Lock()

    def open(self, command_id: str) -> None:
        with self._mutex:
            self._channels[command_id] = _Channel()

    def publish(self, command_id: str, chunk: OutputChunk) -> None:
        channel = self._channels.get(command_id)
        if channel is None:
            return
        with channel.condition:
            if len(channel.chunks) < CHUNKS_MAX:
                channel.chunks.append(chunk)
            channel.condition.notify_all()

    def close(self, command_id: str) -> None:
        """The command has ended and is stored: subscribers get the rest and then an end."""
        with self._mutex:
            channel = self._channels.pop(command_id, None)
        if channel is not None:
            with channel.condition:
                channel.closed = True
                channel.condition.notify_all()

    def running(self) -> frozenset[str]:
        """The commands this process runs."""
        with self._mutex:
            return frozenset(self._channels)

    def follow(self, command_id: str, *, after: int, idle_s: float) -> Iterator[OutputChunk | None] | None:
        """Chunks behind `after` as they come, None after each `idle_s` without any; None when it does not run here."""
        with self._mutex:
            channel = self._channels.get(command_id)
        return None if channel is None else _followed(channel, after, idle_s)


def _followed(channel: _Channel, after: int, idle_s: float) -> Iterator[OutputChunk | None]:
    position = 0
    while True:
        deadline = time.monotonic() + idle_s
        with channel.condition:
            while position >= len(channel.chunks) and not channel.closed:
                left = deadline - time.monotonic()
                if left <= 0 or not channel.condition.wait(left):
                    break
            fresh = channel.chunks[position:]
            closed = channel.closed
        position += len(fresh)
        yield from (chunk for chunk in fresh if chunk.seq > after)
        if closed and not fresh:
            return
        if not fresh:
            yield None


class Output:
    """Numbers the chunks, keeps as much as may be stored, and passes everything on to those who watch."""

    def __init__(self, command_id: str, broker: Broker, kept_bytes: int) -> None:
        self._command_id = command_id
        self._broker = broker
        self._left = kept_bytes
        self._seq = 0
        self.kept: list[OutputChunk] = []
        self.truncated = False

    def publish(self, stream: str, data: bytes) -> None:
        chunk = OutputChunk(self._seq, stream, data)
        self._seq += 1
        self._broker.publish(self._command_id, chunk)
        if len(data) > self._left:
            self.truncated = True
            chunk = replace(chunk, data=data[: self._left])
        self._left -= len(chunk.data)
        last = self.kept[-1] if self.kept else None
        if last is not None and last.stream == stream and len(last.data) + len(chunk.data) <= 65_536:
            # Many tiny writes become one row; the number is that of the last of them, so readers can go on behind it.
            self.kept[-1] = OutputChunk(chunk.seq, stream, last.data + chunk.data)
        elif chunk.data:
            self.kept.append(chunk)
