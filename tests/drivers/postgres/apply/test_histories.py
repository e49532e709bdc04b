"""Random histories: whatever was done in the sandbox and in production, the result is the oracle's or nothing.

`PROMOTE_SEED` and `PROMOTE_HISTORIES` move and widen the range.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import psycopg
import pytest

from orchestrator.core.ports.production import PromotionConflicted
from orchestrator.drivers.postgres.apply.production import PostgresProduction
from tests.drivers.postgres.apply.histories import History, judge, make_history, run, with_assigned
from tests.support.cluster import Cluster
from tests.support.proposals import compare_in_full, order_for, read_all

FIRST_SEED = int(os.environ.get("PROMOTE_SEED", "1"))
HISTORIES = int(os.environ.get("PROMOTE_HISTORIES", "24"))

# The order of two swapped values that may not be NULL cannot be found by anybody.
EXCUSED = {"unique_cycle"}


@pytest.fixture
def three(cluster: Cluster) -> Iterator[tuple[str, str, str]]:
    """Base, sandbox and production."""
    with cluster.database() as base, cluster.database() as sandbox, cluster.database() as production:
        yield cluster.dsn(base), cluster.dsn(sandbox), cluster.dsn(production)


def reset(dsn: str, ddl: list[str]) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        connection.execute("; ".join(ddl).encode())


def state_of(dsn: str) -> dict[object, list[dict[str, object]]]:
    return {name: sorted(rows.values(), key=repr) for name, rows in read_all(dsn)[1].items()}


def check(seed: int, history: History, base: str, sandbox: str, production: str) -> str:
    for dsn in (base, sandbox, production):
        reset(dsn, history.ddl)
    run(sandbox, history.sandbox)
    run(production, history.production)
    changeset = compare_in_full(base, sandbox)
    if changeset.is_empty:
        return "empty"
    now = read_all(production)[1]
    verdict = judge(changeset, now, _kept_by_others(base))
    before = {name: sorted(rows.values(), key=repr) for name, rows in now.items()}
    told = "\n".join(
        [f"seed {seed}", *history.ddl, "-- sandbox", *history.sandbox, "-- production", *history.production]
    )
    try:
        applied = PostgresProduction(production).apply(order_for(changeset))
    except PromotionConflicted as conflict:
        findings = conflict.findings
    else:
        findings = ()
    if findings:
        assert state_of(production) == before, f"written although refused: {told}"
        if verdict.refused:
            return "refused"
        assert {finding.code for finding in findings} <= EXCUSED, f"falsely refused {findings}: {told}"
        return "excused"
    assert not verdict.refused, f"falsely accepted although {verdict.refused}: {told}"
    assert state_of(production) == with_assigned(verdict.state, applied.assigned), f"wrong state: {told}"
    if not applied.inverse.is_empty:
        PostgresProduction(production).apply(order_for(applied.inverse))
        assert state_of(production) == before, f"the inverse restores something else: {told}"
    return "applied"


def _kept_by_others(dsn: str) -> frozenset[str]:
    """Foreign keys that are content when another row takes over the value they refer to."""
    return frozenset(
        key.name
        for shape in read_all(dsn)[0].values()
        for key in shape.foreign_keys
        if key.on_delete == "no action" and key.on_update == "no action"
    )


def test_every_history_ends_as_the_oracle_says(three: tuple[str, str, str]) -> None:
    outcomes: dict[str, int] = {}
    for seed in range(FIRST_SEED, FIRST_SEED + HISTORIES):
        outcome = check(seed, make_history(seed), *three)
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert outcomes.get("applied", 0) > HISTORIES // 10, outcomes
    assert outcomes.get("refused", 0) > HISTORIES // 20, outcomes
