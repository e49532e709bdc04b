"""On a real disk, mounted as in production: what a command writes is counted and capped, over all its files."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.core.ports.engine import ContainerSpec, Mount
from orchestrator.core.ports.sandboxd import CommandLimits, CommandOutput, CommandStarted, StoppedBy
from orchestrator.drivers.docker.engine import DockerEngine
from orchestrator.drivers.sandboxd import SandboxdClient
from tests.support.engine import SessionImages
from tests.support.processes import SLEEP, eventually, processes, settled
from tests.support.sandbox import PATIENCE_S, Sandbox, collect, sandbox_spec, socket_directory, test_uid

pytestmark = pytest.mark.engine


@pytest.fixture
def on_disk(engine: DockerEngine, images: SessionImages, volume_dir: Path) -> Iterator[Sandbox]:
    """A sandbox whose workspace is a directory of the reflink volume, which is mounted noexec on the host."""
    uid = test_uid()
    workspace = volume_dir / "tree"
    workspace.mkdir()
    os.chown(workspace, uid, uid)
    name = f"sandbox-disk-{os.getpid()}-{uid}"
    with socket_directory(uid) as sockets:
        spec: ContainerSpec = sandbox_spec(images.sandbox, sockets, name=name, uid=uid)
        tmpfs = {target: options for target, options in spec.tmpfs.items() if target != "/workspace"}
        engine.start(replace(spec, tmpfs=tmpfs, mounts=(*spec.mounts, Mount(workspace, "/workspace"))))
        try:
            client = SandboxdClient(sockets, uid=uid, request_wait_s=PATIENCE_S)
            assert client.wait(timeout_s=PATIENCE_S).failed == ()
            sandbox = Sandbox(client, sockets, name, uid)
            sandbox.list("/usr/bin/python3", "/usr/bin/true")
            yield sandbox
        finally:
            engine.remove(name)


def test_many_small_files_count_together(on_disk: Sandbox) -> None:
    script = """
import os, time
for number in range(100_000):
    with open(f'f{number % 50}', 'wb') as file:
        file.write(b'x' * 200_000)
    time.sleep(0.001)
"""
    ran = on_disk.python(script, limits=CommandLimits(wall_s=240, write_bytes=8_000_000))
    assert ran.exited.stopped_by is StoppedBy.WRITE
    assert ran.exited.written_bytes > 8_000_000


def test_what_was_written_is_reported(on_disk: Sandbox) -> None:
    ran = on_disk.python("open('a', 'wb').write(b'x' * 3_000_000)")
    assert ran.exited.exit_code == 0
    assert 3_000_000 <= ran.exited.written_bytes < 4_000_000
    assert ran.exited.changed == ("a",)


def test_children_count_for_their_command(on_disk: Sandbox) -> None:
    script = """
import os
for name in 'ab':
    if os.fork() == 0:
        open(name, 'wb').write(b'x' * 2_000_000); os._exit(0)
for _ in 'ab':
    os.wait()
"""
    assert on_disk.python(script).exited.written_bytes >= 4_000_000


def test_a_lost_monitor_takes_its_tree_along(on_disk: Sandbox) -> None:
    """Killed from outside, as a machine short of memory might: the supervisor ends what it left and says so."""
    command = on_disk.command("/usr/bin/python3", "-c", SLEEP)
    events = on_disk.client.run(command)
    assert isinstance(next(events), CommandStarted)
    assert next(events) == CommandOutput("stdout", b"up\n")
    os.kill(_monitor(on_disk), signal.SIGKILL)
    ran = collect(events)
    assert "monitor" in (ran.exited.start_error or "")
    assert eventually(lambda: settled(on_disk))
    assert on_disk.run("/usr/bin/true").exited.exit_code == 0


def _monitor(sandbox: Sandbox) -> int:
    """The host's pid of the process of sandboxd that watches the only command."""
    found = processes(sandbox)
    own = {process.pid for process in found if process.own}
    return next(process.parent for process in found if not process.own and process.parent in own)
