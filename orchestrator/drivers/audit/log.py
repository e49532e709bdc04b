"""Appending: one record at a time under the lock, chained, flushed to the disk before the caller goes on."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.core.actors import system
from orchestrator.core.audit import RECORD_BYTES_MAX, AuditEvent, AuditRecord, Checkpoint, line, record_values
from orchestrator.core.names import new_id
from orchestrator.core.ports.audit import AuditQuery, AuditUnavailable, Verification
from orchestrator.drivers.audit import reading, verifying
from orchestrator.drivers.audit.files import AuditFiles, Head, last_line
from orchestrator.errors import OrchestratorError

CHECKPOINT_EVERY = 1_000


@dataclass
class _Tail:
    """What this process believes about the end of the log; checked against the file's size on every append."""

    path: Path
    size: int
    head: Head


class FileAuditLog:
    """The AuditLog port on a directory. One object per process; threads share it."""

    def __init__(self, directory: Path, key_file: Path, *, clock: Callable[[], datetime] | None = None) -> None:
        self._files = AuditFiles(directory, key_file)
        self._clock = clock or (lambda: datetime.now(UTC))
        self._mutex = threading.Lock()
        self._tail: _Tail | None = None
        self._key: bytes | None = None

    def append(self, event: AuditEvent) -> AuditRecord:
        """Write one record and flush it. Raises AuditUnavailable, also when the event itself cannot be written."""
        try:
            with self._mutex:
                self._files.prepare()
                with self._files.locked():
                    return self._append(event)
        except OrchestratorError:
            self._tail = None
            raise
        except (OSError, ValueError, TypeError) as problem:
            self._tail = None
            raise AuditUnavailable(
                f"The audit record for {event.action} could not be written: {problem}.",
                effect="Nothing was done: what cannot be recorded does not happen.",
                next_step=f"Check the disk and the permissions of {self._files.directory}, then try again.",
            ) from problem

    def search(self, query: AuditQuery) -> list[AuditRecord]:
        """Newest first, at most `query.limit`."""
        return reading.search(self._files, query)

    def export(self, query: AuditQuery) -> Iterator[AuditRecord]:
        """Oldest first, streamed."""
        return reading.export(self._files, query)

    def verify(self, elsewhere: Sequence[Checkpoint] = ()) -> Verification:
        """Recompute the chain up to its present end; writers go on meanwhile."""
        with self._mutex:
            self._files.prepare()
            with self._files.locked():
                reach = verifying.extent(self._files, self._signing_key())
        return verifying.verify(self._files, self._signing_key(), reach, elsewhere)

    def checkpoint(self) -> Checkpoint:
        """Sign the head as it is now."""
        with self._mutex:
            self._files.prepare()
            with self._files.locked():
                return self._checkpoint(self._current(self._clock()).head)

    def prune(self, *, before: datetime) -> list[str]:
        """Delete whole days before `before`; the signed base says where the rest begins. Returns the file names."""
        with self._mutex:
            self._files.prepare()
            with self._files.locked():
                removed = reading.prune(self._files, self._signing_key(), before=before)
                if removed:
                    details = {"files": removed, "before": before.date().isoformat()}
                    self._append(AuditEvent(actor=system("audit"), action="audit.prune", details=details))
                return removed

    def _append(self, event: AuditEvent) -> AuditRecord:
        now = self._clock()
        tail = self._current(now)
        path = self._files.day(now)
        if path.name < tail.path.name:  # the clock went back: stay in the newest file, order matters more
            path = tail.path
        if path != tail.path:
            tail = _Tail(path, 0, tail.head)
        values = record_values(event, seq=tail.head.count + 1, event_id=new_id("a"), now=now, prev=tail.head.hash)
        written = line(values)
        if len(written) > RECORD_BYTES_MAX:
            raise ValueError(f"the record has {len(written)} bytes, the limit is {RECORD_BYTES_MAX}")
        _write(path, written, tail.size)
        record = AuditRecord(values)
        head = Head(record.seq, record.hash)
        self._tail = _Tail(path, tail.size + len(written), head)
        self._files.write_head(self._signing_key(), head)
        if head.count % CHECKPOINT_EVERY == 0:
            self._checkpoint(head)
        return record

    def _current(self, now: datetime) -> _Tail:
        """The end of the log, from memory when the newest file still has the size we left it with."""
        believed = self._tail
        if believed is not None and believed.path.name >= self._files.day(now).name:
            try:
                if believed.path.stat().st_size == believed.size:
                    return believed
            except FileNotFoundError:
                pass
        return self._reread(now)

    def _reread(self, now: datetime) -> _Tail:
        key = self._signing_key()
        head = self._files.read_base(key)
        found = _Tail(self._files.day(now), 0, head)
        for path in reversed(self._files.days()):
            text, end = last_line(path)
            torn = path.stat().st_size - end
            if torn:
                self._set_torn_aside(path, end)
            if text:
                values = json.loads(text)
                found = _Tail(path, end, Head(int(values["seq"]), str(values["hash"])))
                break
        self._refuse_truncation(key, found.head)
        return found

    def _refuse_truncation(self, key: bytes, found: Head) -> None:
        """A log shorter than its signed head lost records. Appending would hide that, so refuse."""
        signed = self._files.read_head(key)
        if signed is not None and signed.count > found.count:
            raise AuditUnavailable(
                f"The audit log ends at record {found.count}, but {signed.count} were written.",
                effect="Nothing is recorded, so nothing runs.",
                next_step="Run `orchestrator audit verify`; restore the log, or move it away to begin a new chain.",
            )

    def _set_torn_aside(self, path: Path, end: int) -> None:
        """A crash in the middle of a write leaves half a line that nobody was told of: keep it beside the log."""
        with path.open("r+b") as file:
            file.seek(end)
            torn = file.read()
            aside = path.with_name(f"torn-{path.stem}-{end}")
            aside.write_bytes(torn)
            file.truncate(end)
            os.fsync(file.fileno())

    def _checkpoint(self, head: Head) -> Checkpoint:
        made = Checkpoint.sign(self._signing_key(), count=head.count, head=head.hash, now=self._clock())
        with self._files.checkpoints.open("ab") as file:
            file.write(made.as_line())
            file.flush()
            os.fsync(file.fileno())
        return made

    def _signing_key(self) -> bytes:
        if self._key is None:
            self._key = self._files.key()
        return self._key


def _write(path: Path, written: bytes, size: int) -> None:
    """Append at `size` and flush; on any failure cut the file back, so that no half record stays."""
    is_new = size == 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            done = 0
            while done < len(written):
                done += os.pwrite(descriptor, written[done:], size + done)
            os.fdatasync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)
    if is_new:
        _flush_directory(path.parent)


def _flush_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
