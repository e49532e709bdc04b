"""The audit log: records that are written before something happens, or it does not happen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from orchestrator.core.audit import AuditEvent, AuditRecord, Checkpoint
from orchestrator.errors import OutsideFailure


class AuditUnavailable(OutsideFailure):
    """The record could not be written. Whatever it was to record must not be done."""

    code = "outside_failure.audit"


@dataclass(frozen=True)
class AuditQuery:
    """Every field given must match. Texts match exactly; `contains` is looked for anywhere in the record."""

    tenant: str | None = None
    actor: str | None = None  # id or name
    action: str | None = None  # exact, or a prefix ending in `.`: `tenant.`
    decision: str | None = None
    result: str | None = None
    rule: str | None = None
    request_id: str | None = None
    contains: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before_seq: int | None = None  # for paging towards older records
    limit: int = 100


class Verdict(StrEnum):
    INTACT = "intact"
    EDITED = "edited"
    DROPPED = "dropped"
    REORDERED = "reordered"
    TRUNCATED = "truncated"
    RESTAMPED = "restamped"
    DAMAGED = "damaged"  # a line is no record, or a checkpoint's signature is wrong


@dataclass(frozen=True)
class Finding:
    verdict: Verdict
    seq: int | None
    file: str
    explanation: str


@dataclass(frozen=True)
class Verification:
    """`verdict` is INTACT or that of the first finding."""

    records: int
    head: str
    checkpoints: int
    findings: tuple[Finding, ...] = field(default=())

    @property
    def verdict(self) -> Verdict:
        return self.findings[0].verdict if self.findings else Verdict.INTACT


class AuditLog(Protocol):
    """Safe for many threads and many processes at once."""

    def append(self, event: AuditEvent, *, durable: bool = True) -> AuditRecord:
        """Write one record and flush it to the disk. Raises AuditUnavailable: then do not do the thing.

        With `durable=False` (what has been done already, its intent being on the disk) it stands in the log at once
        and reaches the disk with the next flush, within a second.
        """
        ...

    def search(self, query: AuditQuery) -> list[AuditRecord]:
        """Newest first, at most `query.limit` (1 to 1,000)."""
        ...

    def export(self, query: AuditQuery) -> Iterator[AuditRecord]:
        """Oldest first, without a limit, streamed."""
        ...

    def verify(self, elsewhere: Sequence[Checkpoint] = ()) -> Verification:
        """Recompute the whole chain and compare it with the checkpoints here and those kept `elsewhere`."""
        ...

    def checkpoint(self) -> Checkpoint:
        """Sign the chain's head now; append it to the local checkpoints and hand it out to be kept elsewhere."""
        ...
