"""Doing jobs: claimed one by one, a bounded number at a time, each kept alive by a heartbeat."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor

import structlog
from psycopg import Error as PsycopgError
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from orchestrator import logs
from orchestrator.core import jobs as rules
from orchestrator.core.jobs import Handler, Job, JobCancelled, LeaseLost
from orchestrator.core.names import new_id
from orchestrator.errors import LimitReached, OrchestratorError, OutsideFailure
from orchestrator.store import jobs
from orchestrator.store.session import TenantBusy

_log = logs.get(__name__)
BUSY_MAX = 120  # × 5 s: a tenant that stays busy for ten minutes fails the job with that reason


class Worker:
    """Claims and runs jobs of the kinds it has a handler for, until stopped.

    Of `concurrency` jobs at once, `room_left` is never taken by the kinds in `behind`: what a person just asked for
    starts at once, however much the schedule has brought. Failures of the kinds in `told_at_once` are not tried
    again: somebody waits for the answer.
    """

    def __init__(
        self,
        engine: Engine,
        handlers: Mapping[str, Handler],
        *,
        concurrency: int = 4,
        concurrency_by_kind: Mapping[str, int] | None = None,
        behind: Collection[str] = (),
        room_left: int = 0,
        told_at_once: Collection[str] = (),
        poll_s: float = 1.0,
        lease_s: float = rules.LEASE_S,
    ) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}:{new_id('w')}"
        self._engine = engine
        self._handlers = dict(handlers)
        self._limits = dict(concurrency_by_kind or {})
        self._concurrency = concurrency
        self._behind = frozenset(behind)
        self._behind_max = concurrency - room_left
        self._told_at_once = frozenset(told_at_once)
        self._poll_s = poll_s
        self._lease_s = lease_s
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._running: dict[str, _Run] = {}
        self._threads: list[threading.Thread] = []
        self._pool: ThreadPoolExecutor | None = None

    def start(self) -> None:
        self._pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="job")
        for target in (self._claim_loop, self._beat_loop, self._listen_loop):
            thread = threading.Thread(target=target, name=f"worker-{target.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def run_one(self) -> bool:
        """Claim the next job and do it in the caller's thread; False when there is none."""
        job = jobs.claim(self._engine, self.name, list(self._handlers), lease_s=self._lease_s)
        if job is None:
            return False
        self._work(_Run(self._engine, job))
        return True

    def wake(self) -> None:
        """Look for work now instead of at the next poll."""
        self._wake.set()

    def stop(self, *, timeout_s: float = 30.0) -> None:
        """Claim nothing more, ask what runs to stop at its next safe point, and wait for it."""
        self._stop.set()
        self._wake.set()
        with self._lock:
            for run in self._running.values():
                run.is_stopping = True
        deadline = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.1))
        if self._pool is not None:
            self._pool.shutdown(wait=self._is_idle_by(deadline), cancel_futures=True)

    def _is_idle_by(self, deadline: float) -> bool:
        while time.monotonic() < deadline:
            with self._lock:
                if not self._running:
                    return True
            time.sleep(0.05)
        return False

    def _claim_loop(self) -> None:
        while not self._stop.is_set():
            try:
                with jobs.alive(self._engine, self.name):
                    self._claim_while_alive()
            except SQLAlchemyError as error:
                _log.warning("worker.unreachable", error=type(error).__name__)
                self._stop.wait(self._poll_s)

    def _claim_while_alive(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            while (job := self._next()) is not None:
                self._begin(job)
            self._wake.wait(self._poll_s)
        # The lock that says this worker lives is kept until nothing runs any more.
        while self._running:
            time.sleep(0.05)

    def _listen_loop(self) -> None:
        """A button that was pressed is heard at once; should this fail, the next look finds it all the same."""
        while not self._stop.is_set():
            try:
                jobs.wait_for_news(self._engine, self.wake, stop=self._stop.is_set)
            except (SQLAlchemyError, PsycopgError) as error:
                _log.warning("worker.unreachable", error=type(error).__name__)
                self._stop.wait(self._poll_s)

    def _next(self) -> Job | None:
        with self._lock:
            if self._stop.is_set() or len(self._running) >= self._concurrency:
                return None
            busy: dict[str, int] = {}
            for run in self._running.values():
                busy[run.job.kind] = busy.get(run.job.kind, 0) + 1
        is_full = sum(busy.get(kind, 0) for kind in self._behind) >= self._behind_max
        kinds = [
            kind
            for kind in self._handlers
            if busy.get(kind, 0) < self._limits.get(kind, self._concurrency) and not (is_full and kind in self._behind)
        ]
        return jobs.claim(self._engine, self.name, kinds, lease_s=self._lease_s) if kinds else None

    def _begin(self, job: Job) -> None:
        run = _Run(self._engine, job)
        with self._lock:
            self._running[job.id] = run
        if self._pool is None:
            raise RuntimeError("the worker was not started")
        self._pool.submit(self._work, run)

    def _beat_loop(self) -> None:
        pause_s = self._lease_s / 5
        while not self._stop.wait(pause_s) or self._running:
            with self._lock:
                runs = list(self._running.values())
            for run in runs:
                run.beat(self._lease_s)
            try:
                for job in jobs.reclaim(self._engine, lease_s=self._lease_s):
                    _log.warning("job.reclaimed", job_id=job.id, kind=job.kind, attempts=job.attempts)
            except SQLAlchemyError as error:
                _log.warning("worker.unreachable", error=type(error).__name__)
            if self._stop.is_set():
                time.sleep(0.1)

    def _work(self, run: _Run) -> None:
        job = run.job
        with structlog.contextvars.bound_contextvars(job_id=job.id, tenant_id=job.tenant_id):
            began = time.monotonic()
            try:
                outcome = self._attempt(run)
            except SQLAlchemyError as error:  # the control database is away: the lease lapses and it is tried again
                outcome = f"unrecorded ({type(error).__name__})"
            finally:
                with self._lock:
                    self._running.pop(job.id, None)
                self._wake.set()
            _log.info("job.ended", kind=job.kind, outcome=outcome, spent_s=round(time.monotonic() - began, 3))

    def _attempt(self, run: _Run) -> str:
        job = run.job
        try:
            result = self._handlers[job.kind](run)
        except TenantBusy as error:
            if job.busy < BUSY_MAX:
                jobs.put_back(self._engine, job, message=error.message)
                return "put back"
            return self._failed(job, error, retry=False)
        except JobCancelled:
            if run.is_stopping:
                jobs.put_back(self._engine, job, message="The scheduler was stopped.", delay_s=0)
                return "put back"
            jobs.cancelled(self._engine, job)
            return "cancelled"
        except LeaseLost:
            return "lease lost"
        except OrchestratorError as error:
            # What failed outside or ran into a limit may pass; the rest stays as it is.
            may_pass = isinstance(error, OutsideFailure | LimitReached)
            return self._failed(job, error, retry=may_pass and job.kind not in self._told_at_once)
        except Exception as error:
            _log.exception("job.crashed", kind=job.kind)
            return jobs.fail(
                self._engine,
                job,
                code="error",
                message=f"An error of the orchestrator itself: {type(error).__name__}.",
                next_step="Try again; if it stays, show an admin the reference: the log knows more.",
                retry=job.kind not in self._told_at_once,
            ).value
        return "done" if jobs.finish(self._engine, job, result) else "lease lost"

    def _failed(self, job: Job, error: OrchestratorError, *, retry: bool) -> str:
        return jobs.fail(
            self._engine,
            job,
            code=error.code,
            message=error.message,
            effect=error.effect,
            next_step=error.next_step,
            retry=retry,
        ).value


class _Run:
    """The JobContext of one running job."""

    def __init__(self, engine: Engine, job: Job) -> None:
        self.is_stopping = False
        self._engine = engine
        self._job = job
        self._is_cancelled = False
        self._is_lost = False
        self._writing = threading.Lock()

    @property
    def job(self) -> Job:
        return self._job

    def progress(self, fraction: float, doing: str) -> None:
        self.check()
        jobs.set_progress(self._engine, self._job, fraction, doing)

    def say(self, fraction: float, doing: str) -> None:
        if self._is_lost:
            raise LeaseLost(f"Job {self._job.id} was taken over.", job_id=self._job.id)
        jobs.set_progress(self._engine, self._job, fraction, doing)

    def line(self, text: str) -> None:
        with self._writing:  # steps taken side by side tell of themselves side by side, and lines are numbered
            jobs.add_line(self._engine, self._job.id, text)

    def check(self) -> None:
        if self._is_lost:
            raise LeaseLost(f"Job {self._job.id} was taken over.", job_id=self._job.id)
        if self._is_cancelled or self.is_stopping:
            raise JobCancelled(f"Job {self._job.id} was asked to stop.", job_id=self._job.id)

    def beat(self, lease_s: float) -> None:
        try:
            self._is_cancelled = jobs.heartbeat(self._engine, self._job, lease_s=lease_s) or self._is_cancelled
        except LeaseLost:
            self._is_lost = True
        except SQLAlchemyError:
            return  # tried again at the next beat; the lease outlasts four of them
