"""Taking a snapshot: the source it comes from, and the workshop where it is restored, masked and sealed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from orchestrator.core.masking.plan import ColumnFact, MaskingPlan
from orchestrator.core.ports.servers import ServerSpec
from orchestrator.errors import InvalidInput, OutsideFailure

# Called with the share done (0 to 1, never decreasing within a step) and a short text.
Progress = Callable[[float, str], None]


class SnapshotFailed(OutsideFailure):
    code = "outside_failure.snapshot"


class SourceUnreachable(SnapshotFailed):
    """The mirror does not answer."""

    code = "outside_failure.source_unreachable"


class SourceRefused(SnapshotFailed):
    """The mirror refuses the credential: wrong, expired or without the right to read."""

    code = "outside_failure.source_credential"


class DumpDamaged(SnapshotFailed):
    """A dump file or directory is cut off, corrupt or of no known format."""

    code = "outside_failure.dump_damaged"


class CountsDiffer(SnapshotFailed):
    """A table has not as many rows as it had in the source."""

    code = "outside_failure.snapshot_counts"


class ClearTextLeft(SnapshotFailed):
    """A value that was to be masked is still in the snapshot's files."""

    code = "outside_failure.clear_text_left"


class ReferencesBroken(SnapshotFailed):
    """After masking or filtering rows refer to rows that are not there."""

    code = "outside_failure.snapshot_references"


class SourceUnfit(InvalidInput):
    """The image the tenants' databases run on lacks what production uses; every lack is named."""

    code = "invalid.source_unfit"


@dataclass(frozen=True)
class Source:
    """Where the data comes from: a server (its mirror, read-only credential) or a dump file or directory."""

    description: str  # without secrets
    dsn: str | None = None  # libpq, without a password
    password: str | None = field(default=None, repr=False)
    dump: Path | None = None


@dataclass(frozen=True)
class SourceFacts:
    """What has to be known of the source before anything is copied."""

    version: str
    major: int
    encoding: str
    collate: str
    ctype: str
    provider: str  # c: the C library, i: ICU, b: built in
    locale: str | None
    extensions: Mapping[str, str]
    collations: frozenset[str]  # named by columns, besides the database's own
    columns: tuple[ColumnFact, ...]  # empty for a dump: known once it is restored
    roles: tuple[str, ...]  # named by row security policies
    left_out: tuple[str, ...]
    size_bytes: int
    taken_at: datetime | None
    settings: tuple[tuple[str, str], ...] = ()  # of the database itself: search_path and the like
    excess: tuple[str, ...] = ()  # what the credential may do beyond reading, in words


@dataclass(frozen=True)
class Offer:
    """What the image of the tenants' databases has."""

    major: int
    extensions: frozenset[str]
    collations: frozenset[str]
    locales: frozenset[str]  # names usable as a database's collation


@dataclass(frozen=True)
class Dumped:
    """A dump and what it must hold."""

    path: Path
    taken_at: datetime
    rows: Mapping[str, int]  # by schema.table, counted in the dump's own snapshot; empty for a given dump


@dataclass(frozen=True)
class Masked:
    """`samples` of the clear text to search for, and the tables that rows were changed in or deleted from."""

    samples: tuple[bytes, ...]
    tables: tuple[str, ...]


@dataclass(frozen=True)
class Sealed:
    """The frozen state of a data directory."""

    origin_lsn: str
    system_id: str
    checksummed_blocks: int


class Workshop(Protocol):
    """Everything done to one snapshot in the making. `spec` is its builder; failures are SnapshotFailed,
    ServerFailed or DiskFull."""

    def inspect(self, spec: ServerSpec, source: Source) -> SourceFacts:
        """Look, copy no rows. Raises SourceUnreachable, SourceRefused or DumpDamaged."""
        ...

    def open(self, spec: ServerSpec) -> Offer:
        """Create and start the builder."""
        ...

    def dump(self, spec: ServerSpec, source: Source, facts: SourceFacts, progress: Progress) -> Dumped:
        """Read the source in parallel, in one database snapshot; a given dump only gets checked."""
        ...

    def restore(self, spec: ServerSpec, dumped: Dumped, facts: SourceFacts, progress: Progress) -> None:
        """Create the database and restore into it; every object then belongs to the prepared role."""
        ...

    def columns(self, spec: ServerSpec) -> tuple[ColumnFact, ...]: ...

    def row_counts(self, spec: ServerSpec) -> Mapping[str, int]: ...

    def mask(self, spec: ServerSpec, plan: MaskingPlan, key: bytes, progress: Progress) -> Masked:
        """Filter, then mask. Raises ReferencesBroken."""
        ...

    def rewrite(self, spec: ServerSpec, tables: Sequence[str], progress: Progress) -> None:
        """Write `tables` anew, so nothing of a replaced or deleted row is left in their files; then freeze all."""
        ...

    def seal(self, spec: ServerSpec, *, snapshot_id: str, taken_at: datetime) -> Sealed:
        """Stamp the snapshot's id into it, stop, start once more durably, trim the WAL, stop, verify, sync.

        No container of it is left.
        """
        ...

    def search(self, data: Path, samples: Sequence[bytes]) -> list[str]:
        """Names of the files below `data` that hold any of `samples`."""
        ...

    def close(self, spec: ServerSpec) -> None:
        """Remove every container of the builder; fine when there is none."""
        ...
