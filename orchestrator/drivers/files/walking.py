"""Descriptors from a workspace's root down: every component is opened without following links.

The tenant may rename things while we walk. That cannot lead out: each step starts from a descriptor already held,
`..` is refused before the walk, and O_NOFOLLOW refuses a link put in a component's place.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.core.ports.files import (
    DEPTH_MAX,
    PATH_BYTES_MAX,
    FileNotThere,
    FilesFailed,
    InvalidPath,
    PathRefused,
    WorkspaceFull,
)

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
PLAIN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def parts_of(path: str) -> list[str]:
    """The components of a relative path. Raises InvalidPath or PathRefused; `` and `.` are the root."""
    if "\0" in path or len(path.encode("utf-8", "replace")) > PATH_BYTES_MAX:
        raise InvalidPath(f"A path is at most {PATH_BYTES_MAX} bytes long and holds no NUL.")
    if any("\ud800" <= character <= "\udfff" for character in path):
        raise InvalidPath("A path is valid UTF-8.")
    if path.startswith("/"):
        raise PathRefused("Paths are relative to the workspace.", next_step="Leave out the leading /.")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise PathRefused("`..` is not allowed in a path.")
    if len(parts) > DEPTH_MAX:
        raise InvalidPath(f"A path has at most {DEPTH_MAX} parts.")
    return parts


@contextmanager
def directory(root: Path, parts: list[str], *, create_as: int | None = None) -> Iterator[int]:
    """A descriptor of the directory `parts` below `root`. With `create_as`, missing ones are made for that uid."""
    held = _open_root(root)
    try:
        for part in parts:
            if create_as is not None:
                _make(part, held, create_as)
            below = _open(part, DIRECTORY, held)
            os.close(held)
            held = below
        yield held
    finally:
        os.close(held)


@contextmanager
def plain_file(root: Path, parts: list[str]) -> Iterator[tuple[int, os.stat_result]]:
    """A descriptor of the regular file `parts` below `root`, and what fstat says of it."""
    if not parts:
        raise PathRefused("This is a directory, not a file.")
    with directory(root, parts[:-1]) as above:
        descriptor = _open(parts[-1], PLAIN, above)
        try:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise PathRefused("This is not a plain file.")
            yield descriptor, facts
        finally:
            os.close(descriptor)


def _open_root(root: Path) -> int:
    try:
        return os.open(root, DIRECTORY)
    except OSError as error:
        raise FilesFailed(f"The workspace cannot be opened: {error.strerror}.") from error


def _open(name: str, flags: int, above: int) -> int:
    try:
        return os.open(name, flags, dir_fd=above)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise PathRefused("The path goes through a link; links are never followed.") from error
        if error.errno == errno.ENOENT:
            raise FileNotThere(f"There is no {name!a} here.") from error
        if error.errno == errno.ENOTDIR:
            is_link = _is_link(name, above)
            text = "The path goes through a link; links are never followed." if is_link else "This is no directory."
            raise PathRefused(text) from error
        if error.errno == errno.ENAMETOOLONG:
            raise InvalidPath("A name is at most 255 bytes long.") from error
        raise PathRefused(f"This cannot be opened: {error.strerror}.") from error


def _is_link(name: str, above: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _make(name: str, above: int, uid: int) -> None:
    try:
        os.mkdir(name, 0o755, dir_fd=above)
        os.chown(name, uid, uid, dir_fd=above, follow_symlinks=False)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WorkspaceFull(
                "The workspace is full.", effect="Nothing was written.", next_step="Delete files first."
            ) from error
        raise PathRefused(f"This directory cannot be made: {error.strerror}.") from error
