"""One publish: a tenant's work committed, checked outside the container, and pushed to the company's remote."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from orchestrator.core.publishing import Finding
from orchestrator.errors import Conflict, NotFound


class PublishState(StrEnum):
    RUNNING = "running"
    UNCHANGED = "unchanged"  # nothing to commit and the remote has everything
    PUBLISHED = "published"
    REFUSED = "refused"  # the scan or git's checks found something; nothing left the workspace
    PENDING = "pending"  # committed and checked, the push failed and is tried again
    FAILED = "failed"


class PublishRefused(Conflict):
    """The scan found something that must not leave the workspace; `fields["findings"]` says where."""

    code = "conflict.publish_refused"


class PublishNotFound(NotFound):
    code = "not_found.publish"


class MergeConflicts(Conflict):
    """Production cannot be merged without a person; the conflict marks stand in the workspace."""

    code = "conflict.merge"


@dataclass(frozen=True)
class Publish:
    id: str
    tenant_id: str
    state: PublishState
    step: str
    reason: str
    actor: str
    base_commit: str | None
    commit: str | None
    files_count: int
    findings: tuple[Finding, ...]
    error: str
    started_at: datetime
    finished_at: datetime | None
    pushed_at: datetime | None


@dataclass(frozen=True)
class BranchView:
    """Where a tenant's branch stands. `behind` counts production's commits it lacks, `ahead` its own."""

    name: str
    head: str | None
    production: str
    ahead: int
    behind: int
    conflicts: tuple[str, ...]
    last: Publish | None
