"""Notice that the app's files changed.

The kernel says that something happened, a bounded scan says whether it matters.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from . import kernel
from .loop import READ, Loop, Timer

FILES_MAX = 5_000
_DIRECTORIES_MAX = 1_000
# Editors and git write in bursts: wait until it is quiet, but not for ever.
_QUIET_S = 0.15
_POLL_S = 1.0
_IGNORED = frozenset({"__pycache__", ".git", "node_modules", ".pytest_cache", ".venv"})

Signature = tuple[tuple[str, int, int], ...]


class Watcher:
    """Calls `on_change` after files below `paths` with one of the suffixes changed. Without inotify it polls."""

    def __init__(self, loop: Loop, paths: list[str], suffixes: tuple[str, ...], on_change: Callable[[], None]) -> None:
        self._loop = loop
        self._paths = paths
        self._suffixes = suffixes
        self._on_change = on_change
        self._timer: Timer | None = None
        try:
            self._notify = kernel.inotify_create()
        except OSError:
            self._notify = -1
        self._signature = self._scan()
        if self._notify >= 0:
            loop.watch(self._notify, READ, lambda _: self._on_event())
        else:
            self._schedule(_POLL_S)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._notify >= 0:
            self._loop.forget(self._notify)
            os.close(self._notify)
            self._notify = -1

    def _schedule(self, delay_s: float) -> None:
        self._timer = self._loop.later(delay_s, self._compare)

    def _on_event(self) -> None:
        try:
            while os.read(self._notify, 65536):
                pass
        except OSError:
            pass  # drained
        if self._timer is None:
            self._schedule(_QUIET_S)

    def _compare(self) -> None:
        self._timer = None
        signature = self._scan()
        if signature != self._signature:
            self._signature = signature
            # Once more after this burst: what changed during the scan raises an event of its own.
            self._on_change()
        if self._notify < 0:
            self._schedule(_POLL_S)

    def _scan(self) -> Signature:
        found: list[tuple[str, int, int]] = []
        waiting = list(self._paths)
        directories = 0
        while waiting and directories < _DIRECTORIES_MAX and len(found) < FILES_MAX:
            directory = waiting.pop()
            directories += 1
            self._watch(directory)
            try:
                with os.scandir(directory) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            if entry.name not in _IGNORED:
                                waiting.append(entry.path)
                        elif entry.name.endswith(self._suffixes):
                            status = entry.stat(follow_symlinks=False)
                            found.append((entry.path, status.st_mtime_ns, status.st_size))
            except OSError:
                continue
        return tuple(sorted(found))

    def _watch(self, directory: str) -> None:
        if self._notify >= 0:
            try:
                kernel.inotify_watch(self._notify, directory)
            except OSError:
                pass  # vanished meanwhile, or out of watches: the rest is still noticed
