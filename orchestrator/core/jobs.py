"""Jobs: work that outlives the request or tick that asked for it. Pure: states, contracts and retry rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from orchestrator.core.actors import Actor, ActorKind, system
from orchestrator.errors import Conflict, NotFound

ATTEMPTS_MAX = 3
BUSY_RETRY_S = 5.0
BACKOFF_FIRST_S = 10.0
BACKOFF_MAX_S = 300.0
LEASE_S = 30.0
LINES_MAX = 2_000
LINE_LENGTH_MAX = 2_000


class JobCancelled(Conflict):
    code = "conflict.job_cancelled"


class JobNotFound(NotFound):
    code = "not_found.job"


class JobFinished(Conflict):
    """The job has ended and cannot be cancelled any more."""

    code = "conflict.job_finished"


class LeaseLost(Conflict):
    """Another worker has taken this job over; whatever this one still does must stop."""

    code = "conflict.lease_lost"


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_open(self) -> bool:
        return self in (JobState.QUEUED, JobState.RUNNING)


@dataclass(frozen=True)
class Job:
    """One piece of work. `key` is unique for ever when given: a doubled tick finds the first one's job."""

    id: str
    kind: str
    tenant_id: str | None
    key: str | None
    arguments: Mapping[str, Any]
    state: JobState
    reason: str
    requested_by: str
    attempts: int
    attempts_max: int
    busy: int  # times it was put back because its tenant was busy
    not_before: datetime
    worker: str | None
    lease_until: datetime | None
    progress: float  # 0 to 1
    doing: str  # what it does now, in words
    cancel_requested: bool
    result: Mapping[str, Any] | None
    error_code: str | None
    error: str | None
    effect: str  # what follows from the error
    next_step: str  # what to do about it
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True)
class JobLine:
    number: int
    at: datetime
    text: str


class JobContext(Protocol):
    """What a handler may do while it runs."""

    @property
    def job(self) -> Job: ...

    def progress(self, fraction: float, doing: str) -> None:
        """Say how far it is (0 to 1) and what it does now; also a place where a cancelled job stops."""
        ...

    def say(self, fraction: float, doing: str) -> None:
        """The same where stopping would leave something half done: a cancelled job goes on."""
        ...

    def line(self, text: str) -> None:
        """Add a line to the job's log; lines beyond the bound are dropped, saying so once."""
        ...

    def check(self) -> None:
        """Raise JobCancelled when somebody asked for it, LeaseLost when another worker has it."""
        ...


Handler = Callable[[JobContext], Mapping[str, Any] | None]
"""Does one job and returns its result (JSON types, no secrets). Must be safe to run again after a crash."""


def backoff_s(attempts: int) -> float:
    """How long to wait before attempt `attempts + 1`: 10 s, 20 s, 40 s … up to 5 min."""
    return float(min(BACKOFF_FIRST_S * 2 ** max(attempts - 1, 0), BACKOFF_MAX_S))


def actor_arguments(actor: Actor) -> dict[str, str]:
    """Who asked, as a job's arguments remember it."""
    return {"kind": actor.kind.value, "id": actor.id, "name": actor.name, "on_behalf_of": actor.on_behalf_of}


def actor_of(job: Job) -> Actor:
    """Who asked for the job: a person or an agent through the API, or the product itself."""
    named = job.arguments.get("actor")
    if isinstance(named, Mapping):
        kind = ActorKind(str(named["kind"]))
        return Actor(kind, str(named["id"]), str(named["name"]), str(named.get("on_behalf_of", "")))
    return system(job.requested_by)
