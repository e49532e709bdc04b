"""The tree of processes below a monitor: waiting for it, counting what it writes, ending it completely."""

from __future__ import annotations

import os
import select
import signal
import time

_TICK_S = 0.1
_REAP_WAIT_S = 5.0


class Tree:
    """The program and everything it started, as the monitor sees them."""

    def __init__(self, *, scoped: bool, wake: int, channel: int, counters: int) -> None:
        self.program = -1
        self.status: int | None = None
        self.over = ""
        # Of what was reaped, each with those it had reaped itself.
        self.cpu_s = 0.0
        self.memory_peak_bytes = 0
        self._scoped = scoped
        self._wake = wake
        self._channel = channel
        self._counters = counters
        self._written_before = _written(counters)

    def written(self) -> int:
        """Bytes that the reaped part of the tree sent to a disk: the kernel adds them to whoever reaps."""
        return max(0, _written(self._counters) - self._written_before)

    def watch(self, write_bytes: int, *, at_most_s: float | None = None) -> bool:
        """Until the program ended, the supervisor says (or is) gone, or too much was written.

        False when none of it happened within `at_most_s`.
        """
        deadline = None if at_most_s is None else time.monotonic() + at_most_s
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        poll.register(self._channel, select.POLLIN)
        while self.program > 0 and self.status is None:
            left_s = _TICK_S if deadline is None else deadline - time.monotonic()
            if left_s <= 0:
                return False
            for descriptor, _ in poll.poll(left_s * 1000 if write_bytes or deadline is not None else None):
                if descriptor == self._channel:
                    if self._word() != b"t":
                        return True
                    os.kill(self.program, signal.SIGTERM)
                else:
                    self._drain()
            self._reap()
            if write_bytes and self.status is None and self.written() + self._live_written() > write_bytes:
                self.over = "write"
                return True
        return True

    def end(self) -> bool:
        """Kill what is left and reap it all; False when something could not be ended within the bound."""
        deadline = time.monotonic() + _REAP_WAIT_S
        while True:
            if self._scoped:
                try:
                    os.kill(-1, signal.SIGKILL)
                except OSError:
                    pass  # nothing left to signal
            else:
                for pid in descendants(os.getpid()):
                    _kill(pid)
            if not self._reap():
                return True
            if time.monotonic() > deadline:
                return False
            select.select([self._wake], [], [], 0.005)
            self._drain()

    def _word(self) -> bytes:
        """What the supervisor says; b"" when it is gone."""
        try:
            return os.read(self._channel, 1)
        except OSError:
            return b""

    def _reap(self) -> bool:
        """Collect the dead; True while any child is left."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self.cpu_s += usage.ru_utime + usage.ru_stime
            self.memory_peak_bytes = max(self.memory_peak_bytes, usage.ru_maxrss * 1024)
            if pid == self.program:
                self.status = status

    def _drain(self) -> None:
        try:
            os.read(self._wake, 512)
        except BlockingIOError:
            pass

    def _live_written(self) -> int:
        total = 0
        for pid in descendants(os.getpid()):
            try:
                descriptor = os.open(f"/proc/{pid}/io", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                total += _written(descriptor)
            finally:
                os.close(descriptor)
        return total


def _written(counters: int) -> int:
    if counters < 0:
        return 0
    try:
        data = os.pread(counters, 512, 0)
    except OSError:
        return 0
    for line in data.splitlines():
        if line.startswith(b"write_bytes:"):
            return int(line[12:])
    return 0


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass


def descendants(root: int) -> list[int]:
    """Every process below `root` now, by parent; zombies left out."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb", buffering=0) as file:
                fields = file.read(1024).rpartition(b")")[2].split()
        except OSError:
            continue
        if fields and fields[0] != b"Z":
            children.setdefault(int(fields[1]), []).append(int(name))
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def kill_orphans(known: set[int], dead: int) -> None:
    """What the killed monitor `dead` left to the supervisor: kill it and all below, a bounded number of times.

    `known` are children of the supervisor that live. A dying process keeps its children for a moment.
    """
    for _ in range(100):
        strangers = [pid for pid in descendants(os.getpid()) if pid not in known]
        below_known = {pid for parent in known for pid in descendants(parent)}
        strangers = [pid for pid in strangers if pid not in below_known] + descendants(dead)
        if not strangers:
            return
        for pid in strangers:
            _kill(pid)
        time.sleep(0.002)
