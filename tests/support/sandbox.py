"""A real sandbox container for tests: the built image, hardened as in production, driven through the real client."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.core.ports.engine import ContainerLimits, ContainerSpec, Engine, Mount
from orchestrator.core.ports.sandboxd import (
    Access,
    CommandEvent,
    CommandExited,
    CommandLimits,
    CommandOutput,
    PathGrant,
    PolicyReport,
    Program,
    SandboxCommand,
    SandboxPolicy,
)
from orchestrator.drivers.sandboxd import SandboxdClient
from tests.support.engine import TEST_ROOT

PROJECT = Path(__file__).parents[2]
ARGV = ("/usr/bin/python3", "-I", "-S", "/opt/sandboxd")
ENVIRONMENT = {"PATH": "/usr/bin", "HOME": "/tmp", "LANG": "C.UTF-8"}
WORKSPACE = (PathGrant("/workspace", Access.WRITE),)
# A starting container shares the machine with everything else the tests do.
PATIENCE_S = 60.0

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Ran:
    """A command that ended."""

    stdout: bytes
    stderr: bytes
    exited: CommandExited

    @property
    def text(self) -> str:
        return (self.stdout + self.stderr).decode("utf-8", "replace")


def collect(events: Iterator[CommandEvent]) -> Ran:
    """Read a command to its end."""
    streams = {"stdout": bytearray(), "stderr": bytearray()}
    exited = None
    for event in events:
        if isinstance(event, CommandOutput):
            streams[event.stream] += event.data
        elif isinstance(event, CommandExited):
            exited = event
    assert exited is not None
    return Ran(bytes(streams["stdout"]), bytes(streams["stderr"]), exited)


@dataclass
class Sandbox:
    client: SandboxdClient
    sockets: Path
    name: str
    uid: int

    def command(self, *argv: str, **changes: object) -> SandboxCommand:
        made = SandboxCommand(
            id=f"c{next(_numbers)}",
            program=argv[0],
            argv=argv,
            cwd="/workspace",
            environment=ENVIRONMENT,
            limits=CommandLimits(wall_s=60),
        )
        return replace(made, **changes)  # type: ignore[arg-type]

    def run(self, *argv: str, **changes: object) -> Ran:
        return collect(self.client.run(self.command(*argv, **changes)))

    def python(self, script: str, *arguments: str, **changes: object) -> Ran:
        return self.run("/usr/bin/python3", "-c", script, *arguments, **changes)

    def list(
        self, *paths: str, digest: str = "listed", starts: Mapping[str, tuple[str, ...]] | None = None
    ) -> PolicyReport:
        """Put exactly these programs on the list, each with the workspace writable."""
        programs = tuple(Program(path, WORKSPACE, (starts or {}).get(path, ())) for path in paths)
        return self.client.set_policy(SandboxPolicy(digest, programs))


def test_uid() -> int:
    """One for each sandbox: the kernel counts processes by uid over all containers."""
    return 100_000 + os.getpid() % 10_000 * 100 + next(_numbers) % 100


test_uid.__test__ = False  # type: ignore[attr-defined]


def sandbox_spec(image: str, sockets: Path, *, name: str, uid: int) -> ContainerSpec:
    """As production starts one, with the workspace in memory and no network."""
    private = f"rw,nosuid,nodev,noexec,size=64m,uid={uid},gid={uid},mode=0700"
    return ContainerSpec(
        name=name,
        image=image,
        argv=ARGV,
        uid=uid,
        gid=uid,
        limits=ContainerLimits(memory_bytes=256 * 2**20, cpus=2, pids=128),
        role="sandbox",
        mounts=(Mount(sockets, "/run/sandboxd"),),
        tmpfs={"/tmp": "rw,nosuid,nodev,noexec,size=64m", "/workspace": private, "/repository": private},
        seccomp_profile=PROJECT / "sandbox_image/seccomp.json",
        init=True,
    )


@contextmanager
def socket_directory(uid: int) -> Iterator[Path]:
    """A directory like the orchestrator's own for one tenant; short, because socket paths must be."""
    TEST_ROOT.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix="b", dir=TEST_ROOT))
    made.chmod(0o700)
    os.chown(made, uid, uid)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def running_sandbox(engine: Engine, image: str, **changes: object) -> Iterator[Sandbox]:
    """Started, answering, nothing listed yet; removed afterwards. `changes` replace fields of the specification."""
    uid = test_uid()
    name = f"sandbox-test-{os.getpid()}-{next(_numbers)}"
    with socket_directory(uid) as sockets:
        spec = replace(sandbox_spec(image, sockets, name=name, uid=uid), **changes)  # type: ignore[arg-type]
        engine.start(spec)
        try:
            # A busy machine may take its time over one answer: the wait is long, not the test.
            client = SandboxdClient(sockets, uid=uid, request_wait_s=PATIENCE_S)
            client.wait(timeout_s=PATIENCE_S)
            yield Sandbox(client, sockets, name, uid)
        finally:
            engine.remove(name)
