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
class TreeChanges:
    """`paths` are all that differ, sorted; `files` those whose contents can be kept and applied."""

    paths: tuple[str, ...]
    files: tuple[FileChanged, ...]
    complete: bool


class Workspaces(Protocol):
    def mark(self, tree: Path, *, inside: str) -> TreeMark:
        """Look over a copy that nothing writes to. `inside` is where it will be mounted.

        Raises WorkspaceNotCopyable for a special file, a link that leads out, or more files than can be watched.
        """
        ...

    def changes(self, base: Path, tree: Path, before: TreeMark) -> TreeChanges:
        """What became of `tree` since `before`; `base` is an untouched copy of what it was."""
        ...
