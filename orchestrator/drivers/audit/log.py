"""Appending: chained under the lock, flushed to the disk before the caller goes on.

Callers who come while another one writes go along with the next: their records share one flush. A record of what was
done already (`durable=False`) may wait for the next flush, at most FLUSH_AFTER_S; the signed head moves only then.
"""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from orchestrator import logs
from orchestrator.core.actors import system
from orchestrator.core.audit import RECORD_BYTES_MAX, AuditEvent, AuditRecord, Checkpoint, line, record_values
from orchestrator.core.names import new_id
from orchestrator.core.ports.audit import AuditQuery, AuditUnavailable, Verification
from orchestrator.drivers.audit import reading, verifying
from orchestrator.drivers.audit.files import AuditFiles, Head, last_line
from orchestrator.errors import OrchestratorError

LOG = logs.get("audit")
CHECKPOINT_EVERY = 1_000
FLUSH_AFTER_S = 0.25
TOGETHER_MAX = 100


@dataclass
class _Waiting:
    """One caller's event on its way into the log: in the end `record` or `problem` is set."""

    event: AuditEvent
    durable: bool
    record: AuditRecord | None = None
    problem: Exception | None = None


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
        self._waiting: deque[_Waiting] = deque()
        self._flush_is_due = False
        self._tail: _Tail | None = None
        self._key: bytes | None = None

    def append(self, event: AuditEvent, *, durable: bool = True) -> AuditRecord:
        """Write one record and flush it. Raises AuditUnavailable, also when the event itself cannot be written."""
        mine = _Waiting(event, durable)
        self._waiting.append(mine)
        with self._mutex:
            while mine.record is None and mine.problem is None:
                self._write_together([self._waiting.popleft() for _ in range(min(TOGETHER_MAX, len(self._waiting)))])
        if mine.record is not None:
            return mine.record
        if isinstance(mine.problem, OrchestratorError):
            raise mine.problem
        raise AuditUnavailable(
            f"The audit record for {event.action} could not be written: {mine.problem}.",
            effect="Nothing was done: what cannot be recorded does not happen.",
            next_step=f"Check the disk and the permissions of {self._files.directory}, then try again.",
        ) from mine.problem

    def search(self, query: AuditQuery) -> list[AuditRecord]:
        """Newest first, at most `query.limit`."""
        return reading.search(self._files, query)

    def export(self, query: AuditQuery) -> Iterator[AuditRecord]:
        """Oldest first, streamed."""
        return reading.export(self._files, query)

    def verify(self, elsewhere: Sequence[Checkpoint] = ()) -> Verification:
        """Recompute the chain up to its present end; writers go on meanwhile."""
        with self._mutex:
            with self._files.locked():
                reach = verifying.extent(self._files, self._signing_key())
        return verifying.verify(self._files, self._signing_key(), reach, elsewhere)

    def checkpoint(self) -> Checkpoint:
        """Sign the head as it is now."""
        with self._mutex:
            with self._files.locked():
                tail = self._current(self._clock())
                self._flush(tail)
                return self._checkpoint(tail.head)

    def prune(self, *, before: datetime) -> list[str]:
        """Delete whole days before `before`; the signed base says where the rest begins. Returns the file names."""
        with self._mutex:
            with self._files.locked():
                removed = reading.prune(self._files, self._signing_key(), before=before)
        if removed:
            details = {"files": removed, "before": before.date().isoformat()}
            self.append(AuditEvent(actor=system("audit"), action="audit.prune", details=details))
        return removed

    def _write_together(self, batch: list[_Waiting]) -> None:
        """Give every one of them its record or its problem. The caller holds the mutex."""
        try:
            with self._files.locked():
                self._append(batch)
        except (OSError, ValueError, TypeError, OrchestratorError) as problem:
            self._tail = None
            for one in batch:
                one.record, one.problem = None, one.problem or problem
        except BaseException as problem:  # nobody may be left waiting for an answer that never comes
            self._tail = None
            for one in batch:
                one.record, one.problem = None, AuditUnavailable(f"Writing was broken off: {type(problem).__name__}.")
            raise

    def _append(self, batch: list[_Waiting]) -> None:
        """Write the batch's records as one piece, flush it if one of them asks for it, then move the head."""
        now = self._clock()
        tail = self._current(now)
        path = self._files.day(now)
        if path.name < tail.path.name:  # the clock went back: stay in the newest file, order matters more
            path = tail.path
        if path != tail.path:
            self._flush(tail)
            tail = _Tail(path, 0, tail.head)
        head, lines = tail.head, []
        for one in batch:
            try:
                values = record_values(one.event, seq=head.count + 1, event_id=new_id("a"), now=now, prev=head.hash)
                written = line(values)
                if len(written) > RECORD_BYTES_MAX:
                    raise ValueError(f"the record has {len(written)} bytes, the limit is {RECORD_BYTES_MAX}")
            except (ValueError, TypeError) as problem:
                one.problem = problem  # the fault of this event alone
                continue
            one.record = AuditRecord(values)
            head = Head(one.record.seq, one.record.hash)
            lines.append(written)
        if not lines:
            return
        checkpointed = head.count // CHECKPOINT_EVERY > tail.head.count // CHECKPOINT_EVERY
        durable = checkpointed or any(one.durable for one in batch)
        piece = b"".join(lines)
        _write(path, piece, tail.size, flush=durable)
        self._tail = _Tail(path, tail.size + len(piece), head)
        if durable:
            self._files.write_head(self._signing_key(), head)
        else:
            self._flush_later()
        if checkpointed:
            self._checkpoint(head)

    def _flush(self, tail: _Tail) -> None:
        """Bring what was written to the disk, then say so in the head. The caller holds the lock."""
        try:
            descriptor = os.open(tail.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        self._files.write_head(self._signing_key(), tail.head)

    def _flush_later(self) -> None:
        if not self._flush_is_due:
            self._flush_is_due = True
            timer = threading.Timer(FLUSH_AFTER_S, self._flush_now)
            timer.daemon = True
            timer.start()

    def _flush_now(self) -> None:
        with self._mutex:
            self._flush_is_due = False
            try:
                with self._files.locked():
                    tail = self._tail
                    # When somebody else has written since, their flush took ours along.
                    if tail is not None and tail.path.stat().st_size == tail.size:
                        self._flush(tail)
            except (OSError, OrchestratorError) as problem:
                LOG.warning("audit.flush_failed", problem=str(problem))

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


def _write(path: Path, written: bytes, size: int, *, flush: bool) -> None:
    """Append at `size`; on any failure cut the file back, so that no half record stays."""
    is_new = size == 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            done = 0
            while done < len(written):
                done += os.pwrite(descriptor, written[done:], size + done)
            if flush:
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
