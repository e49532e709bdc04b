"""PgBouncer's console over its socket: pause, resume, reload, show."""

from __future__ import annotations

import os
import select
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
EVICT_EVERY_S = 0.05
LOGINS_WAIT_S, LOGINS_POLL_S = 2.0, 0.002
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
            is_paused=self._is_paused(databases),
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
        # Both connections are signed in before anybody waits: that takes as long as the swap.
        self._ready = self._connect()
        (databases,) = self._run_on(self._ready, ("SHOW DATABASES",))
        if self._is_paused(databases):
            return 0.0, 0
        pausing = _Pausing(self._connect())
        self._let_logins_end(self._ready)  # nobody is held back yet
        began = time.monotonic()
        ended = 0
        try:
            pausing.send(self._command("PAUSE"))
            while not pausing.is_answered(within_s=EVICT_EVERY_S):
                waited_s = time.monotonic() - began
                if waited_s > patience_s + grace_s:
                    raise PauseTimedOut(
                        f"Clients could not be held back within {waited_s:.1f} s.",
                        effect="The swap was not made; the live database is as it was.",
                        next_step="Look for sessions that hold the database; then refresh again.",
                    )
                ended += evict(waited_s)
            pausing.finish()
        except BaseException as error:
            pausing.abandon()
            self.resume()
            if isinstance(error, psycopg.Error):
                raise self._failed("PAUSE", error) from error
            raise
        return time.monotonic() - began, ended

    def _let_logins_end(self, connection: psycopg.Connection[Any]) -> None:
        """Wait a little until no server connection is just being made.

        PAUSE cuts those off, and PgBouncer then takes the database for one that refuses logins: after RESUME clients
        wait for its next try, or are refused until a login has succeeded.
        """
        deadline = time.monotonic() + LOGINS_WAIT_S
        while time.monotonic() < deadline:
            (pools,) = self._run_on(connection, ("SHOW POOLS",))
            if not any(int(row["sv_login"]) for row in pools if row["database"] == self._spec.database):
                return
            time.sleep(LOGINS_POLL_S)

    def _is_paused(self, databases: list[dict[str, Any]]) -> bool:
        return any(str(row["paused"]) == "1" for row in databases if row["name"] == self._spec.database)

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


class _Pausing:
    """A PAUSE under way: sent, and answered only when every server connection has been let go.

    Without a thread: whoever waits for the answer is woken by it, and can close the connection at any moment.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._answer = select.poll()
        self._answer.register(connection.fileno(), select.POLLIN)

    def send(self, command: str) -> None:
        self._connection.pgconn.send_query(command.encode())

    def is_answered(self, *, within_s: float) -> bool:
        """Raises psycopg.Error when the connection is lost."""
        deadline = time.monotonic() + within_s
        while (left_s := deadline - time.monotonic()) > 0:
            if self._answer.poll(left_s * 1000):
                self._connection.pgconn.consume_input()
                if not self._connection.pgconn.is_busy():
                    return True
        return False

    def finish(self) -> None:
        """Raises psycopg.Error when the answer is no."""
        refused = b""
        while (result := self._connection.pgconn.get_result()) is not None:
            refused = refused or result.error_message
        self._connection.close()
        if refused:
            raise psycopg.OperationalError(refused.decode(errors="replace"))

    def abandon(self) -> None:
        self._connection.close()


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
