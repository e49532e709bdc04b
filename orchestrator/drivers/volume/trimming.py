"""Giving back what was deleted on the volume to the disk its image lies on, a piece at a time.

The file system could do it by itself as it deletes (`discard`), but then everybody waits: a clone that follows a
removal took a second instead of a twentieth of one.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

from orchestrator.drivers.volume import ioctls

PIECE_BYTES = 32 << 20
PAUSE_S = 0.05  # between two pieces the tenants' writes have their turn
WORTH_BYTES = 1 << 30  # below this, it is not worth the trouble


def give_back(root: Path, *, for_s: float) -> int:
    """Work at it for `for_s` at most; returns the bytes the image became smaller. 0 where there is no image."""
    image = _image_below(root)
    if image is None:
        return 0
    before = _allocated_bytes(image)
    state = os.statvfs(root)
    if before - (state.f_blocks - state.f_bfree) * state.f_frsize < WORTH_BYTES:
        return 0
    pieces = range(0, state.f_blocks * state.f_frsize, PIECE_BYTES)
    first = random.randrange(len(pieces))  # noqa: S311 what one round had no time for, another begins with
    deadline = time.monotonic() + for_s
    for start in [*pieces[first:], *pieces[:first]]:
        if time.monotonic() > deadline or not ioctls.trim(root, start, PIECE_BYTES):
            break
        time.sleep(PAUSE_S)
    return max(0, before - _allocated_bytes(image))


def _image_below(root: Path) -> Path | None:
    """The file of the loop device `root` is mounted from; a disk of its own is somebody else's to trim."""
    device = root.stat().st_dev
    try:
        named = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/loop/backing_file").read_text().strip()
    except OSError:
        return None
    return Path(named) if Path(named).is_file() else None


def _allocated_bytes(image: Path) -> int:
    return image.stat().st_blocks * 512
