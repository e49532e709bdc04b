"""Looking at a tenant's files from the host, one name at a time, never following a link."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from orchestrator.core.allowlist.paths import Kind, Seen

_UNKNOWN = Seen(Kind.UNKNOWN)
_MISSING = Seen(Kind.MISSING)
_KINDS = {stat.S_IFDIR: Seen(Kind.DIRECTORY), stat.S_IFREG: Seen(Kind.FILE)}
_OTHER = Seen(Kind.OTHER)


class HostLinks:
    """The Links port over `mounts`: directories inside the sandbox and where they lie on the host.

    The caller resolves links itself and asks only for paths whose parents are real. A parent swapped for a link in
    between could show something of the host as existing or not, never its contents; the kernel's rules hold then.
    """

    def __init__(self, mounts: Mapping[str, Path]) -> None:
        self._mounts = {inside: os.fspath(outside) for inside, outside in mounts.items()}

    def look(self, path: str) -> Seen:
        """What is at `path` inside the sandbox; UNKNOWN outside the mounts."""
        outside = self._outside(path)
        if outside is None:
            return _UNKNOWN
        try:
            mode = os.lstat(outside).st_mode
            if stat.S_ISLNK(mode):
                return Seen(Kind.LINK, os.readlink(outside))  # noqa: PTH115 - a string is what is compared
        except (FileNotFoundError, NotADirectoryError):
            return _MISSING
        except (OSError, ValueError):
            return _OTHER
        return _KINDS.get(stat.S_IFMT(mode), _OTHER)

    def _outside(self, path: str) -> str | None:
        for inside, outside in self._mounts.items():
            if path == inside or path.startswith(inside + "/"):
                return outside + path[len(inside) :]
        return None
