"""Making the reflink volume: a sparse XFS image, loop-mounted so that nothing on it can be executed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.core.ports.volume import VolumeFailed

LOOP_MAJOR = 7
LOOP_CTL_GET_FREE = 0x4C82
# Not `discard`: what one tenant's removal frees would be given back while all others wait, a second for each clone
# that follows. The prune job gives it back in small pieces instead.
MOUNT_OPTIONS = "loop,nosuid,nodev,noexec,noatime"
REQUIRED_OPTIONS = frozenset({"nosuid", "nodev", "noexec"})
COMMAND_TIMEOUT_S = 120
MINIMUM_BYTES = 320 * 2**20  # mkfs.xfs refuses less than 300 MiB
ATTEMPTS = 5
Run = Callable[[Sequence[str]], None]  # of a program that needs root, or that this host may lack


@dataclass(frozen=True)
class Mount:
    point: Path
    device: str
    file_system: str
    options: frozenset[str]


def mounts() -> list[Mount]:
    """Every mount of this process's namespace, the latest last."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        fields, source = left.split(" "), right.split(" ")
        options = frozenset(fields[5].split(",")) | frozenset(source[2].split(","))
        found.append(Mount(Path(_unescaped(fields[4])), _unescaped(source[1]), source[0], options))
    return found


def mount_of(path: Path) -> Mount:
    """The mount a path lies on."""
    resolved = path.resolve()
    best: Mount | None = None
    for mount in mounts():
        inside = mount.point == resolved or mount.point in resolved.parents
        if inside and (best is None or len(str(mount.point)) >= len(str(best.point))):
            best = mount
    if best is None:
        raise VolumeFailed(f"No mount holds {path}.")
    return best


def is_mounted(point: Path) -> bool:
    return point.exists() and any(mount.point == point.resolve() for mount in mounts())


def lacking_options(path: Path) -> frozenset[str]:
    """Which of nosuid, nodev and noexec the mount under `path` lacks."""
    return REQUIRED_OPTIONS - mount_of(path).options


def make_image(image: Path, size_bytes: int, *, run: Run | None = None) -> None:
    """Create a sparse XFS image with shared blocks; it takes its final name only when it is complete."""
    if size_bytes < MINIMUM_BYTES:
        raise VolumeFailed(f"A volume of {size_bytes} bytes is too small; it takes at least {MINIMUM_BYTES}.")
    image.parent.mkdir(parents=True, exist_ok=True)
    partial = image.with_name(image.name + ".partial")
    partial.unlink(missing_ok=True)
    with partial.open("wb") as file:
        file.truncate(size_bytes)
    partial.chmod(0o600)
    # A small copy-on-write extent hint: the default of 128 KiB multiplies the space of scattered row changes.
    (run or run_here)(["mkfs.xfs", "-q", "-f", "-m", "reflink=1", "-d", "cowextsize=4", str(partial)])
    partial.rename(image)


def mount_image(image: Path, point: Path, *, run: Run | None = None) -> None:
    """Loop-mount an image at `point`, nosuid, nodev and noexec; nothing when it is mounted already."""
    if is_mounted(point):
        return
    point.mkdir(parents=True, exist_ok=True)
    last: VolumeFailed | None = None
    for _ in range(ATTEMPTS):
        _ensure_loop_node()
        # Not every kernel keeps quotas: without them sizes are watched instead of enforced.
        for options in (f"{MOUNT_OPTIONS},prjquota", MOUNT_OPTIONS):
            try:
                (run or run_here)(["mount", "-t", "xfs", "-o", options, str(image), str(point)])
            except VolumeFailed as failure:
                last = failure
            else:
                with contextlib.suppress(PermissionError):  # a new one has this mode anyway
                    point.chmod(0o755)
                return
        if is_mounted(point):  # by another process, in between
            return
    raise last or VolumeFailed(f"{image} could not be mounted.")


def unmount(point: Path, *, run: Run | None = None) -> None:
    """Unmount; nothing when it is not mounted. Raises VolumeFailed while somebody uses it."""
    if is_mounted(point):
        (run or run_here)(["umount", str(point)])


def require_mounted(image: Path, point: Path) -> None:
    """Raises VolumeFailed where the image was made and is not mounted: what is on it would seem to be gone."""
    if image.exists() and not is_mounted(point):
        raise VolumeFailed(
            f"The volume of this installation is not mounted at {point}.",
            effect="Nothing was started or changed: snapshots and tenants' databases are on it.",
            next_step="`make setup` mounts it; then start again.",
        )


def default_size_bytes(directory: Path) -> int:
    """40 GiB, or four fifths of what is free where less is."""
    free = shutil.disk_usage(_existing(directory)).free
    return max(MINIMUM_BYTES, min(40 * 2**30, free * 4 // 5))


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _ensure_loop_node() -> None:
    """Where /dev is a plain directory, nodes for further loop devices do not appear by themselves."""
    control = Path("/dev/loop-control")
    with contextlib.suppress(OSError):
        if not control.exists():
            os.mknod(control, 0o660 | stat.S_IFCHR, os.makedev(10, 237))
        with control.open("rb") as file:
            number = fcntl.ioctl(file.fileno(), LOOP_CTL_GET_FREE)
        node = Path(f"/dev/loop{number}")
        if not node.exists():
            os.mknod(node, 0o660 | stat.S_IFBLK, os.makedev(LOOP_MAJOR, number))


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def run_here(argv: Sequence[str]) -> None:
    """Run a program of this host. Raises VolumeFailed with what it said."""
    environment = {"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    try:
        done = subprocess.run(
            list(argv), check=False, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, env=environment
        )
    except FileNotFoundError as failure:
        raise VolumeFailed(f"{argv[0]} is not installed.", next_step="Install xfsprogs and util-linux.") from failure
    except subprocess.TimeoutExpired as failure:
        raise VolumeFailed(f"{argv[0]} took longer than {COMMAND_TIMEOUT_S} s.") from failure
    if done.returncode != 0:
        raise VolumeFailed(f"{argv[0]} failed: {done.stderr.strip()[-500:]}")
