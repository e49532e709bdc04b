"""Programs of the host that set-up, the volume, git and the tests need."""

from __future__ import annotations

import ctypes.util
import os
import re
import shutil
import subprocess

from orchestrator.setup.commands import can_install_packages, install_packages
from orchestrator.setup.options import SetupOptions
from orchestrator.setup.steps import CheckResult, Progress

GIT_OLDEST = (2, 38)


class PackagesStep:
    """git, and as root what makes the reflink volume; for the tests a browser and docker compose."""

    name = "host packages"

    def __init__(self, options: SetupOptions) -> None:
        self._options = options

    def check(self) -> CheckResult:
        missing = self._missing()
        if missing:
            return CheckResult(
                self.name, False, f"missing: {', '.join(missing)}", f"As root: apt-get install {' '.join(missing)}"
            )
        version = git_version()
        if version is not None and version < GIT_OLDEST:
            found = ".".join(map(str, version))
            return CheckResult(self.name, False, f"git {found} is too old", "Install git 2.38 or newer.")
        return CheckResult(self.name, True)

    def do(self, progress: Progress) -> None:
        install_packages(self._missing(), log=self._options.places.var / "setup.log", progress=progress)

    def _missing(self) -> list[str]:
        found = []
        if shutil.which("git") is None:
            found.append("git")
        if os.geteuid() == 0 and _which("mkfs.xfs") is None and can_install_packages():
            found.append("xfsprogs")
        if self._options.for_tests:
            if shutil.which("chromium") is None and shutil.which("google-chrome") is None:
                found.append("chromium")
            if ctypes.util.find_library("atomic") is None:
                found.append("libatomic1")
            if compose_command() is None:
                found.append("docker-compose")
        return found


def git_version() -> tuple[int, int] | None:
    """The installed git's version; None when there is none."""
    try:
        done = subprocess.run(["git", "--version"], check=False, capture_output=True, text=True, timeout=20)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"(\d+)\.(\d+)", done.stdout)
    return (int(match[1]), int(match[2])) if match else None


def compose_command() -> list[str] | None:
    """How docker compose is called here: as the engine's plugin, or as a program of its own; None without it."""
    try:
        done = subprocess.run(["docker", "compose", "version"], check=False, capture_output=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        pass
    else:
        if done.returncode == 0:
            return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None


def _which(program: str) -> str | None:
    return shutil.which(program, path="/usr/sbin:/sbin:/usr/bin:/bin")
