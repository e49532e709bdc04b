"""Landlock domains: what a program and everything it starts may execute, read, write and connect to."""

from __future__ import annotations

import errno
import os
import stat

from . import kernel

# Rights on files, in the order the kernel numbers them.
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << bit for bit in range(6))
MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = (1 << bit for bit in range(6, 13))
REFER, TRUNCATE, IOCTL_DEV = (1 << bit for bit in range(13, 16))

BIND_TCP, CONNECT_TCP = 1, 2
SCOPE_ABSTRACT_SOCKETS, SCOPE_SIGNALS = 1, 2

# From these versions on the kernel knows the rights beside them.
_FILE_RIGHTS = ((1, (1 << 13) - 1), (2, REFER), (3, TRUNCATE), (5, IOCTL_DEV))
ABI_PORTS = 4
ABI_SCOPES = 6
# Below 3 a file can be truncated without a right for it.
ABI_REQUIRED = 3

# The only rights a rule on a file (not a directory) may carry.
_ON_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV

_KEPT_MAX = 200

RIGHTS = {
    "list": READ_DIR,
    "read": READ_FILE | READ_DIR,
    "write": READ_FILE
    | READ_DIR
    | WRITE_FILE
    | TRUNCATE
    | REFER
    | REMOVE_DIR
    | REMOVE_FILE
    | MAKE_DIR
    | MAKE_REG
    | MAKE_SYM,
    "device": READ_FILE | WRITE_FILE | TRUNCATE,
    "execute": EXECUTE | READ_FILE,
}


class LinkInGrant(Exception):
    """A granted path runs through a symbolic link, which the tenant may have made."""


class ImageFiles:
    """Descriptors of what lies on the image's own read-only file system, and of devices, kept open.

    Such a file is the same for as long as the container runs: nobody in there can make a device. Whatever could be
    replaced is opened anew each time.
    """

    def __init__(self) -> None:
        self._device = os.stat("/").st_dev if os.statvfs("/").f_flag & os.ST_RDONLY else -1
        self._kept: dict[str, tuple[int, bool]] = {}

    def find(self, path: str) -> tuple[int, bool] | None:
        """A descriptor that stays open, and whether it is a directory's."""
        return self._kept.get(path)

    def keep(self, path: str, descriptor: int, status: os.stat_result) -> bool:
        """Whether it is ours to close from now on."""
        if self._device < 0 or len(self._kept) >= _KEPT_MAX:
            return False
        if status.st_dev != self._device and not stat.S_ISCHR(status.st_mode):
            return False
        self._kept[path] = descriptor, stat.S_ISDIR(status.st_mode)
        return True


class Domain:
    """A ruleset under construction. `close` it; `enter` may be called by any number of forked children."""

    def __init__(self, abi: int, image: ImageFiles | None = None) -> None:
        self.abi = abi
        self._image = image
        self.descriptor = -1
        self._handled = 0
        for version, rights in _FILE_RIGHTS:
            if abi >= version:
                self._handled |= rights
        if abi > 0:
            self.descriptor = kernel.landlock_create(
                self._handled,
                BIND_TCP | CONNECT_TCP if abi >= ABI_PORTS else 0,
                SCOPE_ABSTRACT_SOCKETS | SCOPE_SIGNALS if abi >= ABI_SCOPES else 0,
            )

    def allow(self, path: str, access: str, *, follow: bool) -> bool:
        """Grant `access` to `path` and below; False when there is no such path.

        `follow=False` for everything a tenant could have touched: raises LinkInGrant on a symbolic link.
        """
        if self.descriptor < 0:
            return True
        image = self._image if follow else None
        kept = image.find(path) if image is not None else None
        if kept is not None:
            self._add(RIGHTS[access], *kept)
            return True
        try:
            if follow:
                descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
            else:
                descriptor = kernel.open_without_links(path, os.O_PATH)
        except OSError as failure:
            if failure.errno == errno.ELOOP and not follow:
                raise LinkInGrant(path) from None
            return False
        ours = False
        try:
            status = os.fstat(descriptor)
            self._add(RIGHTS[access], descriptor, stat.S_ISDIR(status.st_mode))
            ours = image is not None and image.keep(path, descriptor, status)
        finally:
            if not ours:
                os.close(descriptor)
        return True

    def _add(self, rights: int, descriptor: int, directory: bool) -> None:
        rights &= self._handled if directory else self._handled & _ON_FILES
        if rights:
            kernel.landlock_allow_path(self.descriptor, rights, descriptor)

    def allow_port(self, port: int, *, listen: bool = False) -> None:
        if self.abi >= ABI_PORTS:
            kernel.landlock_allow_port(self.descriptor, BIND_TCP if listen else CONNECT_TCP, port)

    def enter(self) -> None:
        if self.descriptor >= 0:
            kernel.landlock_restrict_self(self.descriptor)

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def signal_scope(abi: int) -> int:
    """A domain that restricts nothing but whom one may signal; -1 where the kernel has no such scope.

    A monitor enters it before it starts a command, so that its kill(-1) reaches exactly its own tree.
    """
    if abi < ABI_SCOPES:
        return -1
    return kernel.landlock_create(0, 0, SCOPE_SIGNALS)
