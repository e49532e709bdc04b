"""Facts about this machine that set-up cannot change, for `doctor`."""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path

from orchestrator.setup.options import SetupOptions
from orchestrator.setup.steps import CheckResult

LANDLOCK_CREATE_RULESET = 444
LANDLOCK_VERSION_FLAG = 1
LANDLOCK_LEAST = 3
LANDLOCK_FULL = 6
FREE_LEAST_BYTES = 2 * 2**30


def landlock_abi() -> int:
    """The kernel's Landlock version; 0 where it has none or it is switched off."""
    found = int(ctypes.CDLL(None, use_errno=True).syscall(LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_VERSION_FLAG))
    return max(0, found)


class KernelFact:
    """Landlock holds what the gate decides."""

    name = "kernel gate"

    def check(self) -> CheckResult:
        version = landlock_abi()
        if version < LANDLOCK_LEAST:
            return CheckResult(
                self.name,
                False,
                f"the kernel's Landlock version is {version}, {LANDLOCK_LEAST} is needed",
                "Boot a kernel from 6.2 on with lsm=landlock,…; until then tenants are gate only.",
            )
        full = "" if version >= LANDLOCK_FULL else ", signals between commands are not scoped (kernel 6.12 does)"
        return CheckResult(self.name, True, note=f"Landlock {version}{full}")


class DiskFact:
    """There is room where the installation lives."""

    name = "free disk"

    def __init__(self, options: SetupOptions) -> None:
        self._var = options.places.var

    def check(self) -> CheckResult:
        place = self._var
        while not place.exists():
            place = place.parent
        free = shutil.disk_usage(place).free
        shown = f"{free / 2**30:.1f} GiB free at {place}"
        if free < FREE_LEAST_BYTES:
            return CheckResult(self.name, False, shown, "Free some space, or put var elsewhere.")
        return CheckResult(self.name, True, note=shown)


class HostFact:
    """What the machine has, for people to read."""

    name = "machine"

    def check(self) -> CheckResult:
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        cgroup = 2 if Path("/sys/fs/cgroup/cgroup.controllers").exists() else 1
        note = f"{os.cpu_count()} CPUs, {pages / 2**30:.0f} GiB, kernel {os.uname().release}, cgroup v{cgroup}"
        return CheckResult(self.name, True, note=note)
