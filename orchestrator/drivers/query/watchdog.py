"""Ending a statement by another role: the tenant can lift its own time-outs, but not this."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import psycopg

from orchestrator import logs
from orchestrator.drivers.query.relay import Relay

LOG = logs.get("query")
GRACE_S = 2.0


class Watchdog:
    """Cancels the backend when the time is over, terminates it a little later, and cuts the connection at last."""

    def __init__(self, dsn: Callable[[], str], relay: Relay, *, time_s: float) -> None:
        self._dsn = dsn
        self._relay = relay
        self._deadline = time.monotonic() + time_s
        self._wake = threading.Event()
        self._ended = False
        self._mutex = threading.Lock()
        self._pid: int | None = None
        self._thread = threading.Thread(target=self._watch, daemon=True, name="query-watchdog")
        self.stopped_by = ""

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._wake.set()
        self._thread.join(60)

    def guard(self, pid: int) -> None:
        """From now on this backend is the one to end."""
        self._pid = pid

    def cancel(self) -> None:
        """Stop the statement now, for somebody who asked."""
        self.stop("cancelled")

    def stop(self, why: str) -> None:
        """End the statement as if its time were over; the first reason is the one told."""
        with self._mutex:
            self.stopped_by = self.stopped_by or why
        self._wake.set()

    def _watch(self) -> None:
        self._wake.wait(max(0.0, self._deadline - time.monotonic()))
        if self._ended:
            return
        with self._mutex:
            self.stopped_by = self.stopped_by or "time"
        for function in ("pg_cancel_backend", "pg_terminate_backend"):
            self._signal(function)
            self._wake.clear()
            if self._ended or (self._wake.wait(GRACE_S) and self._ended):
                return
        self._relay.close()

    def _signal(self, function: str) -> None:
        if self._pid is None:
            return self._relay.close()  # it never got as far as a backend: cut the line
        try:
            with psycopg.connect(self._dsn(), autocommit=True, connect_timeout=5) as connection:
                connection.execute(f"SELECT pg_catalog.{function}(%s)", (self._pid,))
        except (psycopg.Error, OSError) as problem:
            LOG.warning("query.watchdog_failed", function=function, problem=type(problem).__name__)
            self._relay.close()
