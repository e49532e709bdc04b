"""Copying, freezing, limiting and deleting whole trees on the volume."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

from orchestrator.core.ports.volume import DiskFull, OutsideVolume, VolumeFailed
from orchestrator.drivers.volume import ioctls, trimming
from orchestrator.drivers.volume.mounts import mount_of

COPY_TIMEOUT_S = 1800
PROBE_BYTES = 1 << 16


class LocalVolume:
    """The Volume port on a directory of this host. Probes once, when made, what the file system can do."""

    def __init__(self, root: Path) -> None:
        try:
            root.mkdir(parents=True, exist_ok=True)
            self._root = root.resolve(strict=True)
            mount = mount_of(self._root)
            self._is_reflink = ioctls.can_clone(self._root)
        except OSError as failure:
            raise _explained(failure, f"The volume {root} cannot be used") from failure
        self._is_xfs = mount.file_system == "xfs"
        self._device = mount.device
        self._has_quota = self._is_xfs and "prjquota" in mount.options and self._quota_holds()

    @property
    def root(self) -> Path:
        return self._root

    @property
    def is_reflink(self) -> bool:
        return self._is_reflink

    @property
    def has_quota(self) -> bool:
        return self._has_quota

    def clone_tree(
        self,
        source: Path,
        target: Path,
        *,
        uid: int | None = None,
        gid: int | None = None,
        size_bytes: int | None = None,
    ) -> None:
        self._check_inside(target)
        partial = _partial(target)
        if target.exists() or target.is_symlink():
            raise VolumeFailed(f"{target} exists already.", effect="Nothing was copied.")
        self.remove_tree(partial)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            partial.mkdir(mode=0o700)
            if self._has_quota:
                ioctls.set_project(partial, _project(target))
                ioctls.set_quota(self._device, _project(target), size_bytes or 0)
            wanted = self._copy(source, partial)
            owner = None if uid is None and gid is None else (-1 if uid is None else uid, -1 if gid is None else gid)
            _compare(source, wanted, _entries(partial, owner=owner))
            self._publish(partial, target)
        except (OSError, VolumeFailed, DiskFull) as failure:
            shutil.rmtree(partial, ignore_errors=True)
            if isinstance(failure, OSError):
                raise _explained(failure, f"Copying {source} to {target} failed") from failure
            raise

    def remove_tree(self, path: Path) -> None:
        self._check_inside(path)
        for victim in (path, _partial(path)):
            try:
                if victim.is_symlink() or victim.is_file():
                    victim.unlink()
                elif victim.exists():
                    self._remove_directory(victim)
            except OSError as failure:
                raise _explained(failure, f"Deleting {victim} failed") from failure
        if self._has_quota:
            try:
                ioctls.set_quota(self._device, _project(path), 0)
            except OSError as failure:
                raise _explained(failure, f"The quota of {path} could not be lifted") from failure

    def _remove_directory(self, victim: Path) -> None:
        try:
            shutil.rmtree(victim)
        except PermissionError:
            self.thaw_tree(victim)
            shutil.rmtree(victim)

    def freeze_tree(self, path: Path) -> None:
        self._set_immutable(path, True)

    def thaw_tree(self, path: Path) -> None:
        self._set_immutable(path, False)

    def _set_immutable(self, path: Path, wanted: bool) -> None:
        self._check_inside(path)
        try:
            # A frozen directory takes no change of its members' names, but their flags can still be set.
            for member in _members(path):
                ioctls.set_immutable(member, wanted)
        except OSError as failure:
            if failure.errno in {errno.EOPNOTSUPP, errno.ENOTTY, errno.EPERM} and wanted:
                _write_protect(path)
                return
            raise _explained(failure, f"The immutable flag of {path} could not be changed") from failure

    def limit_tree(self, path: Path, size_bytes: int | None) -> bool:
        self._check_inside(path)
        if not self._has_quota:
            return False
        project = _project(path)
        try:
            for member in _members(path):
                ioctls.set_project(member, project)
            ioctls.set_quota(self._device, project, size_bytes or 0)
        except OSError as failure:
            raise _explained(failure, f"The size of {path} could not be limited") from failure
        return True

    def free_bytes(self) -> int:
        state = os.statvfs(self._root)
        return state.f_bavail * state.f_frsize

    def total_bytes(self) -> int:
        state = os.statvfs(self._root)
        return state.f_blocks * state.f_frsize

    def give_back(self, *, for_s: float = 60.0) -> int:
        return trimming.give_back(self._root, for_s=for_s)

    def used_bytes(self, path: Path) -> int:
        self._check_inside(path)
        if self._has_quota:
            try:
                used = ioctls.quota_usage_bytes(self._device, _project(path))
            except OSError:
                used = 0  # a tree that was never given a project has no record
            if used:
                return used
        return sum(entry.blocks for entry in _files(path))

    def exclusive_bytes(self, path: Path) -> int:
        self._check_inside(path)
        total = 0
        for file in _files(path):
            try:
                total += ioctls.exclusive_bytes(file.path) if self._is_reflink else file.blocks
            except FileNotFoundError:
                continue  # a running server deletes files while we count
            except OSError as failure:
                raise _explained(failure, f"The extents of {file.path} could not be read") from failure
        return total

    def _copy(self, source: Path, partial: Path) -> dict[str, int]:
        """Copy, and read meanwhile what there is to copy; returns that."""
        mode = "always" if self._is_reflink and _same_device(source, partial) else "auto"
        argv = ["cp", "-a", f"--reflink={mode}", "--", f"{source}/.", f"{partial}/"]
        environment = {"LC_ALL": "C", "PATH": os.environ.get("PATH", "/usr/bin:/bin")}
        with subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        ) as copying:
            try:
                wanted = _entries(source) if source.is_dir() else {}
                _, said = copying.communicate(timeout=COPY_TIMEOUT_S)
            except subprocess.TimeoutExpired as failure:
                raise VolumeFailed(f"Copying {source} took longer than {COPY_TIMEOUT_S} s.") from failure
            finally:
                if copying.poll() is None:
                    copying.kill()
        if copying.returncode != 0:
            text = said.strip()[-500:]
            if "No space left" in text or "quota exceeded" in text:
                raise DiskFull(f"There is no room for a copy of {source}.", effect="The copy was removed.")
            raise VolumeFailed(f"Copying {source} failed: {text}", effect="The copy was removed.")
        return wanted

    def _publish(self, partial: Path, target: Path) -> None:
        """Durable, then under its final name.

        XFS keeps its log in order and shared blocks are durable already: there the flush of the rename, which comes
        last, takes everything before it along. Elsewhere every file counts, and must be safe before it is named.
        """
        if not (self._is_xfs and self._is_reflink):
            for member in _members(partial):
                _fsync(member)
        partial.rename(target)
        _fsync(target.parent)

    def _quota_holds(self) -> bool:
        """Try it: a mount option says little about what the kernel enforces."""
        probe = self._root / f".probe-{os.getpid()}"
        try:
            probe.mkdir()
            ioctls.set_project(probe, _project(probe))
            ioctls.set_quota(self._device, _project(probe), PROBE_BYTES)
            with (probe / "file").open("wb", buffering=0) as file:
                file.write(bytes(4 * PROBE_BYTES))
                os.fsync(file.fileno())
                return os.fstat(file.fileno()).st_size < 4 * PROBE_BYTES
        except OSError as failure:
            return failure.errno in {errno.ENOSPC, errno.EDQUOT}
        finally:
            shutil.rmtree(probe, ignore_errors=True)
            with contextlib.suppress(OSError):
                ioctls.set_quota(self._device, _project(probe), 0)

    def _check_inside(self, path: Path) -> None:
        normal = Path(os.path.normpath(path))
        if not normal.is_absolute() or self._root not in normal.parents:
            resolved = normal.parent.resolve() / normal.name
            if self._root not in resolved.parents:
                raise OutsideVolume(f"{str(path)!a} does not lie below the volume {self._root}.")


class _File:
    __slots__ = ("blocks", "path")

    def __init__(self, path: Path, blocks: int) -> None:
        self.path = path
        self.blocks = blocks


def _partial(target: Path) -> Path:
    return target.with_name(target.name + ".partial")


def _project(path: Path) -> int:
    """A stable quota project of a tree: 31 bits of its path's digest, never 0."""
    digest = hashlib.sha256(os.fsencode(os.path.normpath(path))).digest()
    return int.from_bytes(digest[:4], "big") >> 1 or 1


