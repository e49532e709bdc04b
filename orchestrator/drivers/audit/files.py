"""The log's directory: which files there are, the lock every writer takes, and the signed head beside them."""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

from orchestrator.core.audit import GENESIS, canonical, signature
from orchestrator.core.ports.audit import AuditUnavailable

DAY_FILE = re.compile(r"\d{4}-\d{2}-\d{2}\.jsonl")
KEY_BYTES = 32
LOCK_TIMEOUT_S = 10.0
TAIL_BYTES = 1_048_576


@dataclass(frozen=True)
class Head:
    """`count` records were written; the last one's hash is `hash`."""

    count: int
    hash: str


START = Head(0, GENESIS)


@dataclass(frozen=True)
class AuditFiles:
    """`directory` holds the log, `key_file` the signing key (made on first use, mode 0600)."""

    directory: Path
    key_file: Path

    @cached_property
    def head(self) -> Path:
        return self.directory / "head"

    @property
    def base(self) -> Path:
        """After pruning: the signed head of what was removed, where the remaining chain begins."""
        return self.directory / "base"

    @property
    def checkpoints(self) -> Path:
        return self.directory / "checkpoints.jsonl"

    def day(self, now: datetime) -> Path:
        return self.directory / f"{now:%Y-%m-%d}.jsonl"

    def days(self) -> list[Path]:
        """Day files, oldest first."""
        if not self.directory.is_dir():
            return []
        with os.scandir(self.directory) as entries:
            found = [one.path for one in entries if DAY_FILE.fullmatch(one.name) and one.is_file(follow_symlinks=False)]
        return [Path(path) for path in sorted(found)]

    def key(self) -> bytes:
        """The signing key. Raises AuditUnavailable when the key file is damaged."""
        try:
            found = self.key_file.read_bytes()
        except FileNotFoundError:
            found = self._new_key()
        if len(found) != KEY_BYTES:
            raise AuditUnavailable(
                "The audit signing key is damaged.",
                effect="Nothing is recorded, so nothing runs.",
                next_step=f"Restore {self.key_file} from a backup, or move it and the log away to begin a new chain.",
            )
        return found

    def _new_key(self) -> bytes:
        if self.days():
            raise AuditUnavailable(
                "The audit signing key is gone, but a log exists.",
                effect="Nothing is recorded, so nothing runs.",
                next_step=f"Restore {self.key_file} from a backup, or move {self.directory} away to begin a new chain.",
            )
        self.key_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = os.urandom(KEY_BYTES)
        temporary = self.key_file.with_name(f".{self.key_file.name}.{os.getpid()}.{time.monotonic_ns()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, made)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            os.link(temporary, self.key_file)  # fails when another process was first: then theirs is the key
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
        return self.key_file.read_bytes()

    @cached_property
    def _lock(self) -> Path:
        return self.directory / "lock"

    def _open_lock(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            return os.open(self._lock, flags, 0o600)
        except FileNotFoundError:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(self._lock, flags, 0o600)

    @contextmanager
    def locked(self, *, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
        """The one writer's lock, across threads and processes; makes the directory. Raises AuditUnavailable."""
        descriptor = self._open_lock()
        try:
            _wait_for(descriptor, timeout_s)
            yield
        finally:
            os.close(descriptor)

    def read_head(self, key: bytes) -> Head | None:
        """The signed head, None when there is none. Raises ValueError when its signature is wrong."""
        return _read_signed(self.head, key, "head")

    def write_head(self, key: bytes, head: Head) -> None:
        """Replace the head. Not flushed: a head behind the log is normal after a crash, one ahead never is."""
        descriptor = os.open(self.head, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            body = _signed(key, head, "head")
            os.pwrite(descriptor, body, 0)
            os.ftruncate(descriptor, len(body))
        finally:
            os.close(descriptor)

    def read_base(self, key: bytes) -> Head:
        """Where the chain begins. Raises ValueError when the signature is wrong."""
        return _read_signed(self.base, key, "base") or START

    def write_base(self, key: bytes, head: Head) -> None:
        temporary = self.base.with_suffix(".new")
        temporary.write_bytes(_signed(key, head, "base"))
        temporary.replace(self.base)


def _wait_for(descriptor: int, timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    pause_s = 0.0005
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > end:
                raise AuditUnavailable(
                    f"The audit log stayed locked for {timeout_s:.0f} s.",
                    effect="Nothing was recorded, so nothing ran.",
                    next_step="Look for a stuck orchestrator process, then try again.",
                ) from None
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.01)


def _signed(key: bytes, head: Head, purpose: str) -> bytes:
    mark = signature(key, count=head.count, head=head.hash, purpose=purpose)
    return canonical({"count": head.count, "head": head.hash, "signature": mark}) + b"\n"


def _read_signed(path: Path, key: bytes, purpose: str) -> Head | None:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    values = json.loads(text)
    head = Head(int(values["count"]), str(values["head"]))
    if signature(key, count=head.count, head=head.hash, purpose=purpose) != values.get("signature"):
        raise ValueError(f"the signature of {path.name} is wrong")
    return head


def last_line(path: Path) -> tuple[bytes, int]:
    """The last whole line of a file and the offset just behind it; (b"", 0) when there is none."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - TAIL_BYTES)
        file.seek(start)
        tail = file.read()
    end = tail.rfind(b"\n") + 1
    if end == 0:
        return b"", 0
    begin = tail.rfind(b"\n", 0, end - 1) + 1
    return tail[begin:end], start + end
