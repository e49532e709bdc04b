"""Putting a finished result into a workspace: files of any size, links and deletions, each onto what was expected."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

NOTHING = ""
SOMETHING_ELSE = "something else"


def link_state(target: str) -> str:
    """The state of a path at which a link to `target` stands."""
    return f"link:{target}"


class Placer(Protocol):
    """`root` is a workspace, `uid` owns what is put there; no component of a path is followed through a link.

    A path's state is "" (nothing there), a file's SHA-256, `link_state(target)`, or SOMETHING_ELSE. What changes a
    path takes the state it expects and raises EditMismatch when there is another; also PathRefused, WorkspaceFull.
    """

    def state(self, root: Path, path: str) -> str: ...

    def put_file(self, root: Path, path: str, source: Path | bytes, *, digest: str, uid: int, expected: str) -> None:
        """Replace or create atomically, streamed. `digest` is what the source must hold (EditMismatch otherwise)."""
        ...

    def put_link(self, root: Path, path: str, target: str, *, uid: int, expected: str) -> None: ...

    def delete(self, root: Path, path: str, *, expected: str) -> None: ...
