"""One leader ticks, ticks may be lost or doubled, and every slot is decided once with its reason."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from orchestrator.core.jobs import JobContext, JobState
from orchestrator.core.refresh import PostponedAlready, PostponeLimit
from orchestrator.core.schedule import InvalidSchedule, Schedule
from orchestrator.errors import InvalidInput, OutsideFailure
from orchestrator.scheduler.leader import Leadership
from orchestrator.scheduler.service import Scheduler
from orchestrator.scheduler.ticks import Target, tick
from orchestrator.scheduler.worker import Worker
from orchestrator.store import jobs, refreshes, slots
from orchestrator.store.session import TenantBusy, connect
from orchestrator.store.tables.jobs import JOB_LINES, JOBS
from orchestrator.store.tables.refreshes import POSTPONEMENTS, REFRESHES, SLOTS
from orchestrator.store.tables.samples import LEADERS
from tests.support.cluster import Cluster

WAIT_S = 60.0
HOURLY = Schedule.model_validate({"refresh": {"every": "1h"}, "snapshot": {"every": "1h"}})
TENANT = Target("refresh", tenant_id="t1", tenant_name="north")


@pytest.fixture
def engine(cluster: Cluster) -> Iterator[Engine]:
    with cluster.database() as name:
        engine = connect(cluster.url(name))
        JOBS.metadata.create_all(engine, tables=[JOBS, JOB_LINES, REFRESHES, POSTPONEMENTS, SLOTS, LEADERS])
        yield engine
        engine.dispose()


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def _forget_slots(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM slots"))


def test_a_doubled_tick_asks_for_one_job(engine: Engine) -> None:
    results: list[int] = []
    barrier = threading.Barrier(6)

    def one() -> None:
        barrier.wait(WAIT_S)
        results.append(len(tick(engine, HOURLY, [TENANT, Target("snapshot")])))

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    # The hour may turn while this runs: then there is a second slot, still one job for each.
    with engine.connect() as connection:
        keys, decided, asked = connection.execute(
            text("SELECT (SELECT count(DISTINCT key) FROM slots), (SELECT count(*) FROM slots), count(*) FROM jobs")
        ).one()
    assert keys == decided == asked == sum(results)
    assert asked in (2, 3, 4)


def test_after_a_long_sleep_one_run_makes_up_for_all_missed_ones(engine: Engine) -> None:
    minutely = Schedule.model_validate({"refresh": {"every": "1m"}})
    first = tick(engine, minutely, [TENANT])
    with engine.begin() as connection:  # as if the last tick had been a day ago
        connection.execute(text("UPDATE slots SET key = key || '-before', due_at = due_at - interval '1 day'"))
        connection.execute(text("UPDATE jobs SET key = key || '-before'"))
    assert len(first) == 1
    assert len(tick(engine, minutely, [TENANT])) == 1


def test_a_clock_set_back_repeats_nothing(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    real = slots.now(engine)
    moments = iter([real, real + timedelta(hours=30), real, real + timedelta(hours=30)])
    monkeypatch.setattr(slots, "now", lambda _: next(moments))
    assert [len(tick(engine, HOURLY, [TENANT])) for _ in range(4)] == [1, 1, 0, 0]


def test_what_was_done_by_hand_since_is_not_done_again(engine: Engine) -> None:
    fresh = Target("refresh", tenant_id="t1", tenant_name="north", fresh_since=slots.now(engine) + timedelta(days=1))
    (decided,) = tick(engine, HOURLY, [fresh])
    assert (decided.outcome, decided.reason, decided.job_id) == ("skipped", "done already since it came due", None)


def test_a_hindrance_is_a_reason_not_a_job(engine: Engine) -> None:
    stopped = Target("refresh", tenant_id="t1", tenant_name="north", hindrance="the tenant is stopped")
    (decided,) = tick(engine, HOURLY, [stopped])
    assert (decided.outcome, decided.reason) == ("skipped", "the tenant is stopped")
    found = slots.last(engine, "refresh", "t1")
    assert found is not None and found.reason == "the tenant is stopped"


def test_one_refresh_is_put_off_once_and_not_twice_in_a_row(engine: Engine) -> None:
    refreshes.postpone(engine, "t1", requested_by="anna", reason="month's end", in_a_row_max=1)
    with pytest.raises(PostponedAlready):
        refreshes.postpone(engine, "t1", requested_by="anna", in_a_row_max=1)
    (decided,) = tick(engine, HOURLY, [TENANT])
    assert (decided.outcome, decided.reason) == ("postponed", "postponed by anna")
    assert refreshes.postponement(engine, "t1") is None
    with pytest.raises(PostponeLimit):
        refreshes.postpone(engine, "t1", requested_by="anna", in_a_row_max=1)
    _forget_slots(engine)
    refreshes.postpone(engine, "t1", requested_by="anna", in_a_row_max=1)
    assert refreshes.keep_date(engine, "t1")
    (decided,) = tick(engine, HOURLY, [TENANT])
    assert decided.outcome == "run"
    refreshes.postpone(engine, "t1", requested_by="anna", in_a_row_max=1)


def test_a_postponement_counts_for_the_systems_cron_too(engine: Engine) -> None:
    refreshes.postpone(engine, "t1", requested_by="anna", in_a_row_max=1)
    assert slots.use_postponement(engine, "refresh", "t1") == "anna"
    with pytest.raises(PostponeLimit):
        refreshes.postpone(engine, "t1", requested_by="anna", in_a_row_max=1)
    assert slots.use_postponement(engine, "refresh", "t1") is None
    refreshes.postpone(engine, "t1", requested_by="anna", in_a_row_max=1)
    found = slots.last(engine, "refresh", "t1")
    assert found is not None and (found.outcome, found.reason) == ("run", "scheduled")


def test_a_target_no_schedule_applies_to_is_an_error(engine: Engine) -> None:
    with pytest.raises(ValueError, match="no schedule"):
        tick(engine, HOURLY, [Target("refresh")])


def test_there_is_one_leader_and_a_lost_connection_is_a_lost_lead(engine: Engine) -> None:
    first, second = Leadership(engine), Leadership(engine)
    assert first.is_held() and first.is_held()
    assert not second.is_held()
    with engine.begin() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND database ="
                " (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
        )
    _until(second.is_held)
    assert not first.is_held()
    second.release()
    assert first.is_held()
    first.release()


def _worker(engine: Engine, **handlers: Callable[[JobContext], Mapping[str, object] | None]) -> Worker:
    return Worker(engine, handlers, concurrency=3, poll_s=0.05, lease_s=2.0)


def test_a_worker_does_jobs_and_remembers_progress_lines_and_result(engine: Engine) -> None:
    def refresh(context: JobContext) -> Mapping[str, object]:
        context.progress(0.5, "half way")
        context.line("cloned")
        return {"generation": "g1"}

    job = jobs.ask(engine, "refresh", requested_by="anna", tenant_id="t1")
    worker = _worker(engine, refresh=refresh)
    worker.start()
    try:
        _until(lambda: not jobs.get(engine, job.id).state.is_open)
    finally:
        worker.stop()
    done = jobs.get(engine, job.id)
    assert (done.state, done.result, done.progress) == (JobState.DONE, {"generation": "g1"}, 1.0)
    assert [line.text for line in jobs.lines(engine, job.id)] == ["cloned"]


def test_a_worker_hears_of_a_job_without_looking_for_it(engine: Engine) -> None:
    # It would look by itself only after an hour.
    worker = Worker(engine, {"launch": lambda _: None}, concurrency=1, poll_s=3600.0, lease_s=30.0)
    worker.start()
    try:
        heard = 0

        def is_heard() -> bool:
            # Asked for again until it listens: what is asked for before that waits for the next.
            nonlocal heard
            asked = jobs.ask(engine, "launch", requested_by="anna", arguments={"n": time.monotonic()})
            time.sleep(0.3)
            heard += jobs.get(engine, asked.id).state is JobState.DONE
            return heard >= 3

        _until(is_heard)
    finally:
        worker.stop()


def test_what_people_ask_for_finds_room_beside_the_schedules_work(engine: Engine) -> None:
    free = threading.Event()
    handlers = {"refresh": lambda _: free.wait(WAIT_S) and None, "launch": lambda _: None}
    worker = Worker(engine, handlers, concurrency=3, behind=["refresh"], room_left=1, poll_s=0.05)
    many = [jobs.ask(engine, "refresh", requested_by="scheduler", tenant_id=f"t{n}") for n in range(6)]
    worker.start()
    try:
        _until(lambda: sum(jobs.get(engine, one.id).state is JobState.RUNNING for one in many) == 2)
        pressed = jobs.ask(engine, "launch", requested_by="anna")
        _until(lambda: jobs.get(engine, pressed.id).state is JobState.DONE)
        assert sum(jobs.get(engine, one.id).state is JobState.RUNNING for one in many) == 2
    finally:
        free.set()
        worker.stop()


def test_a_failure_somebody_waits_for_is_told_at_once_with_cause_effect_and_cure(engine: Engine) -> None:
    def launch(_: JobContext) -> None:
        raise OutsideFailure("The engine is away.", effect="Nothing was made.", next_step="Start it.")

    worker = Worker(engine, {"launch": launch}, told_at_once=["launch"])
    asked = jobs.ask(engine, "launch", requested_by="anna")
    assert worker.run_one() and not worker.run_one()
    found = jobs.get(engine, asked.id)
    assert (found.state, found.error_code) == (JobState.FAILED, "outside_failure")
    assert (found.error, found.effect, found.next_step) == ("The engine is away.", "Nothing was made.", "Start it.")


def test_steps_taken_side_by_side_log_side_by_side(engine: Engine) -> None:
    def launch(context: JobContext) -> None:
        threads = [threading.Thread(target=lambda: [context.line("a step") for _ in range(20)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)

    asked = jobs.ask(engine, "launch", requested_by="anna")
    assert _worker(engine, launch=launch).run_one()
    assert [line.number for line in jobs.lines(engine, asked.id)] == list(range(1, 81))


def test_failures_are_told_apart(engine: Engine) -> None:
    attempts: list[str] = []

    def refresh(context: JobContext) -> None:
        attempts.append(context.job.tenant_id or "")
        match context.job.tenant_id:
            case "busy" if attempts.count("busy") == 1:
                raise TenantBusy("under way")
            case "wrong":
                raise InvalidInput("never right")
            case "outside":
                raise OutsideFailure("the engine is away")
            case "crash":
                raise RuntimeError("secret of the traceback")

    asked = {
        name: jobs.ask(engine, "refresh", requested_by="anna", tenant_id=name, attempts_max=2)
        for name in ("busy", "wrong", "outside", "crash", "fine")
    }
    worker = _worker(engine, refresh=refresh)
    worker.start()
    try:
        _until(lambda: len(set(attempts)) == 5 and not jobs.get(engine, asked["fine"].id).state.is_open)
        _until(lambda: jobs.get(engine, asked["crash"].id).state is not JobState.RUNNING)
        _until(lambda: jobs.get(engine, asked["outside"].id).state is not JobState.RUNNING)
        _until(lambda: jobs.get(engine, asked["wrong"].id).state is JobState.FAILED)
        _until(lambda: jobs.get(engine, asked["busy"].id).state is JobState.DONE)
    finally:
        worker.stop()
    assert jobs.get(engine, asked["fine"].id).state is JobState.DONE
    assert jobs.get(engine, asked["outside"].id).state is JobState.QUEUED, "it is tried again later"
    crash = jobs.get(engine, asked["crash"].id)
    assert crash.error is not None and "secret" not in crash.error


def test_a_cancelled_job_stops_at_a_safe_point_and_a_stopped_worker_puts_its_jobs_back(engine: Engine) -> None:
    started = threading.Event()

    def refresh(context: JobContext) -> None:
        started.set()
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            context.check()
            time.sleep(0.02)

    job = jobs.ask(engine, "refresh", requested_by="anna")
    worker = _worker(engine, refresh=refresh)
    worker.start()
    try:
        assert started.wait(WAIT_S)
        jobs.cancel(engine, job.id)
        _until(lambda: jobs.get(engine, job.id).state is JobState.CANCELLED)
        started.clear()
        other = jobs.ask(engine, "refresh", requested_by="anna")
        assert started.wait(WAIT_S)
    finally:
        worker.stop()
    found = jobs.get(engine, other.id)
    assert (found.state, found.attempts) == (JobState.QUEUED, 0)


def test_the_scheduler_ticks_by_itself_and_an_unreadable_schedule_changes_nothing(engine: Engine) -> None:
    done: list[str | None] = []
    loads = iter([True])

    def load() -> Schedule:
        if next(loads, False):
            return Schedule.model_validate({"refresh": {"every": "1s"}})
        raise InvalidSchedule("somebody is editing it")

    scheduler = Scheduler(
        engine,
        load=load,
        targets=lambda: [TENANT],
        handlers={"refresh": lambda context: done.append(context.job.key)},
        tick_s=0.2,
    )
    scheduler.start()
    try:
        _until(lambda: len(done) >= 3)
    finally:
        scheduler.stop()
    assert len(done) == len(set(done)), "no slot ran twice"
    leader = Leadership(engine)
    assert leader.is_held(), "the lead was given up"
    leader.release()
