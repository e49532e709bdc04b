"""The system calls Python has no name for, each raising OSError."""

from __future__ import annotations

import ctypes
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)
# The hot one has its own types, so that its arguments need no wrapping each time.
_add_rule = _libc["syscall"]
_add_rule.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
_add_rule.restype = ctypes.c_long

# Numbers that are the same on every architecture with the generic table since Linux 5.1 and on x86-64.
_OPENAT2 = 437
_LANDLOCK_CREATE_RULESET = 444
_LANDLOCK_ADD_RULE = 445
_LANDLOCK_RESTRICT_SELF = 446

_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38

_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04

IN_MODIFY, IN_ATTRIB, IN_CLOSE_WRITE = 0x2, 0x4, 0x8
IN_MOVED, IN_CREATE, IN_DELETE = 0xC0, 0x100, 0x200
_IN_ONLYDIR, _IN_DONT_FOLLOW = 0x01000000, 0x02000000


def _check(result: int, path: str | None = None) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result


def syscall(number: int, *arguments: int | bytes | None) -> int:
    """A raw call; every integer is passed as a full machine word."""
    words = [ctypes.c_long(part) if isinstance(part, int) else part for part in arguments]
    return _check(_libc.syscall(ctypes.c_long(number), *words))


def _prctl(option: int, value: int) -> None:
    _check(_libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)))


def set_no_new_privileges() -> None:
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def set_dumpable(value: bool) -> None:
    """False: nobody of the same uid can read this process's memory or its files under /proc."""
    _prctl(_PR_SET_DUMPABLE, int(value))


def set_subreaper() -> None:
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def open_without_links(path: str, flags: int) -> int:
    """Open `path`, refusing a symbolic link in any part of it (ELOOP). The caller closes the descriptor."""
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS)
    at_fdcwd = -100
    descriptor = _libc.syscall(
        ctypes.c_long(_OPENAT2), ctypes.c_long(at_fdcwd), os.fsencode(path), how, ctypes.c_long(len(how))
    )
    return _check(descriptor, path)


def landlock_abi() -> int:
    """The kernel's Landlock version, 0 where there is none (not built, not enabled, or filtered)."""
    try:
        return syscall(_LANDLOCK_CREATE_RULESET, None, 0, 1)
    except OSError:
        return 0


def landlock_create(handled_files: int, handled_ports: int, scoped: int) -> int:
    attributes = struct.pack("=QQQ", handled_files, handled_ports, scoped)
    # Older kernels accept the longer structure as long as what they do not know is zero.
    return syscall(_LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)


def landlock_allow_path(ruleset: int, allowed: int, parent: int) -> None:
    _check(_add_rule(_LANDLOCK_ADD_RULE, ruleset, 1, struct.pack("=Qi", allowed, parent), 0))


def landlock_allow_port(ruleset: int, allowed: int, port: int) -> None:
    syscall(_LANDLOCK_ADD_RULE, ruleset, 2, struct.pack("=QQ", allowed, port), 0)


def landlock_restrict_self(ruleset: int) -> None:
    """Enter the domain: this process and all it starts, for ever. Needs no_new_privs."""
    syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0)


def inotify_create() -> int:
    return _check(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))


def inotify_watch(descriptor: int, directory: str) -> None:
    """Report changes of names and contents in `directory`; harmless when it is already watched."""
    mask = IN_MODIFY | IN_CLOSE_WRITE | IN_MOVED | IN_CREATE | IN_DELETE | _IN_ONLYDIR | _IN_DONT_FOLLOW
    _check(_libc.inotify_add_watch(descriptor, os.fsencode(directory), ctypes.c_uint32(mask)), directory)
