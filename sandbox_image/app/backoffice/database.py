"""Connections to the hotel's database. A connection that was lost is replaced and the question asked once more."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

import psycopg
from psycopg.rows import namedtuple_row

Answer = TypeVar("Answer")
Connection = psycopg.Connection[Any]

IDLE_MAX = 4
CONNECT_TIMEOUT_S = 5


class DatabaseUnavailable(Exception):
    """Two connections in a row failed: the reason is the message."""


class Database:
    """Where and as whom comes from the environment (PGHOST, PGUSER, PGDATABASE)."""

    def __init__(self, conninfo: str = "") -> None:
        self._conninfo = conninfo
        self._idle: list[Connection] = []
        self._lock = threading.Lock()

    def run(self, work: Callable[[Connection], Answer]) -> Answer:
        """What `work` returns, in one transaction. Asked again once when the connection broke before the commit.

        Raises DatabaseUnavailable; errors of the statements themselves pass through.
        """
        for attempt in (1, 2):
            connection = None
            try:
                connection = self._take(fresh=attempt == 2)
                answer = work(connection)
            except psycopg.OperationalError as failure:
                broken = connection is None or connection.closed or connection.broken
                self._discard(connection)
                if not broken:
                    raise
                if attempt == 2:
                    raise DatabaseUnavailable(str(failure).strip()) from failure
                continue
            except BaseException:
                self._discard(connection)
                raise
            try:
                connection.commit()
            except psycopg.OperationalError as failure:
                # It may have been kept or not: asking again could do it twice.
                self._discard(connection)
                raise DatabaseUnavailable(str(failure).strip()) from failure
            self._give_back(connection)
            return answer
        raise AssertionError("unreachable")

    def _take(self, *, fresh: bool) -> Connection:
        with self._lock:
            if fresh:
                # What idles is as old as the connection that just broke.
                while self._idle:
                    self._idle.pop().close()
            elif self._idle:
                return self._idle.pop()
        return psycopg.connect(
            self._conninfo, connect_timeout=CONNECT_TIMEOUT_S, row_factory=namedtuple_row, prepare_threshold=None
        )

    def _give_back(self, connection: Connection) -> None:
        with self._lock:
            if len(self._idle) < IDLE_MAX:
                self._idle.append(connection)
                return
        connection.close()

    @staticmethod
    def _discard(connection: Connection | None) -> None:
        if connection is not None:
            connection.close()
