"""What the container's control group says, in both of the kernel's layouts."""

from __future__ import annotations

import os

_ROOT = "/sys/fs/cgroup"
# A v1 group without a limit shows the largest page-aligned number there is.
_UNLIMITED = 1 << 60


def _read(*names: str) -> str | None:
    for name in names:
        try:
            descriptor = os.open(f"{_ROOT}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            return os.read(descriptor, 4096).decode("ascii").strip()
        finally:
            os.close(descriptor)
    return None


def _limit(*names: str) -> int | None:
    text = _read(*names)
    if text is None or not text.isdigit() or int(text) >= _UNLIMITED:
        return None
    return int(text)


def memory_limit_bytes() -> int | None:
    """None when there is no limit or none can be seen."""
    return _limit("memory.max", "memory/memory.limit_in_bytes")


def processes_limit() -> int | None:
    return _limit("pids.max", "pids/pids.max")


def memory_kills() -> int:
    """How many processes of this container the kernel killed for memory so far."""
    text = _read("memory.events", "memory/memory.oom_control") or ""
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == "oom_kill" and value.isdigit():
            return int(value)
    return 0
