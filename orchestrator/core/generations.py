"""The generation record: one build of a tenant's database from a snapshot. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from orchestrator.core.ports.engine import ContainerLimits
from orchestrator.errors import NotFound


class GenerationMissing(NotFound):
    code = "not_found.generation"


class GenerationState(StrEnum):
    CREATING = "creating"  # recorded before anything is made
    CANDIDATE = "candidate"  # runs beside the live one
    LIVE = "live"
    PREVIOUS = "previous"  # stopped, kept for undo
    REMOVING = "removing"
    REMOVED = "removed"


@dataclass(frozen=True)
class DatabaseLimits:
    """What one tenant's PostgreSQL may use."""

    memory_bytes: int = 384 << 20
    cpus: float = 1.0
    pids: int = 64
    connections: int = 20
    temp_file_bytes: int = 256 << 20
    statement_timeout_s: float = 60.0
    size_bytes: int = 20 << 30
    durable: bool = True  # False: fsync off; everything in it can be rebuilt

    @property
    def container(self) -> ContainerLimits:
        return ContainerLimits(memory_bytes=self.memory_bytes, cpus=self.cpus, pids=self.pids)


@dataclass(frozen=True)
class Generation:
    """One row of the generations table."""

    id: str
    tenant_id: str
    snapshot_id: str
    state: GenerationState
    created_at: datetime
    live_at: datetime | None  # when it last became live
    retired_at: datetime | None
