"""Statements that every request pays for: compiled once, prepared once per connection, then run by libpq itself.

SQLAlchemy's and psycopg's connections, cursors and results cost several times what the server needs for a short
statement; what is asked at each request and each command goes around them. Everything else is better off with them.
"""

from __future__ import annotations

import itertools
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psycopg
from psycopg.adapt import PyFormat
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus
from sqlalchemy import Engine, Executable
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.exc import DBAPIError

from orchestrator.store import pinned
from orchestrator.store.pinned import Pinned

_DIALECT = PGDialect_psycopg(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]
_NAMES = itertools.count(1)


class Statement:
    """One statement, which is a transaction by itself. Where the server cannot find a value's type, cast it."""

    def __init__(self, statement: Executable) -> None:
        self._statement = statement
        self._sql = ""
        self._order: Sequence[str] = ()
        self._constants: Mapping[str, Any] = {}
        self._name = b"statement_%d" % next(_NAMES)
        self._row: Callable[[Sequence[Any]], Any] | None = None

    def one(self, store: Engine, parameters: Mapping[str, Any]) -> Any:
        """The first row, its columns as attributes; None without any. Raises DBAPIError, as SQLAlchemy does."""
        with self.ask(store, parameters) as asked:
            return asked.one()

    def ask(self, store: Engine, parameters: Mapping[str, Any]) -> Asked:
        """Send it, and do something else before its answer is taken. Raises DBAPIError."""
        if not self._sql:
            self._compile()
        connection = pinned.take(store)
        asked = Asked(self, store, connection)
        try:
            self._send(connection, parameters)
        except BaseException as problem:
            asked.close()
            if isinstance(problem, psycopg.Error):
                raise self.failure(problem) from problem
            raise
        return asked

    def _compile(self) -> None:
        compiled = self._statement.compile(dialect=_DIALECT)  # type: ignore[attr-defined]
        self._order, self._constants = tuple(compiled.positiontup or ()), dict(compiled.params)
        self._sql = str(compiled)

    def _send(self, connection: Pinned, parameters: Mapping[str, Any]) -> None:
        server, values = connection.server, {**self._constants, **parameters}
        texts = connection.transformer.dump_sequence(
            [values[name] for name in self._order], [PyFormat.TEXT] * len(self._order)
        )
        if connection.prepared is None:
            server.send_query_params(self._sql.encode(), texts)
        else:
            if self._name not in connection.prepared:
                _checked(server, server.prepare(self._name, self._sql.encode()))
                connection.prepared.add(self._name)
            server.send_query_prepared(self._name, texts)
        connection.flush()

    def row(self, connection: Pinned) -> Any:
        """What `Asked.one` returns. Raises psycopg.Error."""
        result = _checked(connection.server, connection.result())
        if not result.ntuples:
            return None
        if self._row is None:
            names = [(result.fname(column) or b"").decode() for column in range(result.nfields)]
            self._row = namedtuple("Row", names)._make  # type: ignore[attr-defined]  # made of what is known only now
        connection.transformer.set_pgresult(result)
        return connection.transformer.load_row(0, self._row)

    def failure(self, problem: psycopg.Error) -> BaseException:
        """As SQLAlchemy calls it."""
        return DBAPIError.instance(self._sql, None, problem, psycopg.Error, hide_parameters=True, dialect=_DIALECT)


class Asked:
    """A statement on its way. Leave the block without its answer, and its connection is given up."""

    __slots__ = ("_connection", "_statement", "_store")

    def __init__(self, statement: Statement, store: Engine, connection: Pinned) -> None:
        self._statement = statement
        self._store = store
        self._connection: Pinned | None = connection

    def one(self) -> Any:
        """The first row, its columns as attributes; None without any. Once. Raises DBAPIError."""
        connection, self._connection = self._connection, None
        if connection is None:
            raise RuntimeError("the answer was taken already")
        try:
            row = self._statement.row(connection)
        except BaseException as problem:
            # After a refusal nothing that was prepared is relied on any more: tables may have changed since.
            connection.pooled.invalidate()
            if isinstance(problem, psycopg.Error):
                raise self._statement.failure(problem) from problem
            raise
        pinned.leave(self._store, connection)
        return row

    def __enter__(self) -> Asked:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nobody wants the answer, unless it was taken."""
        connection, self._connection = self._connection, None
        if connection is not None:
            pinned.leave(self._store, connection)


def _checked(server: psycopg.pq.abc.PGconn, result: psycopg.pq.abc.PGresult) -> psycopg.pq.abc.PGresult:
    if result.status in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
        return result
    if server.status == ConnStatus.BAD:
        raise psycopg.OperationalError(result.get_error_message())
    raise error_from_result(result)
