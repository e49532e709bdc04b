"""Mounted directories: whether files in them can be executed, and how full they are."""

from __future__ import annotations

import os

_ENTRIES_MAX = 200_000


def is_noexec(path: str) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_NOEXEC)


def present(roots: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the tenant's directories that were really mounted: the image only has empty places for them."""
    root = os.stat("/").st_dev
    read_only = bool(os.statvfs("/").f_flag & os.ST_RDONLY)
    return tuple(path for path in roots if os.path.isdir(path) and not (read_only and os.stat(path).st_dev == root))


def mount_points() -> list[str]:
    """Every mount point, with the kernel's octal escapes undone."""
    points = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            points.append(line.split(" ", 6)[4].encode("utf-8", "surrogateescape").decode("unicode_escape"))
    return points


def executable(roots: tuple[str, ...]) -> list[str]:
    """Those of the tenant's directories, and mounts inside them, whose files could be executed or mapped as code.

    A read-only mount counts too: the engine drops the flag there, and the tenant may have filled it elsewhere.
    """
    inside = [point for point in mount_points() if any(point.startswith(root + "/") for root in roots)]
    return [path for path in (*roots, *inside) if os.path.isdir(path) and not is_noexec(path)]


def usage(path: str) -> dict[str, object]:
    """Bytes and files below `path`, counted up to a bound, and the size of the file system it lies on."""
    used = files = 0
    complete = True
    waiting = [path]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    files += 1
                    used += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except OSError:
            continue
        if files > _ENTRIES_MAX:
            complete = False
            break
    status = os.statvfs(path)
    return {
        "path": path,
        "used_bytes": used,
        "files": files,
        "complete": complete,
        "file_system_bytes": status.f_blocks * status.f_frsize,
        "free_bytes": status.f_bavail * status.f_frsize,
    }
