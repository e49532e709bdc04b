"""PgBouncer's console over its socket: pause, resume, reload, show."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
from psycopg import sql

from orchestrator.core.ports.pools import PauseTimedOut, PoolFailed, PoolSpec, PoolStatus
from orchestrator.drivers.pool.configuration import CONSOLE_DATABASE, CONSOLE_USER, PORT

ANSWER_TIMEOUT_S = 5
NOT_PAUSED = "is not paused"


class Console:
    """One pool's console. A waiting PAUSE blocks the connection it was sent on, so it gets one of its own."""

    def __init__(self, spec: PoolSpec) -> None:
        self._spec = spec
        self._ready: psycopg.Connection[Any] | None = None

    def run(self, *statements: str) -> list[list[dict[str, Any]]]:
        """Run console commands on one connection within a few seconds; a list of rows each. Raises PoolFailed."""
        with self._connect() as connection:
            return self._run_on(connection, statements)

    def status(self) -> PoolStatus:
        databases, pools = self.run("SHOW DATABASES", "SHOW POOLS")
        ours = [row for row in pools if row["database"] == self._spec.database]
        return PoolStatus(
            is_paused=any(str(row["paused"]) == "1" for row in databases if row["name"] == self._spec.database),
            clients=sum(int(row["cl_active"]) + int(row["cl_waiting"]) for row in ours),
            waiting=sum(int(row["cl_waiting"]) for row in ours),
            servers=sum(int(row["sv_active"]) + int(row["sv_idle"]) + int(row["sv_used"]) for row in ours),
        )

    def resume(self) -> None:
        """Let clients through; one that is not paused answers with an error, which is what we want anyway.

        Goes over the connection `pause` made ready, when there is one: signing in takes as long as the swap.
        """
        ready, self._ready = self._ready, None
        if ready is not None:
            try:
                with ready:
                    self._run_on(ready, (self._command("RESUME"),))
                return
            except PoolFailed as error:
                if NOT_PAUSED in str(error.__cause__):
                    return
        try:
            self.run(self._command("RESUME"))
        except PoolFailed as error:
            if NOT_PAUSED not in str(error.__cause__):
                raise

    def reload(self) -> None:
        self.run("RELOAD")

    def pause(self, evict: Callable[[float], int], *, patience_s: float, grace_s: float) -> tuple[float, int]:
        """Pause within `patience_s` + `grace_s`; `evict(waited_s)` is called while waiting and ends sessions.

        Returns how long it took and how many sessions were ended. Raises PauseTimedOut, resumed: the connection a
        PAUSE was sent on is never answered after a RESUME, so it is closed from here.
        """
        if self.status().is_paused:
            return 0.0, 0
        self._ready = self._connect()
        answer = _Answer(self._connect, self._command("PAUSE"))
        began = time.monotonic()
        ended = 0
        try:
            answer.start()
            while not answer.wait(0.05):
                waited_s = time.monotonic() - began
                if waited_s > patience_s + grace_s:
                    raise PauseTimedOut(
                        f"Clients could not be held back within {waited_s:.1f} s.",
                        effect="The swap was not made; the live database is as it was.",
                        next_step="Look for sessions that hold the database; then refresh again.",
                    )
                ended += evict(waited_s)
            if answer.error is not None:
                raise self._failed("PAUSE", answer.error) from answer.error
        except BaseException:
            answer.abandon()
            self.resume()
            raise
        return time.monotonic() - began, ended

    def _run_on(self, connection: psycopg.Connection[Any], statements: Sequence[str]) -> list[list[dict[str, Any]]]:
        watch = threading.Timer(ANSWER_TIMEOUT_S, _cut, (connection,))
        watch.start()
        try:
            return [_rows(connection.execute(statement)) for statement in statements]
        except psycopg.Error as error:
            raise self._failed(statements[0], error) from error
        finally:
            watch.cancel()

    def _connect(self) -> psycopg.Connection[Any]:
        try:
            return psycopg.connect(
                host=str(self._spec.sockets),
                port=PORT,
                user=CONSOLE_USER,
                dbname=CONSOLE_DATABASE,
                password=self._spec.console_password_file.read_text().strip(),
                autocommit=True,
                prepare_threshold=None,  # the console knows the simple protocol only
                cursor_factory=psycopg.ClientCursor,
                connect_timeout=ANSWER_TIMEOUT_S,
            )
        except (psycopg.Error, OSError) as error:
            raise self._failed("a connection to its console", error) from error

    def _command(self, verb: str) -> str:
        return f"{verb} {sql.Identifier(self._spec.database).as_string(None)}"

    def _failed(self, statement: str, error: Exception) -> PoolFailed:
        return PoolFailed(
            f"The pool {self._spec.name} failed at {statement}: {str(error).strip()}", pool=self._spec.name
        )


class _Answer:
    """A PAUSE under way on a connection of its own, in a thread of its own."""

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]], command: str) -> None:
        self.error: Exception | None = None
        self._connection = connect()
        self._command = command
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pool-pause", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        return self._done.wait(timeout_s)

    def abandon(self) -> None:
        _cut(self._connection)
        self._done.wait(ANSWER_TIMEOUT_S)

    def _run(self) -> None:
        try:
            self._connection.execute(self._command)
        except Exception as error:
            self.error = error
        finally:
            self._connection.close()
            self._done.set()


def _rows(cursor: psycopg.Cursor[Any]) -> list[dict[str, Any]]:
    if cursor.description is None:
        return []
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def _cut(connection: psycopg.Connection[Any]) -> None:
    """Shut the socket down under a statement that waits, whichever thread waits in it."""
    if connection.closed:
        return
    with socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
        try:
            duplicate.shutdown(socket.SHUT_RDWR)
        except OSError:
            return
