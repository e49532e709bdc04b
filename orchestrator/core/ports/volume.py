"""The disk that snapshots, generations and workspaces lie on: clones that share blocks, where it can."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from orchestrator.errors import InvalidInput, LimitReached, OutsideFailure


class VolumeFailed(OutsideFailure):
    code = "outside_failure.volume"


class DiskFull(LimitReached):
    code = "limit_reached.disk"


class OutsideVolume(InvalidInput):
    """A path that does not lie below the volume's root was given."""

    code = "invalid.outside_volume"


class Volume(Protocol):
    """Every path must lie below the volume's root (OutsideVolume). Failures are VolumeFailed or DiskFull."""

    @property
    def root(self) -> Path: ...

    @property
    def is_reflink(self) -> bool:
        """Whether clones share blocks (probed, not assumed)."""
        ...

    @property
    def has_quota(self) -> bool:
        """Whether `limit_tree` is enforced by the file system."""
        ...

    def clone_tree(
        self,
        source: Path,
        target: Path,
        *,
        uid: int | None = None,
        gid: int | None = None,
        size_bytes: int | None = None,
    ) -> None:
        """Copy the tree `source` to the new path `target`, durably and all or nothing.

        It is made as `target` + `.partial`, given to `uid`:`gid`, compared with the source, fsynced, renamed, and
        its parent fsynced. `size_bytes` limits what the copy may occupy, where there are quotas.
        """
        ...

    def remove_tree(self, path: Path) -> None:
        """Delete a tree, frozen or not, and what is left of its `.partial`; one that is not there is fine."""
        ...

    def freeze_tree(self, path: Path) -> None:
        """Make every file immutable, even to root; a clone of it is not."""
        ...

    def thaw_tree(self, path: Path) -> None: ...

    def limit_tree(self, path: Path, size_bytes: int | None) -> bool:
        """Limit what the tree may occupy (None lifts it); False when the file system has no project quotas."""
        ...

    def free_bytes(self) -> int: ...

    def total_bytes(self) -> int: ...

    def give_back(self, *, for_s: float = 60.0) -> int:
        """Give what was deleted here back to the disk below, gently and for `for_s` at most; returns bytes."""
        ...

    def used_bytes(self, path: Path) -> int:
        """The blocks the tree's files refer to, shared ones included."""
        ...

    def exclusive_bytes(self, path: Path) -> int:
        """The blocks no other file shares: what deleting the tree would give back (about)."""
        ...
