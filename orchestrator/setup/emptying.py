"""`python -m orchestrator.setup.emptying DIRECTORY`: delete everything below it, frozen snapshots included."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
from pathlib import Path

from orchestrator.drivers.volume import ioctls


def empty(directory: Path) -> list[str]:
    """Returns what could not be deleted, and why."""
    left: list[str] = []
    _thaw(directory)
    for entry in sorted(directory.iterdir()) if directory.is_dir() else []:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, onerror=lambda _, path, error: left.append(f"{path}: {error[1]}"))
        else:
            try:
                entry.unlink()
            except OSError as error:
                left.append(f"{entry}: {error.strerror}")
    return left


def _thaw(directory: Path) -> None:
    """Nothing may be deleted from a directory that is frozen, so from the top down."""
    for place, directories, files in os.walk(directory, followlinks=False):
        for path in (Path(place), *(Path(place, name) for name in (*directories, *files))):
            with contextlib.suppress(OSError):  # a file system without the flag has nothing frozen
                if stat.S_IFMT(path.lstat().st_mode) in (stat.S_IFREG, stat.S_IFDIR):
                    ioctls.set_immutable(path, False)


if __name__ == "__main__":
    remaining = empty(Path(sys.argv[1]))
    for line in remaining[:10]:
        sys.stderr.write(line + "\n")
    sys.exit(1 if remaining else 0)
