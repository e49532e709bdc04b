"""The disk for snapshots and generations: a reflink volume where it can be mounted, else plain copies, said plainly."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.drivers.volume import ioctls, mounts
from orchestrator.errors import OrchestratorError
from orchestrator.setup.deputy import as_root
from orchestrator.setup.options import SetupOptions
from orchestrator.setup.steps import CheckResult, Progress

GIB = 1 << 30
CLONING = frozenset({"xfs", "btrfs"})


def excuse(var: Path) -> Path:
    """The file that says why there is no volume of ours; while it is there plain copies are made."""
    return var / "disk.plain-copies"


class VolumeStep:
    """Clones share blocks and nothing on the volume can be executed; or it is known why not."""

    name = "reflink volume"

    def __init__(self, options: SetupOptions) -> None:
        self._options = options
        self._point = options.places.disk
        self._image = options.places.var / "disk.img"
        self._reason = excuse(options.places.var)
        self._size_bytes = options.disk_bytes

    def check(self) -> CheckResult:
        if self._point.is_dir():
            lacking = mounts.lacking_options(self._point)
            shares = self._shares()
            if shares and not lacking:
                found = mounts.mount_of(self._point)
                slow = ", slow: mounted with `discard` until it is mounted again" if "discard" in found.options else ""
                return CheckResult(self.name, True, note=f"{self._point}, {found.file_system}{slow}")
            if self._is_settled():
                return CheckResult(self.name, True, note=self._shortcomings(shares, lacking))
        return CheckResult(self.name, False, f"{self._point} is not prepared", "Run make setup.")

    def do(self, progress: Progress) -> None:
        self._point.mkdir(parents=True, exist_ok=True)
        try:
            # Only root may mount: others have a container do it, with the engine's rights.
            run = None if self._options.is_root else as_root(self._options.places)
            if not self._image.exists():
                size = self._size_bytes or mounts.default_size_bytes(self._point)
                progress(f"creating {self._image}, {size / GIB:.0f} GiB sparse")
                mounts.make_image(self._image, size, run=run)
            mounts.mount_image(self._image, self._point, run=run)
        except OrchestratorError as failure:
            self._settle(failure.message, progress)
        else:
            self._reason.unlink(missing_ok=True)

    def _shares(self) -> bool:
        if os.access(self._point, os.W_OK):
            return ioctls.can_clone(self._point)
        return mounts.mount_of(self._point).file_system in CLONING  # root's: it cannot be tried

    def _settle(self, reason: str, progress: Progress) -> None:
        progress(f"falling back to plain copies: {reason}")
        self._reason.write_text(reason + "\n")

    def _is_settled(self) -> bool:
        # What stopped us as a plain user does not stop root: try again then.
        return self._reason.exists() and (not self._options.is_root or self._reason.stat().st_uid == 0)

    def _shortcomings(self, shares: bool, lacking: frozenset[str]) -> str:
        parts = []
        if not shares:
            parts.append("plain copies: slower, and every generation takes its full size")
        if lacking:
            parts.append(f"mounted without {', '.join(sorted(lacking))}: tenants are gate only")
        return f"{'; '.join(parts)} ({self._reason.read_text().strip()})"


def remove_volume(var: Path, *, run: mounts.Run | None = None) -> None:
    """Unmount and delete the volume with everything on it. Raises VolumeFailed while it is in use."""
    mounts.unmount(var / "disk", run=run)
    (var / "disk.img").unlink(missing_ok=True)
    excuse(var).unlink(missing_ok=True)


def require_volume(var: Path) -> None:
    """Raises VolumeFailed where there is a volume and it is not mounted, as after the machine was started again."""
    if not excuse(var).exists():
        mounts.require_mounted(var / "disk.img", var / "disk")
