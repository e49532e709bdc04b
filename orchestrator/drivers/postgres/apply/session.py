"""One connection to production: pinned settings, raw text in and out, server errors turned into ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql
from psycopg.adapt import AdaptersMap, Dumper, Transformer
from psycopg.pq import Format
from psycopg.types.string import TextLoader

from orchestrator.core.addresses import why_refused
from orchestrator.core.changeset.text_form import PINNED_SETTINGS
from orchestrator.core.ports.production import (
    CredentialTooWeak,
    ProductionBusy,
    ProductionRefuses,
    ProductionUnreachable,
)
from orchestrator.core.promotion.order import WriteLimits

CONNECT_TIMEOUT_S = 10
TRANSACTION_TIMEOUT_VERSION = 170000

# Ended by another writer or by our own time limits: the same transaction may pass a moment later.
PASSING = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
    psycopg.errors.QueryCanceled,
)

Cell = str | None
Raw = psycopg.RawCursor[tuple[Any, ...]]


class _TextDumper(Dumper):
    """Sends a str as text of unknown type; lone surrogates are the bytes of a database that is not UTF-8."""

    format = Format.TEXT
    oid = 0

    def dump(self, obj: str) -> bytes:
        return obj.encode("utf-8", "surrogateescape")


class _AsText:
    """An adaptation context that knows no type, so that everything is loaded as the text it came in."""

    adapters = AdaptersMap()
    adapters.register_loader(0, TextLoader)

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self.connection = connection


class Session:
    """Statements on one connection. Cells come back exactly as PostgreSQL prints them."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self.connection = connection
        self._cursor: Raw = psycopg.RawCursor(connection)

    def execute(self, query: sql.Composable | str, parameters: Sequence[str | None] = ()) -> int:
        """Run one statement with $1… parameters and return the affected rows."""
        self._run(query, parameters)
        return self._cursor.rowcount

    def texts(self, query: sql.Composable | str, parameters: Sequence[str | None] = ()) -> list[tuple[Cell, ...]]:
        """Run a query and return its rows as the server's own text, whatever the types."""
        self._run(query, parameters)
        result = self._cursor.pgresult
        if result is None:
            return []
        if self.connection.info.encoding == "utf-8":  # the same in C, several times as fast
            loading = Transformer(_AsText(self.connection))
            loading.set_pgresult(result)
            return loading.load_rows(0, result.ntuples, tuple)
        columns = range(result.nfields)
        return [tuple(_decoded(result.get_value(row, column)) for column in columns) for row in range(result.ntuples)]

    def text(self, query: sql.Composable | str, parameters: Sequence[str | None] = ()) -> str:
        """One value, '' for NULL or no row."""
        rows = self.texts(query, parameters)
        return rows[0][0] or "" if rows else ""

    def script(self, text: str) -> None:
        """Run SQL without parameters."""
        self.connection.execute(text.encode(), prepare=False)

    def _run(self, query: sql.Composable | str, parameters: Sequence[str | None]) -> None:
        composed = sql.Composed([sql.SQL(query) if isinstance(query, str) else query])
        self._cursor.execute(composed, parameters or None, prepare=False)


def _decoded(value: bytes | None) -> Cell:
    return None if value is None else value.decode("utf-8", "surrogateescape")


@contextmanager
def connected(dsn: str, *, purpose: str) -> Iterator[Session]:
    """A connection of its own. Raises ProductionUnreachable; the address is never part of the message."""
    try:
        connection = psycopg.connect(
            dsn, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S, application_name=f"orchestrator {purpose}"
        )
    except psycopg.Error as error:
        if why := why_refused(str(error)):
            raise ProductionRefuses(
                f"Production refuses the credential: {why}.",
                effect="Nothing was written.",
                next_step="Correct production.primary (or production.mirror, which is compared with) in"
                " configs/orchestrator.yaml and the file it names as password_file, then try again.",
            ) from error
        raise unreachable() from error
    try:
        connection.adapters.register_dumper(str, _TextDumper)
        connection.execute("SET client_min_messages = warning")
        if connection.info.parameter_status("server_encoding") == "SQL_ASCII":
            connection.execute("SET client_encoding = 'SQL_ASCII'")
        yield Session(connection)
    finally:
        connection.close()


def begin(session: Session, limits: WriteLimits, *, read_only: bool, settings: Mapping[str, str] | None = None) -> None:
    """Open the transaction under pinned settings and short limits.

    Reading takes one REPEATABLE READ snapshot; writing is READ COMMITTED, since every row is locked and read again.
    """
    mode = "ISOLATION LEVEL REPEATABLE READ READ ONLY" if read_only else "ISOLATION LEVEL READ COMMITTED READ WRITE"
    session.execute(f"BEGIN {mode}")
    pin(session, limits, settings)


def pin(session: Session, limits: WriteLimits, settings: Mapping[str, str] | None = None) -> None:
    """Set, for this transaction, whatever decides how cells read and how long anything may take."""
    wanted = {
        **PINNED_SETTINGS,
        "standard_conforming_strings": "on",
        "statement_timeout": _milliseconds(limits.statement_timeout_s),
        "lock_timeout": _milliseconds(limits.lock_timeout_s),
        "idle_in_transaction_session_timeout": _milliseconds(limits.transaction_timeout_s),
        **(settings or {}),
    }
    if session.connection.info.server_version >= TRANSACTION_TIMEOUT_VERSION:
        wanted["transaction_timeout"] = _milliseconds(limits.transaction_timeout_s)
    rows = sql.SQL(", ").join(
        sql.SQL("pg_catalog.set_config({}, {}, true)").format(sql.Literal(name), sql.Literal(value))
        for name, value in wanted.items()
    )
    session.execute(sql.SQL("SELECT ") + rows)


def use_default_search_path(session: Session) -> None:
    """Triggers and functions of production may rely on the role's own search path."""
    session.execute("SET LOCAL search_path TO DEFAULT")


def use_pinned_search_path(session: Session) -> None:
    session.execute("SELECT pg_catalog.set_config('search_path', '', true)")


def rollback(session: Session) -> None:
    """End the transaction, whatever state it is in; a lost connection has ended it already."""
    if not session.connection.closed:
        try:
            session.connection.execute("ROLLBACK")
        except psycopg.OperationalError:
            session.connection.close()


def is_lost(session: Session, error: psycopg.Error) -> bool:
    """Whether the connection itself broke (as opposed to the statement)."""
    return session.connection.closed or session.connection.broken or isinstance(error, psycopg.errors.AdminShutdown)


def unreachable() -> ProductionUnreachable:
    return ProductionUnreachable(
        "Production's database does not answer.",
        effect="Nothing was written.",
        next_step="Check that it runs and that its address in the configuration is right, then try again.",
    )


def busy(error: psycopg.Error, tries: int) -> ProductionBusy:
    return ProductionBusy(
        f"Production stayed busy: {error.diag.message_primary or 'rows are locked'} ({tries} tries).",
        effect="Nothing was written.",
        next_step="Try again in a moment; if it stays so, look for long transactions in production.",
    )


def too_weak(error: psycopg.Error) -> CredentialTooWeak:
    return CredentialTooWeak(
        f"The credential lacks a right: {error.diag.message_primary}.",
        effect="Nothing was written.",
        next_step="Run `orchestrator doctor`; it lists what the promote credential needs.",
    )


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(seconds * 1000)))


def array(texts: Sequence[str | None]) -> str:
    """A text[] literal. One parameter per column keeps ten thousand rows in one statement."""
    return "{" + ",".join("NULL" if text is None else _element(text) for text in texts) + "}"


def _element(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
