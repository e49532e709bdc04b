"""An engine on which our promises could not be kept is refused by name, with what to do; every usual one is taken."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.setup.engine_kind import lack

USUAL: dict[str, Any] = {
    "OSType": "linux",
    "OperatingSystem": "Debian GNU/Linux 12 (bookworm)",
    "SecurityOptions": ["name=apparmor", "name=seccomp,profile=default", "name=cgroupns"],
    "MemoryLimit": True,
    "PidsLimit": True,
    "CpuCfsQuota": True,
    "SwapLimit": False,
}


@pytest.mark.parametrize(
    "info",
    [
        USUAL,
        {},
        {**USUAL, "SecurityOptions": None},
        {**USUAL, "SecurityOptions": ["name=seccomp,profile=rootless.json"]},
        {**USUAL, "OperatingSystem": "Ubuntu 24.04.1 LTS (containerized)"},
    ],
)
def test_a_systems_own_engine_is_taken(info: dict[str, Any]) -> None:
    assert lack(info) is None


@pytest.mark.parametrize(
    ("differs", "cause", "cure"),
    [
        ({"SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless", "name=cgroupns"]}, "rootless", "docker"),
        ({"OperatingSystem": "Docker Desktop"}, "Docker Desktop", "Linux machine"),
        ({"OperatingSystem": "Docker Desktop (containerized)"}, "Docker Desktop", "Linux machine"),
        ({"SecurityOptions": ["name=seccomp,profile=default", "name=userns"]}, "userns-remap", "daemon.json"),
        ({"OSType": "windows"}, "windows", "Linux containers"),
        ({"MemoryLimit": False, "PidsLimit": False}, "memory and processes", "cgroup_enable"),
    ],
)
def test_any_other_is_told_apart_with_its_cure(differs: dict[str, Any], cause: str, cure: str) -> None:
    found = lack({**USUAL, **differs})
    assert found is not None
    assert cause in found[0] and cure in found[1]
