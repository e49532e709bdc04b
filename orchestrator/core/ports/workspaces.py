"""Copies of a tenant's workspace: is this tree safe to run on, and what differs between two of them?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from orchestrator.core.commands import FileChanged


@dataclass(frozen=True)
class TreeMark:
    """What a tree looked like: per path values that no unprivileged program can set back."""

    entries: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Keeping:
    """Where a tree is mounted `inside`, where its large files are kept, and how many bytes may be kept in all."""

    inside: str
    aside: Path
    bytes_max: int


@dataclass(frozen=True)
class TreeChanges:
    """`paths` are all that differ, sorted; `files` say what became of each, as far as they are kept.

    `complete`: every path is among `files`, and every one of them can be applied.
    """

    paths: tuple[str, ...]
    files: tuple[FileChanged, ...]
    complete: bool


class Workspaces(Protocol):
    def mark(self, tree: Path, *, inside: str) -> TreeMark:
        """Look over a copy that nothing writes to. `inside` is where it will be mounted.

        Raises WorkspaceNotCopyable for a special file, a link that leads out, or more files than can be watched.
        """
        ...

    def changes(self, base: Path, tree: Path, before: TreeMark, keeping: Keeping) -> TreeChanges:
        """What became of `tree` since `before`; `base` is an untouched copy of what it was.

        Files over 1 MiB are copied to `keeping.aside` under their digests.
        """
        ...
