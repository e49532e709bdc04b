"""What the file system offers below Python's os module: clones, inode flags, project ids, shared extents, quotas."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

FICLONE = 0x40049409
FS_IOC_FIEMAP = 0xC020660B
FS_IOC_GETFLAGS = 0x80086601
FS_IOC_SETFLAGS = 0x40086602
FITRIM = 0xC0185879
FS_IOC_FSGETXATTR = 0x801C581F
FS_IOC_FSSETXATTR = 0x401C5820
IMMUTABLE = 0x10
PROJECT_INHERIT = 0x200
EXTENT_LAST = 0x1
EXTENT_SHARED = 0x2000
EXTENTS_A_CALL = 256

_XATTR = struct.Struct("=IIIII8x")  # xflags, extent size, extents, project id, copy-on-write extent size
_FIEMAP = struct.Struct("=QQIIII")
_RANGE = struct.Struct("=QQQ")  # start, length, the shortest piece worth it
_EXTENT = struct.Struct("=QQQQQIIII")
_QUOTA = struct.Struct("=bbHI6Q2i2H4b3QiHh8x")

_GET_QUOTA = ((ord("X") << 8) + 3) << 8 | 2
_SET_LIMIT = ((ord("X") << 8) + 4) << 8 | 2
_INODE_HARD, _BLOCK_HARD = 1 << 1, 1 << 3
_QUOTA_BLOCK_BYTES = 512
# What a file costs the file system itself is nobody's usage: without a limit, empty files could fill the disk.
_BYTES_A_FILE = 8_192
_FILES_MIN = 10_000


def clone_file(source: Path, target: Path) -> None:
    """Make `target` share `source`'s blocks. Raises OSError where the file system cannot."""
    with source.open("rb") as old, target.open("xb") as new:
        fcntl.ioctl(new.fileno(), FICLONE, old.fileno())


def can_clone(directory: Path) -> bool:
    """Whether two files of `directory` can share blocks: tried, since a copying fallback looks the same."""
    first, second = directory / f".probe-{os.getpid()}", directory / f".probe-{os.getpid()}-clone"
    try:
        first.write_bytes(b"x" * 65536)
        clone_file(first, second)
    except OSError:
        return False
    else:
        return True
    finally:
        first.unlink(missing_ok=True)
        second.unlink(missing_ok=True)


def trim(directory: Path, start: int, length: int, *, shortest: int = 1 << 20) -> bool:
    """Discard what is free in this range of the file system; False where that cannot be done."""
    with _opened(directory) as descriptor:
        try:
            fcntl.ioctl(descriptor, FITRIM, bytearray(_RANGE.pack(start, length, shortest)))
        except OSError:
            return False
    return True


def set_immutable(path: Path, wanted: bool) -> None:
    """Set or clear the immutable flag of a file or directory (never followed through a link)."""
    with _opened(path) as descriptor:
        flags = struct.unpack("=l", fcntl.ioctl(descriptor, FS_IOC_GETFLAGS, struct.pack("=l", 0)))[0]
        changed = flags | IMMUTABLE if wanted else flags & ~IMMUTABLE
        if changed != flags:
            fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, struct.pack("=l", changed))


def set_project(path: Path, project: int) -> None:
    """Give a file or directory to a quota project; what is made in the directory afterwards inherits it."""
    with _opened(path) as descriptor:
        raw = fcntl.ioctl(descriptor, FS_IOC_FSGETXATTR, bytes(_XATTR.size))
        flags, extent, extents, _, cow = _XATTR.unpack(raw)
        if path.is_dir():
            flags = flags | PROJECT_INHERIT if project else flags & ~PROJECT_INHERIT
        fcntl.ioctl(descriptor, FS_IOC_FSSETXATTR, _XATTR.pack(flags, extent, extents, project, cow))


def exclusive_bytes(path: Path) -> int:
    """How many bytes of a file's extents no other file shares. Raises OSError without FIEMAP."""
    total, start = 0, 0
    with path.open("rb") as file:
        while True:
            request = bytearray(
                _FIEMAP.pack(start, (1 << 64) - 1 - start, 0, 0, EXTENTS_A_CALL, 0)
                + bytes(_EXTENT.size * EXTENTS_A_CALL)
            )
            fcntl.ioctl(file.fileno(), FS_IOC_FIEMAP, request)
            found = _FIEMAP.unpack_from(request)[3]
            for index in range(found):
                logical, _, length, _, _, flags, *_ = _EXTENT.unpack_from(request, _FIEMAP.size + index * _EXTENT.size)
                total += 0 if flags & EXTENT_SHARED else length
                start = logical + length
                if flags & EXTENT_LAST:
                    return total
            if not found:
                return total


def set_quota(device: str, project: int, limit_bytes: int) -> None:
    """Set the hard limits of a quota project, of bytes and with them of files; 0 lifts both.

    Raises OSError where quotas are not enforced.
    """
    blocks = -(-limit_bytes // _QUOTA_BLOCK_BYTES)
    files = max(_FILES_MIN, limit_bytes // _BYTES_A_FILE) if limit_bytes else 0
    limits = (blocks, 0, files, 0, 0, 0)
    packed = _QUOTA.pack(
        1, 2, _BLOCK_HARD | _INODE_HARD, project, *limits, *([0] * 2), 0, 0, *([0] * 4), 0, 0, 0, 0, 0, 0
    )
    _quotactl(_SET_LIMIT, device, project, packed)


def quota_usage_bytes(device: str, project: int) -> int:
    """What a quota project occupies. Raises OSError where quotas are not kept."""
    answer = _quotactl(_GET_QUOTA, device, project, bytes(_QUOTA.size))
    return int(_QUOTA.unpack(answer)[8]) * _QUOTA_BLOCK_BYTES


def _quotactl(command: int, device: str, project: int, payload: bytes) -> bytes:
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(payload, len(payload))
    if libc.quotactl(ctypes.c_int(command), os.fsencode(device), ctypes.c_int(project), buffer) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), device)
    return buffer.raw


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
