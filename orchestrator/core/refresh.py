"""The steps of a refresh, and what an interrupted one needs. Pure.

The live link decides: before the rename the candidate is worth nothing, after it the refresh is finished.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from orchestrator.errors import Conflict, LimitReached, NotFound


class TenantNotRunning(Conflict):
    code = "conflict.tenant_not_running"


class NothingToUndo(Conflict):
    code = "conflict.nothing_to_undo"


class NoSnapshot(Conflict):
    code = "conflict.no_snapshot"


class PostponedAlready(Conflict):
    code = "conflict.postponed_already"


class PostponeLimit(LimitReached):
    code = "limit_reached.postpone"


class RefreshNotFound(NotFound):
    code = "not_found.refresh"


class DiskForecastExceeded(LimitReached):
    code = "limit_reached.disk_forecast"


class CandidateUnsound(Conflict):
    """The candidate answers, but is not what it should be; live is untouched."""

    code = "conflict.candidate_unsound"


class DraftConflicts(Conflict):
    """A saved draft does not fit the data of today; nothing of it was put back."""

    code = "conflict.draft_conflicts"


class RefreshKind(StrEnum):
    REFRESH = "refresh"
    UNDO = "undo"


class RefreshState(StrEnum):
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class RefreshStep(StrEnum):
    """Journaled before it is taken, in this order. Up to SWAPPING a crash is undone, from its rename on finished."""

    PLANNED = "planned"
    SAVING = "saving"  # unproposed changes become a draft
    CLONING = "cloning"  # the candidate's data directory
    STARTING = "starting"
    CHECKING = "checking"
    SWAPPING = "swapping"  # clients held back, the live link replaced (the atomic step), clients let through
    SETTLING = "settling"  # who is live and who is previous is remembered, the previous one is stopped
    CARRYING = "carrying"  # the draft is applied to the new data
    PRUNING = "pruning"
    FINISHED = "finished"


@dataclass(frozen=True)
class Refresh:
    """One refresh or undo, as journaled. Times in `timings` are seconds by step name."""

    id: str
    tenant_id: str
    kind: RefreshKind
    state: RefreshState
    step: RefreshStep
    requested_by: str
    reason: str
    job_id: str | None
    snapshot_id: str | None
    generation_id: str  # the one that becomes live
    previous_id: str | None  # the one that was live
    draft_id: str | None
    carried: str | None  # what became of unproposed changes, in words
    timings: Mapping[str, float]
    gap_s: float | None  # clients were held back this long
    ended_sessions: int
    error_code: str | None
    error: str | None
    recovered: bool
    started_at: datetime
    finished_at: datetime | None


class Recovery(StrEnum):
    """What to do with a refresh nobody is working on any more."""

    UNDO = "undo"  # the live link still names the old generation: remove the candidate
    FINISH = "finish"  # it names the new one: settle what remains


def recovery(refresh: Refresh, live_id: str | None) -> Recovery:
    """From the journal and the generation the link names now (None: there is no link)."""
    return Recovery.FINISH if live_id == refresh.generation_id else Recovery.UNDO


@dataclass(frozen=True)
class Postponement:
    """The next scheduled refresh of a tenant is put off, once."""

    tenant_id: str
    requested_by: str
    reason: str
    at: datetime


DISK_RESERVE_RATIO = 0.05
DISK_RESERVE_BYTES = 256 << 20
REFLINK_GROWTH_RATIO = 0.02  # what a fresh generation costs beyond the shared blocks
REFLINK_GROWTH_BYTES = 192 << 20  # WAL, caches of the catalog and the like


def forecast_bytes(snapshot_bytes: int, *, is_reflink: bool, copies: int = 1) -> int:
    """What `copies` generations of a snapshot of `snapshot_bytes` will add to the disk, cautiously."""
    if not is_reflink:
        return copies * (snapshot_bytes + REFLINK_GROWTH_BYTES)
    return copies * int(snapshot_bytes * REFLINK_GROWTH_RATIO + REFLINK_GROWTH_BYTES)


def reserve_bytes(total_bytes: int) -> int:
    """What must stay free for those who already run."""
    return max(int(total_bytes * DISK_RESERVE_RATIO), min(DISK_RESERVE_BYTES, total_bytes // 4))


def check_disk(*, free_bytes: int, total_bytes: int, snapshot_bytes: int, is_reflink: bool, copies: int = 1) -> None:
    """Raises DiskForecastExceeded when the clones would not fit; asked before anything is copied."""
    wanted, reserve = forecast_bytes(snapshot_bytes, is_reflink=is_reflink, copies=copies), reserve_bytes(total_bytes)
    if free_bytes - wanted >= reserve:
        return
    copying = "" if is_reflink else " (this volume cannot share blocks, so every generation is a full copy)"
    raise DiskForecastExceeded(
        f"The disk has {free_bytes >> 20} MiB free; the refresh needs about {wanted >> 20} MiB and "
        f"{reserve >> 20} MiB must stay free{copying}.",
        effect="Nothing was copied; the live database is as it was.",
        next_step="Remove snapshots and previous generations (`orchestrator snapshot prune`) or enlarge the volume.",
        free_bytes=free_bytes,
        wanted_bytes=wanted,
        reserve_bytes=reserve,
    )
