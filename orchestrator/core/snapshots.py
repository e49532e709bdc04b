"""The snapshot record, its manifest and its states. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from orchestrator.errors import NotFound


class SnapshotMissing(NotFound):
    code = "not_found.snapshot"


class SnapshotState(StrEnum):
    BUILDING = "building"
    READY = "ready"
    FAILED = "failed"
    REMOVED = "removed"


class SnapshotStep(StrEnum):
    """The steps of taking one, in order; the record says which one it is in or failed at."""

    INSPECT = "inspect"
    DUMP = "dump"
    RESTORE = "restore"
    CHECK = "check"
    MASK = "mask"
    REWRITE = "rewrite"
    SEAL = "seal"
    SEARCH = "search"
    PUBLISH = "publish"


@dataclass(frozen=True)
class TableReport:
    """Row counts of one table: in the source (None for a dump file), and kept after the profile's filters."""

    source_rows: int | None
    restored_rows: int
    kept_rows: int


@dataclass(frozen=True)
class Manifest:
    """What a snapshot is made of. Table and column names are `schema.table` and `schema.table.column`."""

    snapshot_id: str
    profile: str
    source: str  # described without secrets
    taken_at: datetime  # the data is as of this moment
    server_version: str
    major: int
    encoding: str
    collation: str
    origin_lsn: str  # the checkpoint every generation starts from
    system_id: str
    files: int
    size_bytes: int
    tables: Mapping[str, TableReport]
    masked: Mapping[str, str]  # column -> method, every column that is not kept
    canaries: int  # clear-text samples searched for in the files, and not found
    checksummed_blocks: int
    extensions: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()  # what production has and a snapshot never carries

    @property
    def rows(self) -> int:
        return sum(table.kept_rows for table in self.tables.values())

    def document(self) -> dict[str, Any]:
        """As JSON values."""
        document = asdict(self)
        document["taken_at"] = self.taken_at.isoformat()
        document["left_out"] = list(self.left_out)
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Manifest:
        values = dict(document)
        values["taken_at"] = datetime.fromisoformat(values["taken_at"])
        values["tables"] = {name: TableReport(**report) for name, report in values["tables"].items()}
        values["left_out"] = tuple(values["left_out"])
        return cls(**values)


@dataclass(frozen=True)
class Snapshot:
    """One row of the snapshots table."""

    id: str
    profile: str
    state: SnapshotState
    step: SnapshotStep
    source: str
    image: str  # the PostgreSQL image it was built with; empty for the installation's own
    started_at: datetime
    taken_at: datetime | None
    finished_at: datetime | None
    error_code: str | None
    error_message: str | None
    manifest: Manifest | None
