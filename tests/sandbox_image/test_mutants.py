"""Take one right, limit or argument of what holds a single command away, and one attack that failed succeeds.

What the self-test of a container finds by itself stands in test_weakened; this is the rest. Not here, because another
layer holds the same: making block devices (no capability), moving files between directories (Landlock refuses that
unless it is asked not to), core files (the engine's own limit).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from orchestrator.core.ports.engine import ContainerSpec
from orchestrator.core.ports.sandboxd import Access, CommandLimits, PathGrant
from orchestrator.drivers.docker.engine import DockerEngine
from tests.sandbox_image.test_weakened import Change, source, weakened
from tests.support.engine import SessionImages
from tests.support.sandbox import PROJECT, Sandbox, running_sandbox

pytestmark = pytest.mark.engine

READ = (PathGrant("/workspace", Access.READ),)
WRITE = (PathGrant("/workspace", Access.WRITE),)
PREPARE = "import os; open('/workspace/file', 'w').write('there'); os.mkdir('/workspace/directory')"
SYSCALL = "import ctypes; call = ctypes.CDLL(None, use_errno=True).syscall; "


@dataclass(frozen=True)
class Mutant:
    """`attack` raises, or does nothing, in a whole sandbox; with `change` it comes to its end."""

    change: Change
    attack: str
    grants: tuple[PathGrant, ...] = READ


def without_right(name: str) -> Change:
    """The right is not handled any more, so the kernel does not hold it."""
    return source(
        "domain.py", "                self._handled |= rights\n", f"                self._handled |= rights & ~{name}\n"
    )


def any_argument(call: str) -> Change:
    """The system call with whatever arguments."""

    def change(spec: ContainerSpec, directory: Path) -> ContainerSpec:
        made = json.loads((PROJECT / "sandbox_image/seccomp.json").read_text())
        made["syscalls"] = [rule for rule in made["syscalls"] if call not in rule["names"]]
        made["syscalls"].append({"names": [call], "action": "SCMP_ACT_ALLOW"})
        path = directory / "seccomp.json"
        path.write_text(json.dumps(made))
        return replace(spec, seccomp_profile=path)

    return change


def line(text: str, instead: str = "pass") -> Change:
    return source("program.py", text, instead)


MUTANTS: dict[str, Mutant] = {
    "writing": Mutant(without_right("WRITE_FILE"), "open('/workspace/file', 'r+').write('mine')"),
    "listing": Mutant(without_right("READ_DIR"), "import os; os.listdir('/etc')"),
    "removing directories": Mutant(without_right("REMOVE_DIR"), "import os; os.rmdir('/workspace/directory')"),
    "removing files": Mutant(without_right("REMOVE_FILE"), "import os; os.unlink('/workspace/file')"),
    "making devices": Mutant(
        without_right("MAKE_CHAR"), "import os, stat; os.mknod('/workspace/new', stat.S_IFCHR, 0)", WRITE
    ),
    "making directories": Mutant(without_right("MAKE_DIR"), "import os; os.mkdir('/workspace/new')"),
    "making files": Mutant(without_right("(MAKE_REG | WRITE_FILE)"), "open('/workspace/new', 'w')"),
    "making sockets": Mutant(
        without_right("MAKE_SOCK"), "import socket; socket.socket(socket.AF_UNIX).bind('/workspace/new')", WRITE
    ),
    "making pipes": Mutant(without_right("MAKE_FIFO"), "import os; os.mkfifo('/workspace/new')", WRITE),
    "making links": Mutant(without_right("MAKE_SYM"), "import os; os.symlink('/etc', '/workspace/new')"),
    "truncating": Mutant(without_right("TRUNCATE"), "import os; os.truncate('/workspace/file', 0)"),
    "commanding devices": Mutant(
        without_right("IOCTL_DEV"), "import fcntl; fcntl.ioctl(open('/dev/urandom'), 0x80045200, bytes(4))"
    ),
    "listening": Mutant(
        source("domain.py", "BIND_TCP | CONNECT_TCP if abi", "CONNECT_TCP if abi"),
        "import socket; socket.socket().bind(('127.0.0.1', 8123))",
    ),
    "open files": Mutant(
        line("_lower(resource.RLIMIT_NOFILE, _OPEN_FILES_MAX)"), "kept = [open('/dev/null') for _ in range(1500)]"
    ),
    "processes": Mutant(
        line("_lower(resource.RLIMIT_NPROC, order.processes)"),
        "import subprocess, threading; wait = threading.Event(); "
        "[threading.Thread(target=wait.wait, daemon=True).start() for _ in range(20)]",
    ),
    "size of a file": Mutant(
        line("_lower(resource.RLIMIT_FSIZE, order.write_bytes)"),
        "import os; os.truncate('/workspace/file', 2_000_000)",
        WRITE,
    ),
    "namespaces of a new process": Mutant(
        any_argument("clone"), SYSCALL + "assert call(56, 0x10000000 | 17, 0, 0, 0, 0) >= 0"
    ),
    # A kernel without this kind says so; only the filter says that it is not permitted.
    "kinds of sockets": Mutant(
        any_argument("socket"),
        "import errno, socket\n"
        "try: socket.socket(38, socket.SOCK_SEQPACKET)\n"
        "except OSError as refusal: assert refusal.errno != errno.EPERM",
    ),
    "personality": Mutant(any_argument("personality"), SYSCALL + "assert call(135, 0x0040000) >= 0"),
}


def attack(sandbox: Sandbox, mutant: Mutant) -> bool:
    """Whether it got to its end."""
    sandbox.list("/usr/bin/python3")
    prepared = sandbox.python(PREPARE)
    assert prepared.exited.exit_code == 0, prepared.text
    script = f"{mutant.attack}\nprint('got through', flush=True)\nimport os\nos._exit(0)"
    limits = CommandLimits(wall_s=60, write_bytes=1_000_000, processes=10)
    ran = sandbox.python(script, grants=mutant.grants, replace_grants=True, limits=limits)
    sandbox.python(
        "import shutil; [shutil.rmtree('/workspace/directory', True)]; import os; os.unlink('/workspace/file')"
    )
    return b"got through" in ran.stdout


@pytest.fixture(scope="module")
def whole(engine: DockerEngine, images: SessionImages) -> Iterator[Sandbox]:
    with running_sandbox(engine, images.sandbox) as sandbox:
        yield sandbox


@pytest.mark.parametrize("name", list(MUTANTS))
def test_in_a_whole_sandbox_the_attack_fails(whole: Sandbox, name: str) -> None:
    assert not attack(whole, MUTANTS[name])


@pytest.mark.parametrize("name", list(MUTANTS))
def test_without_what_holds_it_the_attack_succeeds(
    engine: DockerEngine, images: SessionImages, tmp_path: Path, name: str
) -> None:
    with weakened(engine, images.sandbox, tmp_path, change=MUTANTS[name].change) as sandbox:
        assert attack(sandbox, MUTANTS[name])


def test_a_command_hears_nothing_of_anothers_abstract_socket(
    engine: DockerEngine, images: SessionImages, tmp_path: Path
) -> None:
    change = source("domain.py", "SCOPE_ABSTRACT_SOCKETS | SCOPE_SIGNALS if abi", "SCOPE_SIGNALS if abi")
    with running_sandbox(engine, images.sandbox) as sandbox:
        assert not met(sandbox)
    with weakened(engine, images.sandbox, tmp_path, change=change) as sandbox:
        assert met(sandbox)


def met(sandbox: Sandbox) -> bool:
    """Whether one command could connect to an abstract socket of another that runs beside it."""
    sandbox.list("/usr/bin/python3")
    listen = (
        "import socket, time; s = socket.socket(socket.AF_UNIX); s.bind('\\0here'); s.listen(); "
        "print(1, flush=True); time.sleep(600)"
    )
    events = sandbox.client.run(sandbox.command("/usr/bin/python3", "-c", listen, limits=CommandLimits(wall_s=600)))
    try:
        next(events)
        next(events)  # it printed: it listens
        return sandbox.python("import socket; socket.socket(socket.AF_UNIX).connect('\\0here')").exited.exit_code == 0
    finally:
        events.close()  # type: ignore[attr-defined]
