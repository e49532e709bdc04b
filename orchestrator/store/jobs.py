"""Remembering jobs: asked for once, claimed once, kept alive by a lease and a lock.

A job is taken away from its worker only when the lease has lapsed *and* the worker's session lock is free, so
neither a jump of the clock nor a stalled heartbeat alone makes a job run twice. All times are the database's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, func, insert, or_, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert

from orchestrator.core import jobs as rules
from orchestrator.core.jobs import Job, JobFinished, JobLine, JobNotFound, JobState, LeaseLost
from orchestrator.core.names import new_id
from orchestrator.store.session import advisory_lock
from orchestrator.store.tables.jobs import JOB_LINES, JOBS

NOW = func.clock_timestamp()
CHANNEL = "jobs"  # notified when a job is asked for, so that workers need not look often
_COLUMNS = [JOBS.c[field.name] for field in fields(Job)]


def _job(row: Row[Any]) -> Job:
    values = dict(row._mapping)
    values["state"] = JobState(values["state"])
    return Job(**values)


def _in(seconds: float) -> Any:
    return NOW + timedelta(seconds=seconds)


def add(
    connection: Connection,
    kind: str,
    *,
    requested_by: str,
    tenant_id: str | None = None,
    key: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    reason: str = "",
    priority: int = 100,
    attempts_max: int = rules.ATTEMPTS_MAX,
    delay_s: float = 0.0,
) -> tuple[Job, bool]:
    """Ask for a job inside the caller's transaction; returns it and whether it is new.

    With a `key` that was ever used before, the earlier job is returned, whatever became of it.
    """
    statement = (
        upsert(JOBS)
        .values(
            id=new_id("j"),
            kind=kind,
            tenant_id=tenant_id,
            key=key,
            arguments=dict(arguments or {}),
            reason=reason,
            requested_by=requested_by,
            priority=priority,
            attempts_max=attempts_max,
            not_before=_in(delay_s),
        )
        .on_conflict_do_nothing(index_elements=["key"])
        .returning(*_COLUMNS)
    )
    row = connection.execute(statement).one_or_none()
    if row is not None:
        connection.execute(select(func.pg_notify(CHANNEL, "")))  # heard when the caller's transaction is committed
        return _job(row), True
    return _job(connection.execute(select(*_COLUMNS).where(JOBS.c.key == key)).one()), False


def ask(engine: Engine, kind: str, *, requested_by: str, tenant_id: str | None = None, **rest: Any) -> Job:
    """Ask for a job now, or return the one of the same kind and tenant that already waits for its turn."""
    with engine.begin() as connection:
        waiting = connection.execute(
            select(*_COLUMNS)
            .where(
                JOBS.c.kind == kind,
                JOBS.c.tenant_id.is_not_distinct_from(tenant_id),
                JOBS.c.state == JobState.QUEUED,
                JOBS.c.arguments == dict(rest.get("arguments") or {}),
            )
            .limit(1)
            .with_for_update(skip_locked=True)
        ).one_or_none()
        if waiting is not None:
            return _job(waiting)
        return add(connection, kind, requested_by=requested_by, tenant_id=tenant_id, **rest)[0]


def claim(engine: Engine, worker: str, kinds: Sequence[str], *, lease_s: float = rules.LEASE_S) -> Job | None:
    """Take the next job of one of `kinds` whose tenant has none running; None when there is nothing to do."""
    running = JOBS.alias("running")
    candidate = (
        select(JOBS.c.id)
        .where(
            JOBS.c.state == JobState.QUEUED,
            JOBS.c.not_before <= NOW,
            JOBS.c.kind.in_(list(kinds)),
            or_(
                JOBS.c.tenant_id.is_(None),
                ~select(running.c.id)
                .where(running.c.tenant_id == JOBS.c.tenant_id, running.c.state == JobState.RUNNING)
                .exists(),
            ),
        )
        .order_by(JOBS.c.priority, JOBS.c.not_before, JOBS.c.created_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    statement = (
        update(JOBS)
        .where(JOBS.c.id == candidate.scalar_subquery())
        .values(
            state=JobState.RUNNING,
            worker=worker,
            attempts=JOBS.c.attempts + 1,
            lease_until=_in(lease_s),
            heartbeat_at=NOW,
            started_at=func.coalesce(JOBS.c.started_at, NOW),
        )
        .returning(*_COLUMNS)
    )
    with engine.begin() as connection:
        row = connection.execute(statement).one_or_none()
        return None if row is None else _job(row)


def _held(job: Job) -> Any:
    """The job as this worker claimed it: a later attempt, even of the same worker, is not ours."""
    return (JOBS.c.id == job.id) & (JOBS.c.worker == job.worker) & (JOBS.c.attempts == job.attempts)


def heartbeat(engine: Engine, job: Job, *, lease_s: float = rules.LEASE_S) -> bool:
    """Renew the lease; returns whether somebody asked to cancel. Raises LeaseLost when the job is not ours."""
    statement = (
        update(JOBS)
        .where(_held(job), JOBS.c.state == JobState.RUNNING)
        .values(lease_until=_in(lease_s), heartbeat_at=NOW)
        .returning(JOBS.c.cancel_requested)
    )
    with engine.begin() as connection:
        cancel = connection.execute(statement).scalar_one_or_none()
    if cancel is None:
        raise LeaseLost(f"Job {job.id} is no longer this worker's.", job_id=job.id)
    return bool(cancel)


def set_progress(engine: Engine, job: Job, fraction: float, doing: str) -> None:
    with engine.begin() as connection:
        connection.execute(
            update(JOBS)
            .where(_held(job), JOBS.c.state == JobState.RUNNING)
            .values(progress=min(max(fraction, 0.0), 1.0), doing=doing[:200])
        )


def add_line(engine: Engine, job_id: str, line: str) -> None:
    """Append to the job's log, up to a bound; one writer a job."""
    with engine.begin() as connection:
        number = connection.scalar(
            select(func.coalesce(func.max(JOB_LINES.c.number), 0)).where(JOB_LINES.c.job_id == job_id)
        )
        number = int(number or 0) + 1
        if number > rules.LINES_MAX:
            return
        shown = line[: rules.LINE_LENGTH_MAX] if number < rules.LINES_MAX else "Further lines were dropped."
        connection.execute(insert(JOB_LINES).values(job_id=job_id, number=number, text=shown))


