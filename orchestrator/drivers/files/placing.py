"""Implements core.ports.placing.Placer on a workspace's directory."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from orchestrator.core.ports.files import EditMismatch, FileNotThere, InvalidPath, PathRefused, WorkspaceFull
from orchestrator.core.ports.placing import NOTHING, SOMETHING_ELSE, link_state
from orchestrator.drivers.files import walking

CHUNK_BYTES = 1_048_576


class ConfinedPlacer:
    """Stateless; every call opens the workspace anew."""

    def state(self, root: Path, path: str) -> str:
        """See the port."""
        parts = _parts(path)
        try:
            with walking.directory(root, parts[:-1]) as above:
                return _state(above, parts[-1])
        except FileNotThere:
            return NOTHING
        except PathRefused:
            return SOMETHING_ELSE

    def put_file(self, root: Path, path: str, source: Path | bytes, *, digest: str, uid: int, expected: str) -> None:
        """See the port."""
        parts = _parts(path)
        with walking.directory(root, parts[:-1], create_as=uid) as above:
            _refuse_other(above, parts[-1], expected, path)
            mode = _mode(above, parts[-1])

            def write(name: str) -> None:
                with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as content:
                    _write(above, name, content, uid=uid, mode=mode, digest=digest)

            _replace(above, parts[-1], write)

    def put_link(self, root: Path, path: str, target: str, *, uid: int, expected: str) -> None:
        """See the port."""
        parts = _parts(path)
        with walking.directory(root, parts[:-1], create_as=uid) as above:
            _refuse_other(above, parts[-1], expected, path)

            def make(name: str) -> None:
                os.symlink(target, name, dir_fd=above)
                os.chown(name, uid, uid, dir_fd=above, follow_symlinks=False)

            _replace(above, parts[-1], make)

    def delete(self, root: Path, path: str, *, expected: str) -> None:
        """See the port."""
        parts = _parts(path)
        with walking.directory(root, parts[:-1]) as above:
            _refuse_other(above, parts[-1], expected, path)
            try:
                os.unlink(parts[-1], dir_fd=above)
            except OSError as error:
                raise PathRefused(f"This cannot be deleted: {error.strerror}.") from error


def _parts(path: str) -> list[str]:
    parts = walking.parts_of(path)
    if not parts:
        raise InvalidPath("Name a file.")
    return parts


def _state(above: int, name: str) -> str:
    try:
        mode = os.stat(name, dir_fd=above, follow_symlinks=False).st_mode
        if stat.S_ISLNK(mode):
            return link_state(os.readlink(name, dir_fd=above))
        if not stat.S_ISREG(mode):
            return SOMETHING_ELSE
        descriptor = os.open(name, walking.PLAIN, dir_fd=above)
    except FileNotFoundError:
        return NOTHING
    except OSError:
        return SOMETHING_ELSE
    with os.fdopen(descriptor, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_other(above: int, name: str, expected: str, path: str) -> None:
    if _state(above, name) != expected:
        raise EditMismatch(
            f"{path} is not what it was.",
            effect="This file was not touched.",
            next_step="Run the command again on the workspace as it is now.",
        )


def _mode(above: int, name: str) -> int:
    try:
        now = os.stat(name, dir_fd=above, follow_symlinks=False).st_mode
    except OSError:
        return 0o644
    return 0o755 if stat.S_ISREG(now) and now & stat.S_IXUSR else 0o644


def _write(above: int, name: str, content: BinaryIO, *, uid: int, mode: int, digest: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    seen = hashlib.sha256()
    with os.fdopen(os.open(name, flags, 0o600, dir_fd=above), "wb") as file:
        while chunk := content.read(CHUNK_BYTES):
            seen.update(chunk)
            file.write(chunk)
        if seen.hexdigest() != digest:
            raise EditMismatch("What was kept of the result is damaged.", effect="This file was not touched.")
        file.flush()
        os.fchown(file.fileno(), uid, uid)
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())


def _replace(above: int, name: str, make: Callable[[str], None]) -> None:
    """Make it beside under another name and rename over: readers see the old one or the new one."""
    temporary = f".{secrets.token_hex(8)}.writing"
    try:
        make(temporary)
        os.rename(temporary, name, src_dir_fd=above, dst_dir_fd=above)
    except OSError as error:
        _forget(above, temporary)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WorkspaceFull(
                "The workspace is full.", effect="This file was not touched.", next_step="Delete files first."
            ) from error
        raise PathRefused(f"This cannot be written: {error.strerror}.") from error
    except BaseException:
        _forget(above, temporary)
        raise


def _forget(above: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=above)
    except OSError:
        return
