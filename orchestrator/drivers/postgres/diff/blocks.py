"""Which heap blocks changed since a checkpoint, as PostgreSQL's WAL summaries tell it (version 17 and newer).

The tenant cannot forge WAL, and the summaries cost kilobytes. They may list too much (hint bits, vacuum), never too
little, as long as they cover the whole way from the origin to the target without a gap.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg import Connection

SUMMARIES_SINCE_VERSION = 170000
MAIN_FORK = 0
_POLL_S = 0.002
_POLL_MAX_S = 0.05


@dataclass
class ChangedBlocks:
    """Of one relation file: single blocks, and `limit`, from which on everything counts as changed."""

    blocks: set[int] = field(default_factory=set)
    limit: int | None = None

    def ranges(self) -> list[tuple[int, int | None]]:
        """Half-open block ranges in order; the last may have no end."""
        below = sorted(block for block in self.blocks if self.limit is None or block < self.limit)
        found: list[tuple[int, int | None]] = []
        start = previous = -2
        for block in below:
            if block != previous + 1:
                if start >= 0:
                    found.append((start, previous + 1))
                start = block
            previous = block
        if start >= 0:
            found.append((start, previous + 1))
        if self.limit is not None:
            found.append((self.limit, None))
        return found

    def count(self, relation_blocks: int) -> int:
        """How many blocks of a relation of this size have to be read."""
        if self.limit is None:
            return len(self.blocks)
        return sum(block < self.limit for block in self.blocks) + max(0, relation_blocks - self.limit)


@dataclass(frozen=True)
class BlockList:
    """Changed blocks by relation file, or `why` there is no such list."""

    files: dict[int, ChangedBlocks] = field(default_factory=dict)
    target_lsn: str | None = None
    why: str = ""

    @property
    def is_complete(self) -> bool:
        return not self.why


def list_blocks(admin: Connection[Any], database_oid: int, origin_lsn: str, *, wait_s: float) -> BlockList:
    """Checkpoint, wait until it is summarized, and list every block changed since `origin_lsn`.

    Call it only after the reading snapshot has been taken: whatever that snapshot sees was then written to the WAL
    before the checkpoint. Waits `wait_s` at most; an incomplete list says why.
    """
    if admin.info.server_version < SUMMARIES_SINCE_VERSION:
        return BlockList(why="this PostgreSQL writes no WAL summaries")
    if _scalar(admin, "SELECT pg_catalog.current_setting('summarize_wal')") != "on":
        return BlockList(why="WAL summaries are switched off")
    admin.execute(b"CHECKPOINT")
    target = str(_scalar(admin, "SELECT redo_lsn FROM pg_catalog.pg_control_checkpoint()"))
    if not _wait_summarized(admin, target, wait_s):
        return BlockList(target_lsn=target, why="the WAL was not summarized in time")
    files = admin.execute(
        b"SELECT tli, start_lsn, end_lsn FROM pg_catalog.pg_available_wal_summaries()"
        b" WHERE end_lsn > %(origin)s::pg_catalog.pg_lsn AND start_lsn < %(target)s::pg_catalog.pg_lsn"
        b" ORDER BY start_lsn, end_lsn",
        {"origin": origin_lsn, "target": target},
    ).fetchall()
    why = coverage_gap([(tli, lsn(start), lsn(end)) for tli, start, end in files], lsn(origin_lsn), lsn(target))
    if why:
        return BlockList(target_lsn=target, why=why)
    found: dict[int, ChangedBlocks] = {}
    for timeline, start, end in files:
        _read_summary(admin, database_oid, (timeline, start, end), found)
    return BlockList(found, target)


def _read_summary(
    admin: Connection[Any], database_oid: int, summary: tuple[Any, ...], found: dict[int, ChangedBlocks]
) -> None:
    rows = admin.execute(
        b"SELECT relfilenode, relblocknumber, is_limit_block FROM pg_catalog.pg_wal_summary_contents(%s, %s, %s)"
        b" WHERE reldatabase = %s AND relforknumber = %s",
        (*summary, database_oid, MAIN_FORK),
    )
    for file, block, is_limit in rows:
        changed = found.setdefault(file, ChangedBlocks())
        if is_limit:
            changed.limit = block if changed.limit is None else min(changed.limit, block)
        else:
            changed.blocks.add(block)


def _wait_summarized(admin: Connection[Any], target: str, wait_s: float) -> bool:
    deadline = time.monotonic() + wait_s
    pause_s = _POLL_S
    while True:
        done = _scalar(
            admin,
            "SELECT summarized_lsn >= %s::pg_catalog.pg_lsn FROM pg_catalog.pg_get_wal_summarizer_state()",
            target,
        )
        if done:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, _POLL_MAX_S)


def coverage_gap(summaries: Sequence[tuple[int, int, int]], origin: int, target: int) -> str:
    """Why summaries (timeline, start, end; ordered by start) do not cover origin to target; empty when they do."""
    if target <= origin:
        return "" if target == origin else "the database is older than its snapshot"
    if not summaries:
        return "there are no WAL summaries for this time"
    if len({timeline for timeline, _, _ in summaries}) != 1:
        return "the WAL summaries span two timelines"
    if summaries[0][1] > origin:
        return "the first WAL summary begins after the snapshot"
    reached = summaries[0][2]
    for _, start, end in summaries[1:]:
        if start > reached:
            return "there is a gap in the WAL summaries"
        reached = max(reached, end)
    return "" if reached >= target else "the WAL summaries end too early"


def lsn(text: str) -> int:
    """16/B374D848 as a number."""
    high, _, low = str(text).partition("/")
    return (int(high, 16) << 32) | int(low, 16)


def _scalar(connection: Connection[Any], query: str, *parameters: object) -> object:
    row = connection.execute(query.encode(), parameters or None).fetchone()
    return None if row is None else row[0]