def finish(engine: Engine, job: Job, result: Mapping[str, Any] | None) -> bool:
    """The job is done. Returns False when it was no longer ours, and then changes nothing."""
    told_before = {"error_code": None, "error": None, "effect": "", "next_step": ""}  # by a try that failed
    return _end(engine, job, state=JobState.DONE, result=dict(result or {}), progress=1.0, doing="", **told_before)


def fail(
    engine: Engine,
    job: Job,
    *,
    code: str,
    message: str,
    effect: str = "",
    next_step: str = "",
    retry: bool = True,
) -> JobState:
    """The attempt failed: back into the queue after a pause while attempts are left, else failed for good."""
    values = {"error_code": code, "error": message, "effect": effect, "next_step": next_step}
    if retry and job.attempts < job.attempts_max:
        _requeue(engine, job, delay_s=rules.backoff_s(job.attempts), **values)
        return JobState.QUEUED
    _end(engine, job, state=JobState.FAILED, **values)
    return JobState.FAILED


def cancelled(engine: Engine, job: Job) -> None:
    """The running job stopped because somebody asked for it."""
    _end(engine, job, state=JobState.CANCELLED)


def put_back(engine: Engine, job: Job, *, message: str, delay_s: float = rules.BUSY_RETRY_S) -> None:
    """Its tenant is busy: try again soon, without counting the attempt."""
    _requeue(
        engine, job, delay_s=delay_s, error_code=None, error=message, attempts=JOBS.c.attempts - 1, busy=JOBS.c.busy + 1
    )


def _requeue(engine: Engine, job: Job, *, delay_s: float, **values: Any) -> None:
    with engine.begin() as connection:
        connection.execute(
            update(JOBS)
            .where(_held(job), JOBS.c.state == JobState.RUNNING)
            .values(state=JobState.QUEUED, worker=None, lease_until=None, not_before=_in(delay_s), **values)
        )


def _end(engine: Engine, job: Job, *, state: JobState, **values: Any) -> bool:
    with engine.begin() as connection:
        done = connection.execute(
            update(JOBS)
            .where(_held(job), JOBS.c.state == JobState.RUNNING)
            .values(state=state, finished_at=NOW, lease_until=None, **values)
        )
        return done.rowcount == 1


def cancel(engine: Engine, job_id: str) -> Job:
    """End a waiting job at once, or ask a running one to stop. Raises JobNotFound and JobFinished."""
    with engine.begin() as connection:
        found = connection.execute(select(*_COLUMNS).where(JOBS.c.id == job_id).with_for_update()).one_or_none()
        if found is None:
            raise JobNotFound(f"There is no job {ascii(job_id)[:40]}.")
        state = JobState(found.state)
        if not state.is_open:
            raise JobFinished(f"Job {job_id} is {state.value} already.", job_id=job_id, state=state.value)
        values: dict[str, Any] = (
            {"state": JobState.CANCELLED, "finished_at": NOW, "cancel_requested": True}
            if state is JobState.QUEUED
            else {"cancel_requested": True}
        )
        return _job(
            connection.execute(update(JOBS).where(JOBS.c.id == job_id).values(**values).returning(*_COLUMNS)).one()
        )


