"""Which files of the workspace a command changed: two bounded listings, compared."""

from __future__ import annotations

import os

ENTRIES_MAX = 20_000

Listing = dict[str, tuple[int, int, int]]


def listing(root: str) -> tuple[Listing, bool]:
    """Inode, size and change time of everything below `root`, and whether that is all of it.

    The change time cannot be set by a program, so a file that was restored to its old mtime still shows.
    """
    found: Listing = {}
    waiting = [root]
    while waiting:
        directory = waiting.pop()
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if len(found) >= ENTRIES_MAX:
                        return found, False
                    is_directory = entry.is_dir(follow_symlinks=False)
                    if is_directory:
                        waiting.append(entry.path)
                        # A directory's own times change with every entry; only its coming and going counts.
                        found[entry.path] = (entry.inode(), 0, 0)
                        continue
                    status = entry.stat(follow_symlinks=False)
                    found[entry.path] = (status.st_ino, status.st_size, status.st_ctime_ns)
        except OSError:
            continue
    return found, True


def compare(root: str, before: Listing, after: Listing, count_max: int) -> tuple[list[str], bool]:
    """Paths that came, went or changed, relative to `root` and sorted; False when there are more than `count_max`."""
    changed = {path for path, facts in after.items() if before.get(path) != facts}
    changed.update(path for path in before if path not in after)
    names = sorted(printable(os.path.relpath(path, root)) for path in changed)
    return names[:count_max], len(names) <= count_max


def printable(path: str) -> str:
    """A file name as valid Unicode; bytes that are not are shown escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
