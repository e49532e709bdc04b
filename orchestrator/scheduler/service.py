"""The scheduler as it runs: APScheduler beats the time, the leader ticks, the worker works."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED, JobEvent
from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from orchestrator import logs
from orchestrator.core.jobs import Handler
from orchestrator.core.schedule import InvalidSchedule, Schedule
from orchestrator.scheduler.leader import Leadership
from orchestrator.scheduler.ticks import Targets, tick
from orchestrator.scheduler.worker import Worker
from orchestrator.store import jobs, slots

_log = logs.get(__name__)
TICK_S = 5
JOBS_KEPT_DAYS = 30


class Scheduler:
    """Ticks while it leads, works always. `load` reads the schedule again on every tick."""

    def __init__(
        self,
        engine: Engine,
        *,
        load: Callable[[], Schedule],
        targets: Targets,
        handlers: Mapping[str, Handler],
        concurrency: int = 4,
        concurrency_by_kind: Mapping[str, int] | None = None,
        tick_s: float = TICK_S,
    ) -> None:
        self._engine = engine
        self._load = load
        self._targets = targets
        self._leadership = Leadership(engine)
        self._schedule = load()
        self._worker = Worker(
            engine,
            handlers,
            concurrency=concurrency,
            concurrency_by_kind=concurrency_by_kind,
            poll_s=min(1.0, tick_s),
        )
        self._beat = BackgroundScheduler(timezone="UTC")
        # A late or doubled beat does no harm (slots are decided once), and a missed one is made up by the next:
        # coalesced, one at a time, never dropped for being late.
        self._beat.add_job(
            self._tick, "interval", seconds=tick_s, id="tick", coalesce=True, max_instances=1, misfire_grace_time=None
        )
        self._beat.add_job(
            self._forget, "interval", hours=6, id="forget", coalesce=True, max_instances=1, misfire_grace_time=None
        )
        self._beat.add_listener(self._noticed, EVENT_JOB_ERROR | EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES)

    def start(self) -> None:
        self._worker.start()
        self._beat.start()
        self._beat.modify_job("tick", next_run_time=slots.now(self._engine))
        _log.info("scheduler.started", worker=self._worker.name)

    def stop(self, *, timeout_s: float = 30.0) -> None:
        """Stop ticking, let what runs come to a safe point, give up the lead."""
        self._beat.shutdown(wait=True)
        self._worker.stop(timeout_s=timeout_s)
        self._leadership.release()
        _log.info("scheduler.stopped")

    def run(self, stop: threading.Event) -> None:
        """Run until `stop` is set."""
        self.start()
        try:
            stop.wait()
        finally:
            self.stop()

    def _tick(self) -> None:
        try:
            if not self._leadership.is_held():
                return
            if any(decided.job_id for decided in tick(self._engine, self._current(), self._targets())):
                self._worker.wake()
        except SQLAlchemyError as error:
            _log.warning("tick.failed", error=type(error).__name__, effect="nothing is lost; the next tick catches up")

    def _current(self) -> Schedule:
        try:
            self._schedule = self._load()
        except (InvalidSchedule, OSError) as error:
            _log.warning("schedule.refused", error=str(error), effect="the schedule in force stays")
        return self._schedule

    def _forget(self) -> None:
        if self._leadership.is_held():
            jobs.prune(self._engine, keep_days=JOBS_KEPT_DAYS)
            slots.prune(self._engine, keep_days=JOBS_KEPT_DAYS + 60)

    def _noticed(self, event: JobEvent) -> None:
        _log.warning("beat.noticed", beat=event.job_id, code=event.code, error=str(getattr(event, "exception", "")))
