"""Connections for statements that go past SQLAlchemy, and what their servers have prepared for them.

A process that serves keeps a few of them out of the pool between two requests: a way into the pool and out again costs
more than a short statement.
"""

from __future__ import annotations

import select
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from psycopg.adapt import Transformer
from sqlalchemy import Engine, PoolProxiedConnection

# Longer than anything that is asked this way may take; a server that does not answer must not hold a request for ever.
ANSWER_WAIT_S = 60.0
# Of a pool's connections: enough for those who ask at the same moment, since each is needed for a moment only.
PINNED_MAX = 2


class Pinned:
    """One connection, used by one thread at a time. Nothing of psycopg's own is under way on it."""

    def __init__(self, pooled: PoolProxiedConnection) -> None:
        driver: psycopg.Connection[Any] = pooled.driver_connection  # type: ignore[assignment]
        self.pooled = pooled
        self.server = driver.pgconn
        self.transformer = Transformer(driver)
        # Names of what its server has prepared. None before it was kept once: preparing for one use does not pay, and
        # psycopg drops what it finds prepared on connections of the pool.
        self.prepared: set[bytes] | None = None
        self.left_at = 0.0
        self._news = select.poll()
        self._news.register(self.server.socket, select.POLLIN | select.POLLRDHUP)
        self._room = select.poll()
        self._room.register(self.server.socket, select.POLLIN | select.POLLOUT)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return bool(self.server.transaction_status == psycopg.pq.TransactionStatus.IDLE)

    @property
    def is_sound(self) -> bool:
        """Whether it can be used: what an idle server says unasked is its farewell."""
        return self.is_idle and not self._news.poll(0)

    def flush(self) -> None:
        """Send everything. Raises psycopg.Error."""
        while self.server.flush():
            self._wait(self._room)
            self.server.consume_input()

    def result(self) -> psycopg.pq.abc.PGresult:
        """The answer to the one statement that is under way. Raises psycopg.Error, also when there is none in time."""
        while self.server.is_busy():
            self._wait(self._news)
            self.server.consume_input()
        first = self.server.get_result()
        if first is None:
            raise psycopg.OperationalError("the control database gave no answer")
        while self.server.get_result() is not None:
            pass
        return first

    def give_back(self) -> None:
        """To the pool, with nothing of ours left on its server; or closed, when anything is wrong with it."""
        try:
            for name in (self.prepared or ()) if self.is_sound else ():
                self.server.send_query(b"DEALLOCATE " + name)
                self.flush()
                self.result()
        except psycopg.Error:
            pass  # it is closed below
        if self.is_sound:
            self.pooled.close()
        else:
            self.pooled.invalidate()

    @staticmethod
    def _wait(poll: select.poll) -> None:
        if not poll.poll(ANSWER_WAIT_S * 1000):
            raise psycopg.OperationalError(f"the control database did not answer for {ANSWER_WAIT_S:.0f} s")


@dataclass
class _Kept:
    """Those kept out of one pool: who takes an entry out has the connection."""

    at_most: int = 0
    waiting: deque[Pinned] = field(default_factory=deque)


_KEPT: WeakKeyDictionary[Engine, _Kept] = WeakKeyDictionary()


def keep(store: Engine, *, at_most: int = PINNED_MAX) -> None:
    """From now on up to `at_most` connections stay out of the pool between two uses, until they are given back."""
    _KEPT.setdefault(store, _Kept()).at_most = at_most


def give_back(store: Engine, *, idle_s: float) -> None:
    """Return those to the pool that nobody has used for `idle_s`."""
    kept = _KEPT.get(store)
    if kept is None:
        return
    since = time.monotonic() - idle_s
    for pinned in [one for one in kept.waiting.copy() if one.left_at <= since]:
        try:
            kept.waiting.remove(pinned)
        except ValueError:
            continue  # taken meanwhile
        pinned.give_back()


def take(store: Engine) -> Pinned:
    """A sound connection, the one used last if one is kept. Raises what the pool raises."""
    kept = _KEPT.get(store)
    while kept is not None:
        try:
            pinned = kept.waiting.pop()
        except IndexError:
            break
        if pinned.is_sound:
            return pinned
        pinned.pooled.invalidate()
    return Pinned(store.raw_connection())


def leave(store: Engine, pinned: Pinned) -> None:
    """After use. What is still under way on it ends with the connection."""
    kept = _KEPT.get(store)
    if kept is None or len(kept.waiting) >= kept.at_most or not pinned.is_idle:
        pinned.give_back()
        return
    if pinned.prepared is None:
        pinned.prepared = set()
    pinned.left_at = time.monotonic()
    kept.waiting.append(pinned)