def wait_for_news(engine: Engine, told: Callable[[], None], *, stop: Callable[[], bool], look_s: float = 1.0) -> None:
    """Call `told` whenever somebody asks for a job, until `stop` says so; raises when the connection is lost."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"LISTEN {CHANNEL}"))
        raw = connection.connection.driver_connection
        try:
            while raw is not None and not stop():
                for _ in raw.notifies(timeout=look_s, stop_after=1):
                    told()
        finally:
            connection.invalidate()  # whoever used this session next would hear of jobs too


@contextmanager
def alive(engine: Engine, worker: str) -> Iterator[bool]:
    """Hold the lock that says this worker lives, on a connection of its own, for as long as it works."""
    with advisory_lock(engine, "worker", worker) as taken:
        yield taken


def reclaim(engine: Engine, *, lease_s: float = rules.LEASE_S) -> list[Job]:
    """Take jobs away from dead workers: back into the queue, or failed when no attempt is left.

    A heartbeat far in the future (the clock was set back) counts as lapsed; the lock still decides.
    """
    lapsed = or_(JOBS.c.lease_until < NOW, JOBS.c.lease_until > _in(2 * lease_s))
    with engine.connect() as connection:
        suspects = [_job(row) for row in connection.execute(select(*_COLUMNS).where(_is_running(), lapsed))]
    taken: list[Job] = []
    for job in suspects:
        with advisory_lock(engine, "worker", job.worker or "") as is_dead:
            if is_dead:
                message = "The process that ran this job died."
                fail(engine, job, code="outside_failure.worker_died", message=message)
                taken.append(job)
    return taken


def _is_running() -> Any:
    return JOBS.c.state == JobState.RUNNING


def get(engine: Engine, job_id: str) -> Job:
    """Raises JobNotFound."""
    with engine.connect() as connection:
        row = connection.execute(select(*_COLUMNS).where(JOBS.c.id == job_id)).one_or_none()
    if row is None:
        raise JobNotFound(f"There is no job {ascii(job_id)[:40]}.")
    return _job(row)


def find(
    engine: Engine,
    *,
    tenant_id: str | None = None,
    kind: str | None = None,
    state: JobState | None = None,
    before: datetime | None = None,
    limit: int = 50,
    tenant_ids: Collection[str] | None = None,
    without: Collection[str] = (),
) -> list[Job]:
    """The newest first. `before` pages on by creation time; with `tenant_ids` only those tenants' jobs.

    Of the kinds in `without`, only failed ones.
    """
    query = select(*_COLUMNS).order_by(JOBS.c.created_at.desc(), JOBS.c.id.desc()).limit(min(limit, 500))
    if tenant_id is not None:
        query = query.where(JOBS.c.tenant_id == tenant_id)
    if kind is not None:
        query = query.where(JOBS.c.kind == kind)
    if state is not None:
        query = query.where(JOBS.c.state == state)
    if before is not None:
        query = query.where(JOBS.c.created_at < before)
    if tenant_ids is not None:
        query = query.where(JOBS.c.tenant_id.in_(list(tenant_ids)))
    if without:
        query = query.where(or_(JOBS.c.kind.not_in(list(without)), JOBS.c.state == JobState.FAILED))
    with engine.connect() as connection:
        return [_job(row) for row in connection.execute(query)]


def lines(engine: Engine, job_id: str, *, after: int = 0, limit: int = 500) -> list[JobLine]:
    """The log after line number `after`, in order."""
    query = (
        select(JOB_LINES.c.number, JOB_LINES.c.at, JOB_LINES.c.text)
        .where(JOB_LINES.c.job_id == job_id, JOB_LINES.c.number > after)
        .order_by(JOB_LINES.c.number)
        .limit(min(limit, rules.LINES_MAX))
    )
    with engine.connect() as connection:
        return [JobLine(*row) for row in connection.execute(query)]


def counts(engine: Engine) -> dict[tuple[str, str], int]:
    """How many jobs there are by kind and state."""
    with engine.connect() as connection:
        rows = connection.execute(select(JOBS.c.kind, JOBS.c.state, func.count()).group_by(JOBS.c.kind, JOBS.c.state))
        return {(kind, state): int(number) for kind, state, number in rows}


def prune(engine: Engine, *, keep_days: int) -> int:
    """Delete jobs that ended more than `keep_days` ago, with their lines; returns how many."""
    with engine.begin() as connection:
        return connection.execute(
            delete(JOBS).where(JOBS.c.finished_at < NOW - text(f"interval '{int(keep_days)} days'"))
        ).rowcount
