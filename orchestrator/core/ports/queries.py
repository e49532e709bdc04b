"""One statement on a tenant's own database, as the tenant's role, from outside every container."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from orchestrator.errors import OutsideFailure


class QueryFailed(OutsideFailure):
    """The database could not be reached, or answered what no database says."""

    code = "outside_failure.query"


@dataclass(frozen=True)
class QueryTarget:
    """`sockets` is the pool's directory; `watchdog_dsn` gives the live generation's, asked once the statement stands.

    The password never appears in an error or a log.
    """

    sockets: Path
    port: int
    role: str
    database: str
    password: str = field(repr=False)
    watchdog_dsn: Callable[[], str] = field(repr=False, default=lambda: "")


@dataclass(frozen=True)
class QueryLimits:
    """`rows` and `bytes` are kept at most; `drained_bytes` may be read at most to let the statement finish."""

    rows: int = 1_000
    bytes: int = 1_048_576
    drained_bytes: int = 67_108_864
    time_s: float = 30.0


@dataclass(frozen=True)
class SqlError:
    """What the server said; `position` counts characters of the statement from 1."""

    sqlstate: str
    message: str
    detail: str = ""
    hint: str = ""
    position: int | None = None


@dataclass(frozen=True)
class QueryResult:
    """Values are text as PostgreSQL prints them, None is NULL.

    `kept` says whether the statement's effects were committed: never in a dry run, never when it failed or was
    stopped. `stopped_by` is "time", "bytes", "cancelled" or empty; `row_count` counts all rows, kept here or not.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]
    row_count: int
    truncated: bool
    tag: str
    kept: bool
    dry_run: bool
    duration_ms: int
    stopped_by: str = ""
    error: SqlError | None = None


class Cancelling(Protocol):
    """Handed to a running query: call it from another thread to stop it."""

    def __call__(self) -> None: ...


class Queries(Protocol):
    def run(
        self,
        target: QueryTarget,
        statement: str,
        *,
        dry_run: bool,
        limits: QueryLimits,
        started: Callable[[Cancelling], None] | None = None,
    ) -> QueryResult:
        """Run one statement in a transaction of its own; a dry run always rolls back.

        A watchdog with another role cancels, then terminates, what passes `limits.time_s`. An error of the statement
        is in the result. Raises QueryFailed when the database cannot be reached.
        """
        ...
