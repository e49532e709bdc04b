"""Files of a workspace as people and agents see them through the API: confined, bounded, never followed out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from orchestrator.errors import Conflict, Denied, InvalidInput, LimitReached, NotFound, OutsideFailure

READ_BYTES_MAX = 1_048_576
WRITE_BYTES_MAX = 8 * 1_048_576
ENTRIES_MAX = 2_000
MATCHES_MAX = 500
PATH_BYTES_MAX = 1_024
DEPTH_MAX = 32


class PathRefused(Denied):
    """The path leaves the workspace, goes through a link, or names something that is no plain file."""

    code = "denied.path"


class InvalidPath(InvalidInput):
    code = "invalid.path"


class FileNotThere(NotFound):
    code = "not_found.file"


class FileTooLarge(LimitReached):
    code = "limit_reached.file_size"


class WorkspaceFull(LimitReached):
    """The workspace's hard size limit, enforced by the file system."""

    code = "limit_reached.workspace_full"


class EditMismatch(Conflict):
    """The text to replace is not there exactly once, or the file changed since it was read."""

    code = "conflict.edit"


class FilesFailed(OutsideFailure):
    code = "outside_failure.files"


class EntryKind(StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    OTHER = "other"


@dataclass(frozen=True)
class Entry:
    """One name in a directory. Links are shown and never followed."""

    path: str
    kind: EntryKind
    size_bytes: int
    changed_at: datetime
    is_executable: bool


@dataclass(frozen=True)
class Listing:
    entries: tuple[Entry, ...]
    truncated: bool


@dataclass(frozen=True)
class FilePart:
    """Some bytes of a file. `digest` (SHA-256) is of the whole file when all of it was read, else empty."""

    path: str
    content: bytes
    offset: int
    size_bytes: int
    digest: str


@dataclass(frozen=True)
class Match:
    path: str
    line: int
    text: str


@dataclass(frozen=True)
class Matches:
    matches: tuple[Match, ...]
    truncated: bool
    files_searched: int


class Files(Protocol):
    """`root` is a workspace; `uid` owns what is written. Paths are relative, with `/` between their parts."""

    def entries(self, root: Path, path: str, *, recursive: bool = False) -> Listing: ...

    def read(self, root: Path, path: str, *, offset: int = 0, limit: int = READ_BYTES_MAX) -> FilePart: ...

    def write(self, root: Path, path: str, content: bytes, *, uid: int, expected_digest: str | None = None) -> FilePart:
        """Replace or create atomically, making directories on the way. `expected_digest=""` means: must not exist."""
        ...

    def edit(self, root: Path, path: str, old: str, new: str, *, uid: int) -> FilePart:
        """Replace `old`, which must stand in the file exactly once. Raises EditMismatch."""
        ...

    def delete(self, root: Path, path: str) -> None:
        """Delete one file or link."""
        ...

    def glob(self, root: Path, pattern: str) -> Listing:
        """Paths matching `pattern` (`*` within a name, `**` over directories)."""
        ...

    def search(self, root: Path, text: str, *, under: str = "", ignore_case: bool = False) -> Matches:
        """Lines holding `text` literally; no regular expressions, so no pattern can hang."""
        ...
