"""Statements that every request pays for: compiled once, then run by the driver itself.

SQLAlchemy's connection, execution and result cost several times what the driver needs for a short statement; what is
asked at each request and each command goes around them. Everything else is better off with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row
from sqlalchemy import Engine, Executable
from sqlalchemy.exc import DBAPIError


class Statement:
    """One statement, which is a transaction by itself."""

    def __init__(self, statement: Executable) -> None:
        self._statement = statement
        self._compiled: tuple[str, Mapping[str, Any]] | None = None

    def one(self, store: Engine, parameters: Mapping[str, Any]) -> Any:
        """The first row, its columns as attributes; None without any. Raises DBAPIError, as SQLAlchemy does."""
        if self._compiled is None:
            compiled = self._statement.compile(dialect=store.dialect)  # type: ignore[attr-defined]
            self._compiled = (str(compiled), dict(compiled.params))
        sql, constants = self._compiled
        pooled = store.raw_connection()
        try:
            driver: psycopg.Connection[Any] = pooled.driver_connection  # type: ignore[assignment]
            driver.autocommit = True  # one round trip instead of three
            try:
                with driver.cursor(row_factory=namedtuple_row) as cursor:
                    return cursor.execute(sql, {**constants, **parameters}).fetchone()
            finally:
                if not driver.closed:
                    driver.autocommit = False
        except psycopg.Error as problem:
            if pooled.driver_connection is None or pooled.driver_connection.closed:
                pooled.invalidate(problem)
            raise DBAPIError.instance(
                sql, None, problem, psycopg.Error, hide_parameters=True, dialect=store.dialect
            ) from problem
        finally:
            pooled.close()
