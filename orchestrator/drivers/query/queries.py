"""The Queries port: the extended protocol (one statement a message), row by row, in a transaction that we end."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psycopg
from psycopg import pq

from orchestrator.core.ports.queries import Cancelling, QueryFailed, QueryLimits, QueryResult, QueryTarget, SqlError
from orchestrator.drivers.query.relay import Relay, relay
from orchestrator.drivers.query.watchdog import Watchdog

APPLICATION = "orchestrator-query"
CONNECT_TIMEOUT_S = 10
_OK = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)


@dataclass
class _Seen:
    """What has come back so far."""

    columns: tuple[str, ...] = ()
    rows: list[tuple[str | None, ...]] = field(default_factory=list)
    row_count: int = 0
    kept_bytes: int = 0
    truncated: bool = False
    tag: str = ""
    error: SqlError | None = None


class PostgresQueries:
    """Stateless; every query has a connection, a relay and a watchdog of its own."""

    def run(
        self,
        target: QueryTarget,
        statement: str,
        *,
        dry_run: bool,
        limits: QueryLimits,
        started: Callable[[Cancelling], None] | None = None,
    ) -> QueryResult:
        """See the port."""
        begun = time.monotonic()
        upstream = target.sockets / f".s.PGSQL.{target.port}"
        bytes_max = limits.drained_bytes + limits.bytes + 1_048_576
        with relay(upstream, port=target.port, bytes_max=bytes_max) as line:
            with Watchdog(target.watchdog_dsn, line, time_s=limits.time_s) as watchdog:
                connection = _connect(target, line, watchdog)
                try:
                    if started is not None:
                        started(watchdog.cancel)
                    seen, kept = _guarded(connection.pgconn, statement, dry_run, limits, watchdog)
                finally:
                    connection.close()
                stopped_by = "bytes" if line.overflowed else watchdog.stopped_by
        if stopped_by and seen.error is None and not kept and not dry_run:
            seen.error = SqlError("57014", "The statement was stopped.")
        return QueryResult(
            columns=seen.columns,
            rows=tuple(seen.rows),
            row_count=seen.row_count,
            truncated=seen.truncated,
            tag=seen.tag,
            kept=kept,
            dry_run=dry_run,
            duration_ms=int((time.monotonic() - begun) * 1000),
            stopped_by=stopped_by if not kept else "",
            error=seen.error,
        )


def _connect(target: QueryTarget, line: Relay, watchdog: Watchdog) -> psycopg.Connection[object]:
    try:
        return psycopg.connect(
            host=str(line.directory),
            port=target.port,
            user=target.role,
            dbname=target.database,
            password=target.password,
            application_name=APPLICATION,
            client_encoding="UTF8",
            connect_timeout=CONNECT_TIMEOUT_S,
            sslmode="disable",
            gssencmode="disable",
            autocommit=True,
        )
    except psycopg.Error as problem:
        message = str(problem).replace(target.password or "\0", "…").strip()
        why = " It did not let us in within the time." if watchdog.stopped_by else ""
        raise QueryFailed(
            f"The tenant's database cannot be reached.{why}",
            effect="Nothing was run.",
            next_step="See whether the tenant runs; a refresh may be swapping its database just now.",
            reason=message[:300],
        ) from None


def _results(connection: pq.abc.PGconn, text: bytes, *, single_rows: bool = False) -> Iterator[pq.abc.PGresult]:
    """Send one statement by the extended protocol and wait for its results without blocking other threads."""
    connection.send_query_params(text, None)
    if single_rows:
        connection.set_single_row_mode()
    with selectors.DefaultSelector() as selector:
        selector.register(connection.socket, selectors.EVENT_READ | selectors.EVENT_WRITE)
        while connection.flush():
            selector.select(1.0)
            connection.consume_input()
        selector.modify(connection.socket, selectors.EVENT_READ)
        while True:
            while connection.is_busy():
                selector.select(1.0)
                connection.consume_input()
            result = connection.get_result()
            if result is None:
                return
            yield result


def _last(connection: pq.abc.PGconn, text: bytes) -> pq.abc.PGresult:
    found = None
    for found in _results(connection, text):  # noqa: B007 - the last one counts
        pass
    if found is None:
        raise psycopg.OperationalError("no result")
    return found


def _guarded(
    connection: pq.abc.PGconn, statement: str, dry_run: bool, limits: QueryLimits, watchdog: Watchdog
) -> tuple[_Seen, bool]:
    """A lost connection is an end like others: whatever was not committed is gone."""
    seen = _Seen()
    try:
        return seen, _transaction(connection, statement, dry_run, limits, watchdog, seen)
    except psycopg.Error as problem:
        seen.error = seen.error or SqlError("08006", str(problem).strip() or "The connection was lost.")
        return seen, False


def _transaction(
    connection: pq.abc.PGconn,
    statement: str,
    dry_run: bool,
    limits: QueryLimits,
    watchdog: Watchdog,
    seen: _Seen,
) -> bool:
    """BEGIN, find the backend, the statement, and the end; True when its effects were kept."""
    if not _command(connection, b"BEGIN", seen):
        return False
    pid = _last(connection, b"SELECT pg_catalog.pg_backend_pid()")
    if pid.status != pq.ExecStatus.TUPLES_OK:
        seen.error = _error(connection, pid)
        return False
    watchdog.guard(int(pid.get_value(0, 0) or b"0"))
    _send(connection, statement, limits, seen)
    if seen.error is None and connection.transaction_status != pq.TransactionStatus.INTRANS:
        # Something inside ended our transaction. It cannot be taken back, so it must be said.
        seen.error = SqlError("25000", "The statement ended its own transaction; what it did was kept.")
        return True
    if seen.error is None and dry_run:
        _command(connection, b"SET CONSTRAINTS ALL IMMEDIATE", seen)  # deferred constraints fail now or never
    if seen.error is not None or dry_run or watchdog.stopped_by:
        _command(connection, b"ROLLBACK", _Seen())
        return False
    return _command(connection, b"COMMIT", seen)


def _command(connection: pq.abc.PGconn, text: bytes, seen: _Seen) -> bool:
    """One of our own commands; a failure is noted unless there is one already."""
    result = _last(connection, text)
    if result.status == pq.ExecStatus.COMMAND_OK and (result.command_status or b"") != b"ROLLBACK":
        return True
    if text != b"ROLLBACK" and seen.error is None:
        seen.error = _error(connection, result)
    return False


def _send(connection: pq.abc.PGconn, statement: str, limits: QueryLimits, seen: _Seen) -> None:
    """Send the statement and take its rows one by one; what is over the caps is counted, not kept."""
    for result in _results(connection, statement.encode(), single_rows=True):
        if result.status == pq.ExecStatus.SINGLE_TUPLE:
            _keep(result, limits, seen)
        elif result.status in _OK:
            seen.tag = (result.command_status or b"").decode()
            seen.columns = seen.columns or _columns(result)
            if not seen.columns:
                seen.row_count = result.command_tuples or 0
        elif result.status in (pq.ExecStatus.COPY_IN, pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_BOTH):
            raise psycopg.OperationalError("COPY needs a client of its own")  # the line is cut
        else:
            seen.error = seen.error or _error(connection, result)


def _keep(result: pq.abc.PGresult, limits: QueryLimits, seen: _Seen) -> None:
    seen.columns = seen.columns or _columns(result)
    seen.row_count += 1
    if seen.truncated:
        return
    cells = [result.get_value(0, number) for number in range(result.nfields)]
    size = sum(len(cell or b"") for cell in cells)
    if len(seen.rows) >= limits.rows or seen.kept_bytes + size > limits.bytes:
        seen.truncated = True
        return
    seen.kept_bytes += size
    seen.rows.append(tuple(None if cell is None else cell.decode("utf-8", "replace") for cell in cells))


def _columns(result: pq.abc.PGresult) -> tuple[str, ...]:
    return tuple((result.fname(number) or b"").decode("utf-8", "replace") for number in range(result.nfields))


def _error(connection: pq.abc.PGconn, result: pq.abc.PGresult) -> SqlError:
    def part(code: pq.DiagnosticField) -> str:
        return (result.error_field(code) or b"").decode("utf-8", "replace")

    position = part(pq.DiagnosticField.STATEMENT_POSITION)
    message = part(pq.DiagnosticField.MESSAGE_PRIMARY) or connection.error_message.decode("utf-8", "replace").strip()
    return SqlError(
        sqlstate=part(pq.DiagnosticField.SQLSTATE) or "08006",
        message=message or "The connection was lost.",
        detail=part(pq.DiagnosticField.MESSAGE_DETAIL),
        hint=part(pq.DiagnosticField.MESSAGE_HINT),
        position=int(position) if position.isdigit() else None,
    )