def _members(path: Path) -> Iterator[Path]:
    """The directories and regular files of a tree, the top first; links are neither followed nor named."""
    yield path
    for directory, directories, files in os.walk(path, followlinks=False):
        for name in (*directories, *files):
            member = Path(directory, name)
            mode = member.lstat().st_mode
            if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
                yield member


def _files(path: Path) -> Iterator[_File]:
    for directory, _, files in os.walk(path, followlinks=False):
        for name in files:
            member = Path(directory, name)
            try:
                state = member.lstat()
            except FileNotFoundError:
                continue
            if stat.S_ISREG(state.st_mode):
                yield _File(member, state.st_blocks * 512)


def _entries(root: Path, *, owner: tuple[int, int] | None = None) -> dict[str, int]:
    """Every file below `root` with its size, every directory with -1; all of it is given to `owner` on the way."""
    if owner is not None:
        os.chown(root, *owner, follow_symlinks=False)
    found: dict[str, int] = {}
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        with os.scandir(f"{root}/{inside}") as entries:
            for entry in entries:
                name = inside + entry.name
                if owner is not None:
                    os.chown(entry.path, *owner, follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    found[name] = -1
                    waiting.append(f"{name}/")
                else:
                    found[name] = entry.stat(follow_symlinks=False).st_size
    return found


def _compare(source: Path, wanted: dict[str, int], made: dict[str, int]) -> None:
    """A data directory with files missing starts happily: never let a short copy get its final name."""
    if wanted != made:
        different = sorted(wanted.items() ^ made.items())
        raise VolumeFailed(
            f"The copy of {source} differs from it in {len(different)} entries, as {different[:3]}.",
            effect="The copy was removed.",
        )


def _write_protect(path: Path) -> None:
    """Without the immutable flag: no write permission for anybody but root."""
    for member in _members(path):
        member.chmod(member.stat().st_mode & ~0o222)


def _same_device(first: Path, second: Path) -> bool:
    return first.stat().st_dev == second.stat().st_dev


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explained(failure: OSError, what: str) -> VolumeFailed | DiskFull:
    if failure.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFull(f"{what}: no room is left.", next_step="Prune snapshots or enlarge the volume.")
    return VolumeFailed(f"{what}: {failure.strerror or failure}.")
