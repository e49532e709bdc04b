"""What a difference costs: `diff_10_in_10m_s`, `diff_100k_s`, `diff_100k_scattered_s`, `diff_100k_memory_bytes`.

The alternative in the same run is the full comparison of the same table. DIFF_ROWS (10,000,000) sizes the large
table, DIFF_CHANGES (100,000) the large change, DIFF_PLACE where the servers' files lie (/tmp).
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from dataclasses import replace

import psycopg

from benchmarks.numbers import emit, say
from orchestrator.core.ports.differ import DiffSides, HowCompared
from orchestrator.drivers.postgres.diff.differ import PostgresDiffer
from tests.support.generations import Server, servers

ROWS = int(os.environ.get("DIFF_ROWS", "10000000"))
CHANGES = int(os.environ.get("DIFF_CHANGES", "100000"))
PLACE = os.environ.get("DIFF_PLACE", "/tmp")
SIZES = tuple(dict.fromkeys((ROWS // 10, ROWS * 3 // 10, ROWS)))
RUNS = 7


def _table(rows: int) -> str:
    return f"accounts_{rows}"


def _fill(server: Server) -> None:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        for rows in SIZES:
            say(f"filling {rows:,} rows")
            name = _table(rows)
            connection.execute(
                f"CREATE TABLE {name} (aid int PRIMARY KEY, bid int, balance int, filler char(84))".encode()
            )
            connection.execute(f"INSERT INTO {name} SELECT i, 1, 0, '' FROM generate_series(1, {rows}) i".encode())
        connection.execute(b"VACUUM (FREEZE, ANALYZE)")


def _sides(base: Server, live: Server, origin_lsn: str) -> DiffSides:
    return DiffSides("bench", live.dsn(user="reader"), base.dsn(user="reader"), live.dsn(), origin_lsn)


def _run(live: Server, statement: str) -> None:
    with psycopg.connect(live.dsn(), autocommit=True) as connection:
        connection.execute(statement.encode())


def _timed(sides: DiffSides, runs: int) -> list[float]:
    differ = PostgresDiffer()
    differ.compare(sides)  # the base's catalog is read once, and the first checkpoint writes what the load left
    found = []
    for _ in range(runs):
        started = time.perf_counter()
        differ.compare(sides)
        found.append(time.perf_counter() - started)
    return found


def _ten(base: Server, live: Server, origin_lsn: str) -> None:
    sides = _sides(base, live, origin_lsn)
    for rows in SIZES:
        _run(live, f"UPDATE {_table(rows)} SET balance = balance + 1 WHERE aid % {rows // 10} = 5")
        values = _timed(sides, RUNS)
        if rows == ROWS:
            say("the full comparison")
            started = time.perf_counter()
            PostgresDiffer().compare(replace(sides, live_admin=None))
            full = (time.perf_counter() - started) * ROWS / sum(SIZES)
            emit("diff_10_in_10m_s", values, "s", baseline=full, rows=rows)
        else:
            emit(f"diff_10_in_{rows}_s", values, "s", rows=rows)


def _many(base: Server, live: Server, origin_lsn: str, name: str, condition: str) -> None:
    _run(live, f"UPDATE {_table(ROWS)} SET balance = balance + 1 WHERE {condition}")
    sides = _sides(base, live, origin_lsn)
    measured = [_in_own_process(sides) for _ in range(3)]
    emit(name, [seconds for seconds, _, _ in measured], "s", rows=ROWS, changes=CHANGES, how=measured[0][2])
    if name == "diff_100k_scattered_s":
        emit("diff_100k_memory_bytes", [memory for _, memory, _ in measured], "bytes", rows=ROWS, changes=CHANGES)


def _in_own_process(sides: DiffSides) -> tuple[float, float, str]:
    """Seconds, the process's largest resident size, how the table was compared."""
    done = subprocess.run(
        [sys.executable, "-c", "from benchmarks.diff import child; child()", *map(str, _arguments(sides))],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    return float(done[0]), float(done[1]), done[2]


def _arguments(sides: DiffSides) -> list[str | None]:
    return [sides.live_reader, sides.base_reader, sides.live_admin, sides.origin_lsn]


def child() -> None:
    """Compare once; the arguments are the sides."""
    live, base, admin, origin = sys.argv[1:5]
    result = PostgresDiffer().compare(DiffSides("bench", live, base, admin, origin))
    how = {cost.how for cost in result.costs} - {HowCompared.UNCHANGED}
    if len(result.changeset) != CHANGES:
        raise SystemExit(f"found {len(result.changeset)} changes instead of {CHANGES}")
    memory_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sys.stdout.write(f"{result.duration_s} {memory_bytes} {'+'.join(sorted(how))}\n")


def main() -> None:
    with servers(PLACE, shared_buffers="256MB", max_wal_size="4GB") as base:
        base.start()
        _fill(base)
        base.stop()
        origin_lsn = base.checkpoint_lsn()
        lives = [base.copy(name) for name in ("ten", "contiguous", "scattered")]
        base.start()
        for live, (name, condition) in zip(
            lives,
            (
                ("diff_10_in_10m_s", ""),
                ("diff_100k_s", f"aid BETWEEN {ROWS // 2} AND {ROWS // 2 + CHANGES - 1}"),
                ("diff_100k_scattered_s", f"aid % {ROWS // CHANGES} = 3"),
            ),
            strict=True,
        ):
            live.start()
            if condition:
                _many(base, live, origin_lsn, name, condition)
            else:
                _ten(base, live, origin_lsn)
            live.stop()


if __name__ == "__main__":
    main()
