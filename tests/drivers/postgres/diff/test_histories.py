"""Whatever the tenant does, the difference equals a full reading of both sides."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest

from orchestrator.core.ports.differ import DiffSides, HowCompared
from orchestrator.drivers.postgres.diff.differ import PostgresDiffer
from tests.drivers.postgres.diff.histories import SCHEMA, play
from tests.drivers.postgres.diff.oracle import brute_force, flattened
from tests.support.generations import Server, servers

pytestmark = pytest.mark.server

# More of them, or another course: DIFF_HISTORIES=500 DIFF_SEED=7 pytest tests/drivers/postgres/diff
HISTORIES = int(os.environ.get("DIFF_HISTORIES", "16"))
SEED = int(os.environ.get("DIFF_SEED", "1"))
CHAPTERS = 3
STEPS = 6
CRASH_EVERY = 5


@dataclass
class Stage:
    base: Server
    live: Server
    origin_lsn: str

    def sides(self, database: str, *, blocks: bool = True) -> DiffSides:
        return DiffSides(
            snapshot_id=f"s-{database}",
            live_reader=self.live.dsn(database, "reader"),
            base_reader=self.base.dsn(database, "reader"),
            live_admin=self.live.dsn(database) if blocks else None,
            origin_lsn=self.origin_lsn,
        )


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """A base with one database per history, and one generation of it."""
    with servers() as base:
        base.start()
        with psycopg.connect(base.dsn(), autocommit=True) as connection:
            connection.execute("CREATE DATABASE origin")
        with psycopg.connect(base.dsn("origin"), autocommit=True) as connection:
            connection.execute(SCHEMA.encode())
            connection.execute("VACUUM (FREEZE, ANALYZE)")
        with psycopg.connect(base.dsn(), autocommit=True) as connection:
            for number in range(HISTORIES):
                connection.execute(f"CREATE DATABASE h{number} TEMPLATE origin STRATEGY file_copy".encode())
        base.stop()
        live = base.copy("live")
        origin_lsn = base.checkpoint_lsn()
        base.start()
        live.start()
        yield Stage(base, live, origin_lsn)


def test_random_histories_equal_a_full_reading_of_both_sides(stage: Stage) -> None:
    differ = PostgresDiffer()
    by_blocks = 0
    chapters = ((number, chapter) for number in range(HISTORIES) for chapter in range(CHAPTERS))
    for count, (number, chapter) in enumerate(chapters, 1):
        draw = random.Random(f"{SEED}-{number}-{chapter}")
        database = f"h{number}"
        with psycopg.connect(stage.live.dsn(database), autocommit=True) as connection:
            told = play(connection, draw, STEPS)
        if count % CRASH_EVERY == 0:
            stage.live.stop(crash=True)
            stage.live.start()
        result = differ.compare(stage.sides(database))
        expected = brute_force(stage.base.dsn(database), stage.live.dsn(database))
        assert flattened(result.changeset) == expected, f"seed {SEED}, history {number}, chapter {chapter}: {told}"
        by_blocks += sum(cost.how is HowCompared.BLOCKS for cost in result.costs)
    assert by_blocks > HISTORIES * CHAPTERS, "the histories hardly used the changed blocks"
