"""Which kind of engine answers, and whether what we promise can be held on it. Pure, but for the asking."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.drivers.docker.connection import Connection, translated
from orchestrator.setup.steps import CheckResult, Progress, SetupFailed

SYSTEM_ENGINE = (
    "Use the system's own engine (as root: apt-get install docker.io), and unset DOCKER_HOST or set it to"
    " unix:///var/run/docker.sock."
)
LIMITS = (("MemoryLimit", "memory"), ("PidsLimit", "processes"), ("CpuCfsQuota", "processor time"))


def lack(info: Mapping[str, Any]) -> tuple[str, str] | None:
    """Cause and cure when tenants cannot run on the engine that `info` (of `docker info`) tells of; None when they can.

    What `info` does not mention is taken to be as usual.
    """
    options = {str(option).split(",")[0] for option in info.get("SecurityOptions") or []}
    system = str(info.get("OperatingSystem", ""))
    if str(info.get("OSType") or "linux") != "linux":
        return f"the engine runs {info['OSType']} containers; tenants' are Linux", "Switch it to Linux containers."
    if system.startswith("Docker Desktop"):
        return (
            "this is Docker Desktop, whose engine runs in a virtual machine of its own: sockets and files of this host"
            " are not the same in there",
            "Run the orchestrator on a Linux machine, or in a Linux virtual machine with its own Docker Engine.",
        )
    if "name=rootless" in options:
        return (
            "the engine is rootless: it can neither give every tenant a user of its own on this host, nor mount the"
            " volume, and its networks are not this host's",
            SYSTEM_ENGINE,
        )
    if "name=userns" in options:
        return (
            "the engine maps users (userns-remap): a container's user is another one on this host, so that tenants"
            " could not use their files",
            "Remove userns-remap from /etc/docker/daemon.json and restart the engine, or give it a machine of its own.",
        )
    missing = [what for key, what in LIMITS if info.get(key) is False]
    if missing:
        return (
            f"the engine cannot limit {' and '.join(missing)} here: the kernel's control groups for it are off",
            "Boot with cgroup_enable=memory swapaccount=1, or without cgroup_disable; then restart the engine.",
        )
    return None


class EngineKindStep:
    """Limits, users and mounts work as they must. It can be told, not changed."""

    name = "kind of engine"

    def check(self) -> CheckResult:
        connection = Connection()
        try:
            with translated("The engine could not be asked what it is"):
                info: dict[str, Any] = connection.api.info()
        finally:
            connection.close()
        found = lack(info)
        if found is not None:
            return CheckResult(self.name, False, *found)
        unlimited = info.get("SwapLimit") is False
        note = "swap is not limited by this kernel: a tenant over its memory may swap first" if unlimited else ""
        return CheckResult(self.name, True, note=note or str(info.get("OperatingSystem", "")))

    def do(self, _: Progress) -> None:
        result = self.check()
        if not result.ok:
            raise SetupFailed(f"Not supported: {result.cause}.", effect="Nothing was done.", next_step=result.cure)
