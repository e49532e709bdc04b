"""What a difference costs: `diff_10_in_10m_s`, `diff_size_factor`, `diff_100k_s`, `diff_100k_scattered_s` and
`diff_100k_memory_bytes`, against the full comparison of the same table in the same run.

The environment says how much:
    DIFF_ROWS=1000000,3000000,10000000   sizes of the tables, each in a database of its own; the last counts
    DIFF_CHANGES=100000                  size of the large changes; 0 leaves them out
    DIFF_RUNS=9                          differences of ten rows that are timed, for each size
    DIFF_PLACE=/tmp                      where the servers' files lie; they are deleted at the end
Three times the data must fit there: 7 GB at these sizes.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg
from psycopg import sql

from benchmarks.numbers import emit, say
from orchestrator.core.ports.differ import DiffLimits, DiffResult, DiffSides, HowCompared
from orchestrator.drivers.postgres.diff.differ import PostgresDiffer
from tests.support.generations import Server, servers

SIZES = sorted({int(size) for size in os.environ.get("DIFF_ROWS", "1000000,3000000,10000000").split(",")})
CHANGES = int(os.environ.get("DIFF_CHANGES", "100000"))
RUNS = int(os.environ.get("DIFF_RUNS", "9"))
PLACE = os.environ.get("DIFF_PLACE", "/tmp")
ROWS = SIZES[-1]
FEW = 10
LARGE_RUNS = 3
# Filled without WAL, as a snapshot's builder is; what is measured afterwards runs as a generation does.
FILLING = {"wal_level": "minimal", "max_wal_senders": "0", "summarize_wal": "off", "maintenance_work_mem": "512MB"}
MEASURED = {"shared_buffers": "256MB", "max_wal_size": "4GB"}


def _short(rows: int) -> str:
    return f"{rows // 10**6}m" if rows % 10**6 == 0 else f"{rows // 1000}k" if rows % 1000 == 0 else str(rows)


def _database(rows: int) -> str:
    return f"d{rows}"


def _fill(server: Server, rows: int) -> None:
    """One table of `rows` accounts, as pgbench makes them, in a database of its own."""
    name = _database(rows)
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    with psycopg.connect(server.dsn(name)) as connection:
        connection.execute("CREATE TABLE accounts (aid int NOT NULL, bid int, balance int, filler char(84))")
        connection.execute(f"INSERT INTO accounts SELECT i, 1, 0, '' FROM generate_series(1, {rows}) i".encode())
        connection.execute("ALTER TABLE accounts ADD PRIMARY KEY (aid)")
        connection.commit()
        connection.autocommit = True
        connection.execute("VACUUM (FREEZE, ANALYZE) accounts")
    say(f"  filled {rows:,} rows")


def _sides(base: Server, live: Server, origin_lsn: str, rows: int) -> DiffSides:
    name = _database(rows)
    return DiffSides("bench", live.dsn(name, "reader"), base.dsn(name, "reader"), live.dsn(name), origin_lsn)


def _change(live: Server, rows: int, condition: str) -> None:
    with psycopg.connect(live.dsn(_database(rows)), autocommit=True) as connection:
        connection.execute(f"UPDATE accounts SET balance = balance + 1 WHERE {condition}".encode())


def _few(base: Server, live: Server, origin_lsn: str) -> None:
    """Ten rows all over each table, changed anew before every difference."""
    medians: dict[int, float] = {}
    values: dict[int, list[float]] = {}
    differ = PostgresDiffer()
    for rows in SIZES:
        sides = _sides(base, live, origin_lsn, rows)
        keys = ", ".join(str(5 + number * (rows // FEW)) for number in range(FEW))
        values[rows] = []
        for number in range(RUNS + 1):
            _change(live, rows, f"aid IN ({keys})")
            result = differ.compare(sides)
            _check(result, FEW, HowCompared.BLOCKS)
            if number:  # the first one reads the base's catalog and writes what the start left dirty
                values[rows].append(result.duration_s)
        medians[rows] = statistics.median(values[rows])
    say("the full comparison")
    full = differ.compare(replace(_sides(base, live, origin_lsn, ROWS), live_admin=None))
    _check(full, FEW, HowCompared.FULL)
    for rows in SIZES:
        baseline = full.duration_s if rows == ROWS else None
        emit(f"diff_{FEW}_in_{_short(rows)}_s", values[rows], "s", baseline=baseline, rows=rows)
    if len(medians) > 1:
        spread = max(medians.values()) / min(medians.values())
        shown = {_short(rows): round(median, 4) for rows, median in medians.items()}
        emit("diff_size_factor", [spread], "ratio", medians_s=shown)


def _check(result: DiffResult, changes: int, how: HowCompared) -> None:
    found = {cost.how for cost in result.costs}
    if len(result.changeset) != changes or found != {how}:
        raise SystemExit(f"found {len(result.changeset)} changes instead of {changes}, compared {sorted(found)}")


def _many(base: Server, live: Server, origin_lsn: str, *, scattered: bool) -> None:
    """Each difference in a process of its own, whose memory is all its own."""
    start = ROWS // 2 + 10  # none of the ten
    condition = f"aid % {ROWS // CHANGES} = 3" if scattered else f"aid BETWEEN {start} AND {start + CHANGES - 1}"
    _change(live, ROWS, condition)
    sides = _sides(base, live, origin_lsn, ROWS)
    measured = [_in_own_process(sides, CHANGES + (0 if scattered else FEW)) for _ in range(LARGE_RUNS)]
    name = f"diff_{_short(CHANGES)}_scattered_s" if scattered else f"diff_{_short(CHANGES)}_s"
    emit(name, [seconds for seconds, _, _ in measured], "s", rows=ROWS, changes=CHANGES, how=measured[0][2])
    if scattered:
        memory = [memory_bytes for _, memory_bytes, _ in measured]
        emit(f"diff_{_short(CHANGES)}_memory_bytes", memory, "bytes", rows=ROWS, changes=CHANGES)


def _in_own_process(sides: DiffSides, changes: int) -> tuple[float, float, str]:
    """Seconds, the process's largest resident size, how the table was compared."""
    arguments = [sides.live_reader, sides.base_reader, sides.live_admin, sides.origin_lsn, changes]
    done = subprocess.run(
        [sys.executable, "-c", "from benchmarks.diff import child; child()", *map(str, arguments)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    return float(done[0]), float(done[1]), done[2]


def child() -> None:
    """Compare once; the arguments are the sides and how many changes there are."""
    live, base, admin, origin, changes = sys.argv[1:6]
    sides = DiffSides("bench", live, base, admin, origin)
    result = PostgresDiffer().compare(sides, DiffLimits(rows_max=max(DiffLimits.rows_max, int(changes))))
    if len(result.changeset) != int(changes):
        raise SystemExit(f"found {len(result.changeset)} changes instead of {changes}")
    memory_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    how = sorted({cost.how for cost in result.costs})
    sys.stdout.write(f"{result.duration_s} {memory_bytes} {'+'.join(how)}\n")


def _checkpoint(server: Server) -> None:
    """So that stopping has little left to write."""
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute("CHECKPOINT")


def main() -> None:
    with servers(PLACE, **MEASURED) as base:
        started = time.monotonic()
        base.settings = {**MEASURED, **FILLING}
        base.start()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda rows: _fill(base, rows), reversed(SIZES)))
        _checkpoint(base)
        base.stop()
        base.settings = MEASURED
        base.start()  # as a snapshot is sealed: once more, with the settings its generations have
        _checkpoint(base)
        base.stop()
        origin_lsn = base.checkpoint_lsn()
        lives = [base.copy(name) for name in (("few", "scattered") if CHANGES else ("few",))]
        say(f"  ready after {time.monotonic() - started:.0f} s")
        base.start()
        for number, live in enumerate(lives):
            live.start()
            if number:
                _many(base, live, origin_lsn, scattered=True)
            else:
                _few(base, live, origin_lsn)
                if CHANGES:
                    _many(base, live, origin_lsn, scattered=False)
            live.stop()


if __name__ == "__main__":
    main()
