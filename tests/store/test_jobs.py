"""Jobs are asked for once, claimed once, and outlive the worker that had them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text

from orchestrator.core.jobs import LINES_MAX, JobFinished, JobNotFound, JobState, LeaseLost, backoff_s
from orchestrator.store import jobs
from orchestrator.store.session import connect
from orchestrator.store.tables.jobs import JOB_LINES, JOBS
from tests.support.cluster import Cluster


@pytest.fixture
def engine(cluster: Cluster) -> Iterator[Engine]:
    with cluster.database() as name:
        engine = connect(cluster.url(name))
        JOBS.metadata.create_all(engine, tables=[JOBS, JOB_LINES])
        yield engine
        engine.dispose()


def _ask(engine: Engine, kind: str = "refresh", **rest: object) -> jobs.Job:
    return jobs.ask(engine, kind, requested_by="anna", **rest)  # type: ignore[arg-type]


def _lapse(engine: Engine, job_id: str) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE jobs SET lease_until = now() - interval '1 second' WHERE id = :id"), {"id": job_id}
        )


def test_a_job_is_claimed_once_however_many_ask(engine: Engine) -> None:
    wanted = {_ask(engine, tenant_id=f"t{n}").id for n in range(12)}
    with ThreadPoolExecutor(6) as pool:
        claimed = list(pool.map(lambda n: jobs.claim(engine, f"w{n}", ["refresh"]), range(24)))
    ids = [job.id for job in claimed if job is not None]
    assert sorted(ids) == sorted(wanted)


def test_a_key_is_used_once_for_ever(engine: Engine) -> None:
    with engine.begin() as connection:
        first, is_new = jobs.add(connection, "refresh", requested_by="scheduler", key="slot:1")
    assert is_new
    job = jobs.claim(engine, "w", ["refresh"])
    assert job is not None and jobs.finish(engine, job, {})
    with engine.begin() as connection:
        second, is_new = jobs.add(connection, "refresh", requested_by="scheduler", key="slot:1")
    assert not is_new and second.id == first.id and second.state is JobState.DONE


def test_asking_for_what_already_waits_returns_it(engine: Engine) -> None:
    first = _ask(engine, tenant_id="t1")
    assert _ask(engine, tenant_id="t1").id == first.id
    assert _ask(engine, tenant_id="t2").id != first.id
    assert _ask(engine, tenant_id="t1", arguments={"undo": True}).id != first.id
    jobs.claim(engine, "w", ["refresh"])
    assert _ask(engine, tenant_id="t1").id != first.id


def test_one_tenants_jobs_run_one_after_the_other_and_hold_nobody_up(engine: Engine) -> None:
    slow = _ask(engine, tenant_id="t1")
    _ask(engine, "publish", tenant_id="t1")
    other = _ask(engine, tenant_id="t2")
    kinds = ["refresh", "publish"]
    assert jobs.claim(engine, "w", kinds) == jobs.get(engine, slow.id)
    taken = jobs.claim(engine, "w", kinds)
    assert taken is not None and taken.id == other.id
    assert jobs.claim(engine, "w", kinds) is None


def test_only_kinds_asked_for_are_claimed_in_order_of_priority(engine: Engine) -> None:
    _ask(engine, "snapshot")
    later = _ask(engine, "refresh", tenant_id="t1")
    urgent = _ask(engine, "refresh", tenant_id="t2", priority=1)
    first, second = jobs.claim(engine, "w", ["refresh"]), jobs.claim(engine, "w", ["refresh"])
    assert first is not None and second is not None
    assert [first.id, second.id] == [urgent.id, later.id]
    assert jobs.claim(engine, "w", ["refresh"]) is None


def test_a_failed_attempt_waits_longer_each_time_and_ends_in_failure(engine: Engine) -> None:
    asked = _ask(engine, attempts_max=2)
    job = jobs.claim(engine, "w", ["refresh"])
    assert job is not None
    assert jobs.fail(engine, job, code="outside_failure.engine", message="no engine") is JobState.QUEUED
    assert jobs.claim(engine, "w", ["refresh"]) is None, "it is not tried again at once"
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET not_before = now()"))
    job = jobs.claim(engine, "w", ["refresh"])
    assert job is not None and job.attempts == 2
    assert jobs.fail(engine, job, code="outside_failure.engine", message="no engine") is JobState.FAILED
    assert jobs.get(engine, asked.id).error == "no engine"
    assert [backoff_s(n) for n in (1, 2, 3, 20)] == [10, 20, 40, 300]


def test_being_busy_does_not_count_as_an_attempt(engine: Engine) -> None:
    asked = _ask(engine)
    for _ in range(5):
        job = jobs.claim(engine, "w", ["refresh"])
        assert job is not None
        jobs.put_back(engine, job, message="busy", delay_s=0)
    found = jobs.get(engine, asked.id)
    assert (found.attempts, found.busy, found.state) == (0, 5, JobState.QUEUED)


def test_a_living_worker_keeps_its_job_when_the_clock_jumps(engine: Engine) -> None:
    asked = _ask(engine)
    with jobs.alive(engine, "w1") as is_alive:
        assert is_alive
        jobs.claim(engine, "w1", ["refresh"])
        _lapse(engine, asked.id)
        assert jobs.reclaim(engine) == []
    assert [job.id for job in jobs.reclaim(engine)] == [asked.id]
    assert jobs.get(engine, asked.id).state is JobState.QUEUED


def test_a_dead_worker_with_a_fresh_lease_is_left_for_a_moment(engine: Engine) -> None:
    asked = _ask(engine)
    jobs.claim(engine, "w1", ["refresh"])
    assert jobs.reclaim(engine) == []
    with engine.begin() as connection:  # a clock set back leaves a lease far in the future
        connection.execute(text("UPDATE jobs SET lease_until = now() + interval '1 day'"))
    assert [job.id for job in jobs.reclaim(engine)] == [asked.id]


def test_who_lost_its_job_can_no_longer_end_it(engine: Engine) -> None:
    asked = _ask(engine)
    old = jobs.claim(engine, "w1", ["refresh"])
    assert old is not None
    _lapse(engine, asked.id)
    jobs.reclaim(engine)
    with engine.begin() as connection:
        connection.execute(text("UPDATE jobs SET not_before = now()"))
    new = jobs.claim(engine, "w2", ["refresh"])
    assert new is not None
    assert jobs.finish(engine, old, {"by": "w1"}) is False
    with pytest.raises(LeaseLost):
        jobs.heartbeat(engine, old)
    assert jobs.finish(engine, new, {"by": "w2"})
    assert jobs.get(engine, asked.id).result == {"by": "w2"}


def test_a_waiting_job_is_cancelled_at_once_and_a_running_one_is_asked(engine: Engine) -> None:
    waiting = _ask(engine, tenant_id="t1")
    assert jobs.cancel(engine, waiting.id).state is JobState.CANCELLED
    with pytest.raises(JobFinished):
        jobs.cancel(engine, waiting.id)
    running = _ask(engine, tenant_id="t2")
    job = jobs.claim(engine, "w", ["refresh"])
    assert job is not None and job.id == running.id
    assert jobs.heartbeat(engine, job) is False
    assert jobs.cancel(engine, running.id).state is JobState.RUNNING
    assert jobs.heartbeat(engine, job) is True
    with pytest.raises(JobNotFound):
        jobs.cancel(engine, "j-unknown")


def test_lines_are_kept_in_order_and_bounded(engine: Engine) -> None:
    job = _ask(engine)
    for n in range(1, 6):
        jobs.add_line(engine, job.id, f"line {n}")
    assert [line.text for line in jobs.lines(engine, job.id, after=3)] == ["line 4", "line 5"]
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO job_lines (job_id, number, text) SELECT :id, n, 'x' FROM generate_series(6, :max) n"),
            {"id": job.id, "max": LINES_MAX - 1},
        )
    for _ in range(3):
        jobs.add_line(engine, job.id, "too much")
    shown = jobs.lines(engine, job.id, after=LINES_MAX - 2, limit=10)
    assert [line.number for line in shown] == [LINES_MAX - 1, LINES_MAX]
    assert "dropped" in shown[-1].text


def test_old_jobs_are_forgotten_with_their_lines(engine: Engine) -> None:
    old, kept = _ask(engine, tenant_id="t1"), _ask(engine, tenant_id="t2")
    for _ in range(2):
        job = jobs.claim(engine, "w", ["refresh"])
        assert job is not None
        jobs.add_line(engine, job.id, "done")
        jobs.finish(engine, job, None)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE jobs SET finished_at = now() - interval '40 days' WHERE id = :id"), {"id": old.id}
        )
    assert jobs.prune(engine, keep_days=30) == 1
    assert [job.id for job in jobs.find(engine)] == [kept.id]
    assert jobs.counts(engine) == {("refresh", "done"): 1}
    assert jobs.lines(engine, old.id) == []
