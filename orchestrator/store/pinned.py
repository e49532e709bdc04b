"""Connections for statements that go past SQLAlchemy, and what their servers have prepared for them.

A process that serves keeps a few of them out of the pool between two requests: a way into the pool and out again costs
more than a short statement.
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Hashable
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
_STATE = "pinned"  # in what a pool knows of a connection


class Pinned:
    """One connection, used by one thread at a time. Nothing of psycopg's own is under way on it."""

    def __init__(self, driver: psycopg.Connection[Any]) -> None:
        self.server = driver.pgconn
        self.transformer = Transformer(driver)
        # Statements its server has prepared.
        self.prepared: set[Hashable] = set()
        self._news = select.poll()
        self._news.register(self.server.socket, select.POLLIN | select.POLLRDHUP)
        self._room = select.poll()
        self._room.register(self.server.socket, select.POLLIN | select.POLLOUT)

    @property
    def is_sound(self) -> bool:
        """Whether nothing is under way; what an idle server says unasked is its farewell."""
        idle = psycopg.pq.TransactionStatus.IDLE
        return self.server.transaction_status == idle and not self._news.poll(0)

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

    @staticmethod
    def _wait(poll: select.poll) -> None:
        if not poll.poll(ANSWER_WAIT_S * 1000):
            raise psycopg.OperationalError(f"the control database did not answer for {ANSWER_WAIT_S:.0f} s")


@dataclass
class _Kept:
    """Those kept out of one pool: who takes an entry out has the connection."""

    at_most: int = 0
    waiting: deque[tuple[PoolProxiedConnection, float]] = field(default_factory=deque)


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
    for one in [one for one in kept.waiting.copy() if one[1] <= since]:
        try:
            kept.waiting.remove(one)
        except ValueError:
            continue  # taken meanwhile
        one[0].close()


def take(store: Engine) -> tuple[PoolProxiedConnection, Pinned]:
    """A sound connection, the one used last if there is one. Raises what the pool raises."""
    kept = _KEPT.get(store)
    while kept is not None:
        try:
            pooled, _ = kept.waiting.pop()
        except IndexError:
            break
        pinned: Pinned = pooled.info[_STATE]
        if pinned.is_sound:
            return pooled, pinned
        pooled.invalidate()
    pooled = store.raw_connection()
    try:
        if _STATE not in pooled.info:
            pooled.info[_STATE] = Pinned(pooled.driver_connection)  # type: ignore[arg-type]
        return pooled, pooled.info[_STATE]
    except BaseException:
        pooled.invalidate()
        raise


def leave(store: Engine, pooled: PoolProxiedConnection, pinned: Pinned) -> None:
    """After use. What is still under way on it ends with the connection."""
    if pinned.server.transaction_status != psycopg.pq.TransactionStatus.IDLE:
        pooled.invalidate()
        return
    kept = _KEPT.get(store)
    if kept is not None and len(kept.waiting) < kept.at_most:
        kept.waiting.append((pooled, time.monotonic()))
    else:
        pooled.close()
