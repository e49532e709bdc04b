"""The scheduler as it runs: APScheduler beats the time, the leader ticks, the worker works."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED, JobEvent
from apscheduler.schedulers.background import BackgroundScheduler
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from orchestrator import logs
from orchestrator.core.jobs import Handler
from orchestrator.core.schedule import InvalidSchedule, Schedule
from orchestrator.errors import OrchestratorError
from orchestrator.scheduler.leader import Leadership
from orchestrator.scheduler.ticks import Targets, tick
from orchestrator.scheduler.worker import Worker
from orchestrator.store import jobs, leaders, outbox, slots

_log = logs.get(__name__)
TICK_S = 5
SAMPLE_S = 300
FIRST_SAMPLE_S = 20
JOBS_KEPT_DAYS = 30


class Scheduler:
    """Ticks while it leads, works always. `load` reads the schedule again on every tick.

    `each_tick` asks for what no schedule knows of and returns how many jobs that made.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        load: Callable[[], Schedule],
        targets: Targets,
        handlers: Mapping[str, Handler],
        each_tick: Callable[[], int] = lambda: 0,
        concurrency: int = 4,
        concurrency_by_kind: Mapping[str, int] | None = None,
        behind: Collection[str] = (),
        room_left: int = 0,
        told_at_once: Collection[str] = (),
        tick_s: float = TICK_S,
        sample: Callable[[], object] | None = None,
    ) -> None:
        self._engine = engine
        self._load = load
        self._targets = targets
        self._each_tick = each_tick
        self._leadership = Leadership(engine)
        self._schedule = load()
        self._holder = f"{socket.gethostname()}:{os.getpid()}"
        self._error = ""
        self._leads = False
        self._worker = Worker(
            engine,
            handlers,
            concurrency=concurrency,
            concurrency_by_kind=concurrency_by_kind,
            behind=behind,
            room_left=room_left,
            told_at_once=told_at_once,
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
        self._sample = sample
        if sample is not None:
            self._beat.add_job(
                self._look_around,
                "interval",
                seconds=SAMPLE_S,
                id="sample",
                coalesce=True,
                max_instances=1,
                misfire_grace_time=None,
                next_run_time=datetime.now(UTC) + timedelta(seconds=FIRST_SAMPLE_S),
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
            self._leads = self._leadership.is_held()
            if not self._leads:
                return
            self._error = ""
            asked = any(decided.job_id for decided in tick(self._engine, self._current(), self._targets()))
            if self._each_tick() or asked:
                self._worker.wake()
            leaders.ticked(self._engine, self._holder, error=self._error)
        except SQLAlchemyError as error:
            _log.warning("tick.failed", error=type(error).__name__, effect="nothing is lost; the next tick catches up")

    def _current(self) -> Schedule:
        try:
            self._schedule = self._load()
        except (InvalidSchedule, OSError) as error:
            self._error = f"The schedule file is refused, the one in force stays: {error}"
            _log.warning("schedule.refused", error=str(error), effect="the schedule in force stays")
        return self._schedule

    def _look_around(self) -> None:
        """A sample that is not taken leaves a gap in a picture, nothing more."""
        if self._sample is None or not self._leads:
            return
        try:
            self._sample()
        except (OrchestratorError, SQLAlchemyError, OSError) as error:
            _log.warning("sample.failed", error=type(error).__name__)

    def _forget(self) -> None:
        if self._leadership.is_held():
            jobs.prune(self._engine, keep_days=JOBS_KEPT_DAYS)
            slots.prune(self._engine, keep_days=JOBS_KEPT_DAYS + 60)
            outbox.prune(self._engine, keep_days=JOBS_KEPT_DAYS)

    def _noticed(self, event: JobEvent) -> None:
        _log.warning("beat.noticed", beat=event.job_id, code=event.code, error=str(getattr(event, "exception", "")))
