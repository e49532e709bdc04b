"""Connections to the control database and the one lock per tenant."""

from __future__ import annotations

import hashlib
import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DisconnectionError, InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry

from orchestrator.errors import Conflict

LOCK_POLL_S = 0.1
TRUSTED_IDLE_S = 5.0
USED = "used"  # in what a pool knows of a connection: somebody has returned it before
KEPT = 10  # connections that wait for the next use; more are made, and closed after it, up to the bound


class TenantBusy(Conflict):
    code = "conflict.tenant_busy"


@dataclass(frozen=True)
class _Waiting:
    """The pooled connections that wait for their next use, and since when.

    Whoever takes an entry out has the connection; it is closed only under `closing`.
    """

    since: dict[ConnectionPoolEntry, float] = field(default_factory=dict)
    closing: threading.Lock = field(default_factory=threading.Lock)


_WAITING: WeakKeyDictionary[Engine, _Waiting] = WeakKeyDictionary()


def connect(dsn: str, *, connections_max: int = 30) -> Engine:
    """An engine on the control database. `dsn` is a SQLAlchemy URL (postgresql+psycopg://…).

    A pooled connection that the server has closed, or that lay idle, is tried before it is used. Others are not: the
    question would cost every short request a round trip. The one used last is used next: its server's process is warm
    and has the frequent statements prepared. The others can be given back by `close_idle`.
    """
    kept = min(KEPT, connections_max)
    engine = create_engine(
        dsn, pool_size=kept, max_overflow=connections_max - kept, pool_timeout=15, pool_use_lifo=True
    )

    waiting = _WAITING[engine] = _Waiting()

    def looked_over(connection: Any, record: ConnectionPoolEntry, _: Any) -> None:
        returned_at = waiting.since.pop(record, None)
        if returned_at is None:
            if USED not in record.info:
                return  # it was made just now
            with waiting.closing:
                raise DisconnectionError("It was closed for idling in this very moment.")
        try:
            if time.monotonic() - returned_at > TRUSTED_IDLE_S or _has_news(connection):
                engine.dialect.do_ping(connection)
        except Exception as problem:  # whatever it is: nothing that cannot answer is used
            raise InvalidatePoolError from problem

    def returned(connection: Any, record: ConnectionPoolEntry) -> None:
        if connection is not None:
            record.info[USED] = True
            waiting.since[record] = time.monotonic()

    def closed(_: Any, record: ConnectionPoolEntry) -> None:
        waiting.since.pop(record, None)

    event.listen(engine, "checkout", looked_over)
    event.listen(engine, "checkin", returned)
    event.listen(engine, "close", closed)
    return engine


def close_idle(store: Engine, *, idle_s: float) -> None:
    """Close the pooled connections that nobody has used for `idle_s`, all but the one used last.

    Each costs its server some MiB. One that is taken in the same moment is replaced by its taker.
    """
    waiting = _WAITING[store]
    for record, returned_at in sorted(waiting.since.copy().items(), key=lambda one: one[1])[:-1]:
        with waiting.closing:
            if time.monotonic() - returned_at >= idle_s and waiting.since.pop(record, None) is not None:
                record.invalidate()


def _has_news(connection: Any) -> bool:
    """Whether the server has said something unasked: on an idle connection that is its farewell."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN | select.POLLRDHUP)
    return bool(poll.poll(0))


@contextmanager
def single(store: Engine) -> Iterator[Connection]:
    """A connection on which each statement is a transaction by itself: one round trip instead of three."""
    with store.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


def lock_key(*parts: str) -> int:
    """A stable signed 64-bit key for an advisory lock."""
    return int.from_bytes(hashlib.sha256("\0".join(parts).encode()).digest()[:8], "big", signed=True)


@contextmanager
def advisory_lock(engine: Engine, *parts: str, patience_s: float = 0.0) -> Iterator[bool]:
    """Try the lock named by `parts` on a connection of its own, for `patience_s`; yields whether it was taken."""
    deadline = time.monotonic() + patience_s
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while True:
            taken = bool(connection.scalar(text("SELECT pg_try_advisory_lock(:k)"), {"k": lock_key(*parts)}))
            if taken or time.monotonic() >= deadline:
                break
            time.sleep(LOCK_POLL_S)
        try:
            yield taken
        finally:
            if taken:
                _unlock(connection, lock_key(*parts))


def _unlock(connection: Connection, key: int) -> None:
    if connection.closed or connection.invalidated:
        return  # the session is gone and the server has released the lock with it
    connection.execute(text("SELECT pg_advisory_unlock(:k)"), {"k": key})


@contextmanager
def tenant_lock(engine: Engine, tenant_id: str, *, patience_s: float = 0.0) -> Iterator[None]:
    """Hold the tenant's lock for everything that changes it.

    Raises TenantBusy when somebody else holds it for longer than `patience_s`: busy is an answer, not a queue. People
    get a little patience, since reconcile may just be looking after the tenant.
    """
    with advisory_lock(engine, "tenant", tenant_id, patience_s=patience_s) as taken:
        if not taken:
            raise TenantBusy(
                "Another operation on this tenant is under way.",
                effect="Nothing was changed.",
                next_step="Try again when it has finished; `orchestrator status` shows it.",
                tenant_id=tenant_id,
            )
        yield
