"""The container engine: the running one, else the installed one started, else the distribution's installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

from orchestrator.core.ports.engine import EngineFailed
from orchestrator.drivers.docker.connection import Connection
from orchestrator.drivers.docker.images import engine_answers
from orchestrator.setup.commands import can_install_packages, install_packages, run
from orchestrator.setup.options import SetupOptions
from orchestrator.setup.steps import CheckResult, Progress, SetupFailed

START_TIMEOUT_S = 90.0
POLL_S = 0.25
SOCKET = Path("/var/run/docker.sock")
PACKAGES = ("docker.io", "iptables", "ca-certificates")
# Not in every release; needed where nothing else mounts the control groups, or where AppArmor is on.
WELCOME = ("cgroupfs-mount", "apparmor")


class EngineStep:
    """Docker Engine answers us."""

    name = "Docker Engine"

    def __init__(self, options: SetupOptions) -> None:
        self._log = options.places.var / "setup.log"
        self._engine_log = options.places.var / "dockerd.log"

    def check(self) -> CheckResult:
        connection = Connection(timeout_s=10)
        try:
            return CheckResult(self.name, True, note=engine_answers(connection))
        except EngineFailed:
            return CheckResult(self.name, False, *_why_not())
        finally:
            connection.close()

    def do(self, progress: Progress) -> None:
        cause, cure = _why_not()
        if os.geteuid() != 0:
            raise SetupFailed(cause, next_step=cure)
        if shutil.which("dockerd") is None:
            if not can_install_packages():
                raise SetupFailed(cause, next_step=cure)
            install_packages(PACKAGES, welcome=WELCOME, log=self._log, progress=progress)
            if self._answers_within(3.0):  # the package's own service may have started it
                return
        if Path("/run/systemd/system").is_dir():
            progress("starting docker.service")
            run(["systemctl", "start", "docker"], log=self._log, progress=progress, timeout_s=START_TIMEOUT_S)
            started = None
        else:
            started = self._start_in_background(progress)
        self._wait(started)

    def _start_in_background(self, progress: Progress) -> subprocess.Popen[bytes]:
        if not _has_cgroups() and shutil.which("cgroupfs-mount"):
            run(["cgroupfs-mount"], log=self._log, progress=progress, timeout_s=30)
        progress(f"starting dockerd; its log is {self._engine_log}")
        self._engine_log.parent.mkdir(parents=True, exist_ok=True)
        _forget_dead_engine()
        with self._engine_log.open("ab") as log:
            return subprocess.Popen(
                ["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
            )

    def _wait(self, started: subprocess.Popen[bytes] | None) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self.check().ok:
            if started is not None and started.poll() is not None:
                raise SetupFailed(f"dockerd ended at once (status {started.returncode}).", effect=self._log_end())
            if time.monotonic() > deadline:
                raise SetupFailed(f"dockerd does not answer after {START_TIMEOUT_S:.0f} s.", effect=self._log_end())
            time.sleep(POLL_S)

    def _answers_within(self, patience_s: float) -> bool:
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if self.check().ok:
                return True
            time.sleep(POLL_S)
        return False

    def _log_end(self) -> str:
        if not self._engine_log.exists():
            return ""
        return self._engine_log.read_text(errors="replace")[-1500:]


def _why_not() -> tuple[str, str]:
    """Cause and cure of an engine that does not answer."""
    if os.environ.get("DOCKER_HOST"):
        return f"no engine answers at {os.environ['DOCKER_HOST']}", "Correct DOCKER_HOST, or unset it."
    if SOCKET.exists() and not os.access(SOCKET, os.W_OK):
        return "this user may not use the engine's socket", "As root: usermod -aG docker YOUR_NAME; then log in again."
    if shutil.which("dockerd"):
        return "it is installed and does not run", "As root: systemctl start docker (or make setup)."
    return "it is not installed", "As root: apt-get install docker.io (or make setup)."


def _has_cgroups() -> bool:
    root = Path("/sys/fs/cgroup")
    return (root / "cgroup.controllers").exists() or (root / "memory").is_dir()


def _forget_dead_engine() -> None:
    """A pid file of an engine that was killed stops the next one when its number is in use again."""
    for file in (Path("/var/run/docker.pid"), Path("/var/run/docker/containerd/containerd.pid")):
        try:
            # Empty for one that ended and was not collected yet; its number still counts as taken.
            program = Path(f"/proc/{int(file.read_text())}/cmdline").read_bytes().split(b"\0")[0].decode()
        except (OSError, ValueError):
            program = ""
        if Path(program).name not in {"dockerd", "containerd"}:
            file.unlink(missing_ok=True)
