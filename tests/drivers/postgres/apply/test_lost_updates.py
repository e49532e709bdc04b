"""Writers change production all the while: a promote never overwrites what they wrote."""

from __future__ import annotations

import random
import threading

import psycopg

from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.changeset.rows import RowChange, RowKind
from orchestrator.core.changeset.shape import TableName
from orchestrator.core.ports.production import ProductionBusy, PromotionConflicted
from orchestrator.core.promotion.order import WriteLimits
from orchestrator.drivers.postgres.apply.production import PostgresProduction
from tests.support.cluster import Cluster
from tests.support.proposals import order_for, read_all

ROWS, HOT, WRITERS, PROMOTES, EACH = 120, 90, 16, 16, 8
T = TableName("public", "t")


def test_no_update_of_a_writer_is_lost(cluster: Cluster) -> None:
    """Every writer adds one to a row's count; a promote adds a thousand on the count it has seen."""
    with cluster.database() as name:
        dsn = cluster.dsn(name)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL)")
            connection.execute(f"INSERT INTO t SELECT i, 0 FROM generate_series(1, {ROWS}) i".encode())
        added = [0] * (ROWS + 1)
        mutex, stop = threading.Lock(), threading.Event()

        def write(seed: int) -> None:
            dice = random.Random(seed)
            with psycopg.connect(dsn, autocommit=True) as connection:
                while not stop.is_set():
                    row = dice.randint(1, HOT)
                    connection.execute("UPDATE t SET n = n + 1 WHERE id = %s", [row])
                    with mutex:
                        added[row] += 1
                    stop.wait(0.02)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
        for thread in threads:
            thread.start()
        try:
            succeeded = _promote(dsn)
        finally:
            stop.set()
            for thread in threads:
                thread.join(60)
        with psycopg.connect(dsn) as connection:
            counts = dict(connection.execute("SELECT id, n FROM t").fetchall())
    assert {row: count for row, count in counts.items() if count != added[row] + 1000 * succeeded.get(row, 0)} == {}
    assert any(row > HOT for row in succeeded), "rows nobody writes to are promoted all the while"


def _promote(dsn: str) -> dict[int, int]:
    dice, api, done = random.Random(7), PostgresProduction(dsn), dict[int, int]()
    shapes = read_all(dsn)[0]
    for number in range(PROMOTES):
        seen = read_all(dsn)[1][T]
        rows_meant = range(1, HOT + 1) if number % 2 else range(HOT + 1, ROWS + 1)
        chosen = dice.sample(rows_meant, EACH)
        rows = []
        for row in chosen:
            old = seen[(str(row),)]
            rows.append(RowChange(T, RowKind.UPDATE, (str(row),), old, {**old, "n": str(int(str(old["n"])) + 1000)}))
        try:
            api.apply(order_for(Changeset.build("s1", shapes, rows), limits=WriteLimits(lock_tries=50)))
        except (PromotionConflicted, ProductionBusy):
            continue
        for row in chosen:
            done[row] = done.get(row, 0) + 1
    return done
