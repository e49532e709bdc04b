"""What a burst of work leaves behind is given back: free memory to the system, idle connections to their server."""

from __future__ import annotations

import ctypes
import gc
import threading
import time

from sqlalchemy import Engine

from orchestrator.store import pinned
from orchestrator.store.session import close_idle

EVERY_S = 30.0
LOOK_EVERY_S = 2.0
IDLE_S = 3.0
# Of mallopt(3). A thread takes a heap of its own unless told otherwise, and what has once been freed in a large piece
# (a password's hash takes 19 MiB) raises the bounds above which memory goes back: both are kept small.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
FROM_BYTES = 128 * 1024
ARENAS = 2


def frugal() -> None:
    """Keep this process's heaps small. Call it first of all; a C library that is not glibc has its own ways."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in ((M_ARENA_MAX, ARENAS), (M_MMAP_THRESHOLD, FROM_BYTES), (M_TRIM_THRESHOLD, FROM_BYTES)):
            mallopt(option, value)


class Rest:
    """Gives back for as long as the block lasts, in a thread of its own.

    Connections soon after a burst has ended (the next one is only a few milliseconds away), memory once in `every_s`.
    """

    def __init__(self, store: Engine, *, every_s: float = EVERY_S, look_every_s: float = LOOK_EVERY_S) -> None:
        self._store = store
        self._every_s = every_s
        self._look_every_s = look_every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="rest", daemon=True)

    def __enter__(self) -> Rest:
        gc.collect()
        gc.freeze()  # what was imported stays: looking through it again and again finds nothing
        pinned.keep(self._store)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5.0)
        pinned.keep(self._store, at_most=0)
        pinned.give_back(self._store, idle_s=0)
        gc.unfreeze()

    @staticmethod
    def trim() -> None:
        """Hand free memory back to the system."""
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)

    def _loop(self) -> None:
        trimmed_at = time.monotonic()
        while not self._stop.wait(self._look_every_s):
            pinned.give_back(self._store, idle_s=IDLE_S)
            close_idle(self._store, idle_s=IDLE_S)
            if time.monotonic() - trimmed_at >= self._every_s:
                self.trim()
                trimmed_at = time.monotonic()
