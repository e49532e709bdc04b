"""Reading, watching and replacing one file, so that no reader ever sees half of it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from orchestrator.core.names import new_id
from orchestrator.core.ports.policies import PolicyFileFailed

BYTES_MAX = 2_097_152
# Two edits within one tick of the file system's clock cannot be told apart by time; a file this young is read again.
YOUNG_NS = 2_000_000_000


class DiskPolicyFile:
    """The PolicyFile port."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def name(self) -> str:
        return str(self._path)

    def stamp(self) -> object:
        """Identity, size and times; while the file is young, something that never equals itself."""
        try:
            seen = self._path.stat()
        except OSError:
            return None
        if abs(time.time_ns() - seen.st_mtime_ns) < YOUNG_NS:
            return object()
        return (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)

    def read(self) -> str:
        """The whole file. Raises PolicyFileFailed."""
        try:
            with self._path.open("rb") as file:
                content = file.read(BYTES_MAX + 1)
            if len(content) > BYTES_MAX:
                raise PolicyFileFailed(f"{self._path} has more than {BYTES_MAX} bytes.")
            return content.decode("utf-8")
        except (OSError, UnicodeDecodeError) as problem:
            raise PolicyFileFailed(
                f"{self._path} cannot be read: {problem}.", next_step="Restore the file, or its permissions."
            ) from problem

    def write(self, text: str) -> None:
        """Replace the file. Raises PolicyFileFailed; then the old one stands."""
        temporary = self._path.with_name(f".{self._path.name}.{new_id('n')}")
        try:
            mode = self._path.stat().st_mode & 0o777 if self._path.exists() else 0o644
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(text.encode("utf-8"))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as problem:
            temporary.unlink(missing_ok=True)
            raise PolicyFileFailed(
                f"{self._path} cannot be written: {problem}.", effect="The allowlist in force stays as it is."
            ) from problem
