"""A query can be stopped by whichever process is asked to, not only by the one that runs it."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from orchestrator.core.places import Places
from orchestrator.core.ports.queries import QueryLimits, QueryResult
from orchestrator.core.tenants import PoolMode, RefreshPolicy, Tenant, TenantState
from orchestrator.parts.query import QueryArguments, QueryPart

NORTH = Tenant(
    "t1", "north", 0, "office", "", TenantState.RUNNING, None, "full", RefreshPolicy.SAVE, PoolMode.TRANSACTION,
    datetime(2031, 5, 4, tzinfo=UTC),
)  # fmt: skip
STOPPED = QueryResult((), (), 0, False, "", False, False, 1, stopped_by="cancelled")


class Endless:
    """A statement that runs until it is cancelled."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()
        self.runs = threading.Event()

    def run(self, *_: Any, started: Any, **__: Any) -> QueryResult:
        started(self.cancelled.set)
        self.runs.set()
        assert self.cancelled.wait(60)
        return STOPPED


def part(queries: Endless, asked: threading.Event) -> QueryPart:
    return QueryPart(
        queries=cast(Any, queries),
        servers=cast(Any, None),
        places=Places(Path("/nowhere")),
        instance="here",
        password=lambda _: "secret",
        live_id=lambda _: "g1",
        is_to_cancel=lambda command_id: command_id == "k1" and asked.is_set(),
    )


def test_word_left_by_another_process_stops_it() -> None:
    queries, asked = Endless(), threading.Event()
    running = part(queries, asked)

    def ask() -> None:
        assert queries.runs.wait(60)
        asked.set()

    threading.Thread(target=ask).start()
    result = running.run(NORTH, "k1", QueryArguments("select 1"), limits=QueryLimits())
    assert result.stopped_by == "cancelled"
    assert not running.cancel("k1")  # it is over, and forgotten


def test_a_control_database_that_is_away_does_not_end_the_listening() -> None:
    queries, asked = Endless(), threading.Event()
    failures: list[int] = []

    def unreachable_at_first(_: str) -> bool:
        if len(failures) < 2:
            failures.append(1)
            raise ConnectionError
        return True

    running = part(queries, asked)
    running.is_to_cancel = unreachable_at_first
    assert running.run(NORTH, "k1", QueryArguments("select 1"), limits=QueryLimits()).stopped_by == "cancelled"
