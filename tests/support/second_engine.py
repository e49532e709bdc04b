"""A container engine of a test's own, to be killed: its own files, sockets and network, nothing of the machine's.

It lives in a network namespace of its own, so its bridges, addresses and ports meet nobody's. What must reach its
containers by address, the control plane above all, runs in there too; engine and databases answer by socket anywhere.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from orchestrator.drivers.docker.connection import Connection

START_S = 120.0
END_S = 60.0
COPY_S = 600.0
POLL_S = 0.1
LOOPBACK_UP = """
import fcntl, socket, struct
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
    fcntl.ioctl(one, 0x8914, struct.pack("16sh", b"lo", 0x1))  # SIOCSIFFLAGS, IFF_UP
"""
CONTAINERD = """version = 2
root = "{root}/containerd"
state = "{root}/containerd-run"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{root}/containerd.sock"
"""


class SecondEngine:
    """Started and killed at will; `root` has everything of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.address = f"unix://{root}/docker.sock"
        self._network = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        self._containerd: subprocess.Popen[bytes] | None = None
        self._dockerd: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> Mapping[str, str]:
        """What makes our programs talk to this engine."""
        return {**os.environ, "DOCKER_HOST": self.address}

    def inside(self, *argv: str) -> list[str]:
        """The same program in this engine's network."""
        return ["nsenter", f"--net=/proc/{self._network.pid}/ns/net", *argv]

    def prepare(self) -> None:
        """Start what stays for the whole test: the network, and containerd, which outlives an engine that is killed."""
        own = Path("/proc/self/ns/net").readlink()
        _until(lambda: self._namespace() not in (None, own), "the network namespace was not made")
        subprocess.run(self.inside(sys.executable, "-c", LOOPBACK_UP), check=True, timeout=START_S)
        configuration = self.root / "containerd.toml"
        configuration.write_text(CONTAINERD.format(root=self.root))
        (self.root / "daemon.json").write_text("{}")
        self._containerd = self._started("containerd", "containerd", "--config", str(configuration))
        _until((self.root / "containerd.sock").exists, "containerd did not start")

    def start(self) -> None:
        """Start it, again after a kill, and wait until it answers."""
        argv = self.inside(
            "dockerd",
            *("--host", self.address),
            *("--config-file", f"{self.root}/daemon.json"),
            *("--data-root", f"{self.root}/data"),
            *("--exec-root", f"{self.root}/run"),
            *("--pidfile", f"{self.root}/docker.pid"),
            *("--containerd", f"{self.root}/containerd.sock"),
            "--bridge=none",
            "--iptables=false",
            "--ip-masq=false",
        )
        (self.root / "docker.pid").unlink(missing_ok=True)
        self._dockerd = self._started("dockerd", *argv)
        _until(self.answers, "the second engine did not start")

    def answers(self) -> bool:
        assert self.is_up(), (self.root / "dockerd.log").read_text()[-3000:]
        connection = Connection(address=self.address, timeout_s=10)
        try:
            connection.major_version()
        except Exception:  # whatever it is: not yet
            return False
        finally:
            connection.close()
        return True

    def kill(self) -> None:
        """As a crash would: its containers run on until it is started again, and nobody looks after them."""
        assert self._dockerd is not None
        self._dockerd.kill()
        self._dockerd.wait(END_S)

    def copy(self, images: Iterable[str]) -> None:
        """Bring images over from this machine's engine."""
        with subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE) as saving:
            loading = subprocess.run(
                ["docker", "load", "--quiet"],
                stdin=saving.stdout,
                env=self.environment,
                capture_output=True,
                timeout=COPY_S,
                check=False,
            )
        assert saving.returncode == 0 and loading.returncode == 0, loading.stderr

    def end(self) -> None:
        for process in (self._dockerd, self._containerd):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(END_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self._network.kill()
        self._network.wait()

    def is_up(self) -> bool:
        return self._dockerd is not None and self._dockerd.poll() is None

    def _started(self, name: str, *argv: str) -> subprocess.Popen[bytes]:
        with (self.root / f"{name}.log").open("ab") as log:
            return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")

    def _namespace(self) -> Path | None:
        try:
            return Path(f"/proc/{self._network.pid}/ns/net").readlink()
        except OSError:
            return None


@contextmanager
def second_engine(root: Path, images: Iterable[str]) -> Iterator[SecondEngine]:
    """An engine below `root` that has `images`; everything of it is gone afterwards."""
    assert os.geteuid() == 0, "only root can run a second engine"
    _forget(root)
    root.mkdir(parents=True)
    engine = SecondEngine(root)
    try:
        engine.prepare()
        engine.start()
        engine.copy(images)
        yield engine
    finally:
        engine.end()
        _forget(root)


def _until(is_so: object, what: str) -> None:
    assert callable(is_so)
    deadline = time.monotonic() + START_S
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(POLL_S)


def _forget(root: Path) -> None:
    """Also what a killed run has left mounted."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in sorted((one for one in mounts if one.startswith(f"{root}/")), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)
    shutil.rmtree(root, ignore_errors=True)
