"""One thread, one epoll: callbacks by descriptor, and timers. A callback that raises is logged, never fatal."""

from __future__ import annotations

import heapq
import select
import sys
import time
from collections.abc import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT

Callback = Callable[[int], None]


def log(message: str) -> None:
    """One line on the container's log."""
    print("sandboxd:", message, file=sys.stderr, flush=True)  # noqa: T201


class Timer:
    __slots__ = ("call", "order", "when")

    def __init__(self, when: float, order: int, call: Callable[[], None]) -> None:
        self.when = when
        self.order = order
        self.call: Callable[[], None] | None = call

    def __lt__(self, other: Timer) -> bool:
        return (self.when, self.order) < (other.when, other.order)

    def cancel(self) -> None:
        self.call = None


class Loop:
    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}
        self._timers: list[Timer] = []
        self._order = 0
        self.running = True

    def watch(self, descriptor: int, events: int, callback: Callback) -> None:
        """Call `callback(events)` when ready; registering again changes what is waited for."""
        if descriptor in self._callbacks:
            self._epoll.modify(descriptor, events)
        else:
            self._epoll.register(descriptor, events)
        self._callbacks[descriptor] = callback

    def forget(self, descriptor: int) -> None:
        """Before closing a descriptor; nothing when it was not watched."""
        if self._callbacks.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def later(self, delay_s: float, call: Callable[[], None]) -> Timer:
        self._order += 1
        timer = Timer(time.monotonic() + delay_s, self._order, call)
        heapq.heappush(self._timers, timer)
        return timer

    def run(self) -> None:
        while self.running:
            for descriptor, events in self._epoll.poll(self._wait_s()):
                callback = self._callbacks.get(descriptor)
                if callback is not None:
                    self._call(callback, events)
            self._run_timers()

    def _wait_s(self) -> float:
        while self._timers and self._timers[0].call is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return -1
        return max(0.0, self._timers[0].when - time.monotonic())

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0].when <= now:
            call = heapq.heappop(self._timers).call
            if call is not None:
                self._call(lambda _, call=call: call(), 0)  # type: ignore[misc]

    @staticmethod
    def _call(callback: Callback, events: int) -> None:
        try:
            callback(events)
        except Exception:
            # Imported only now: it is large, and this should never happen.
            import traceback

            log("a callback failed:\n" + traceback.format_exc())
