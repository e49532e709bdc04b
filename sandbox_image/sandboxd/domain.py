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


class Domain:
    """A ruleset under construction. `close` it; `enter` may be called by any number of forked children."""

    def __init__(self, abi: int) -> None:
        self.abi = abi
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
        try:
            if follow:
                descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
            else:
                descriptor = kernel.open_without_links(path, os.O_PATH)
        except OSError as failure:
            if failure.errno == errno.ELOOP and not follow:
                raise LinkInGrant(path) from None
            return False
        try:
            rights = RIGHTS[access] & self._handled
            if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
                rights &= _ON_FILES
            if rights:
                kernel.landlock_allow_path(self.descriptor, rights, descriptor)
        finally:
            os.close(descriptor)
        return True

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
