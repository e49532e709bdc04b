"""The processes that wait for a command: used, replaceable, out of the tenant's reach, and holding nothing yet."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.core.ports.sandboxd import CommandLimits, StoppedBy
from orchestrator.drivers.docker.engine import DockerEngine
from tests.sandbox_image.test_weakened import source, weakened
from tests.support.engine import SessionImages
from tests.support.processes import OWN_MAX, Process, eventually, lineage, processes, settled
from tests.support.sandbox import Sandbox, running_sandbox

pytestmark = pytest.mark.engine

NAMES = ("sandboxd", "template", "monitor", "program")


@pytest.fixture(scope="module")
def fresh(engine: DockerEngine, images: SessionImages) -> Iterator[Sandbox]:
    """One nobody else kills processes of, and without an app."""
    with running_sandbox(engine, images.sandbox) as running:
        running.list("/usr/bin/python3", "/usr/bin/true")
        yield running


@pytest.fixture(scope="module")
def patient(engine: DockerEngine, images: SessionImages, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """One that has no second monitor made while a command runs, however long that takes on a busy machine."""
    late = source("starter.py", "_REFILL_WAIT_S = 0.02", "_REFILL_WAIT_S = 60.0")
    with weakened(engine, images.sandbox, tmp_path_factory.mktemp("patient"), change=late) as running:
        running.list("/usr/bin/python3", "/usr/bin/true")
        yield running


def waiting(sandbox: Sandbox) -> dict[str, Process]:
    """The processes that wait, by name, once they all do."""
    assert eventually(lambda: settled(sandbox) and len(processes(sandbox)) == OWN_MAX and len(lineage(sandbox)) == 4)
    return dict(zip(NAMES, lineage(sandbox), strict=True))


def is_dead(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def exit_code(sandbox: Sandbox, *argv: str) -> int | None:
    return sandbox.run(*argv).exited.exit_code


def test_a_command_is_started_by_the_process_that_waited_and_another_takes_its_place(patient: Sandbox) -> None:
    before = waiting(patient)
    os.kill(before["program"].pid, signal.SIGSTOP)
    stuck = patient.run("/usr/bin/true", limits=CommandLimits(wall_s=0.5)).exited
    assert stuck.stopped_by is StoppedBy.WALL
    before = waiting(patient)
    assert exit_code(patient, "/usr/bin/true") == 0
    after = waiting(patient)
    assert after["template"] == before["template"]
    assert after["monitor"] == before["monitor"]
    assert after["program"].pid != before["program"].pid
    assert exit_code(patient, "/usr/bin/true") == 0


def test_what_started_a_program_is_gone_and_the_program_leads_a_session(patient: Sandbox) -> None:
    ready = waiting(patient)
    script = """
import os, sys, time
monitor, before = map(int, sys.argv[1:])
assert os.getsid(0) == os.getpgid(0) == os.getpid() != before
while os.getppid() != monitor:
    time.sleep(0.001)
print('left alone with its monitor')
"""
    ran = patient.python(script, str(ready["monitor"].inside), str(ready["program"].inside))
    assert ran.stdout == b"left alone with its monitor\n", ran.text


def test_a_program_that_may_have_no_process_beside_it_is_started_all_the_same(patient: Sandbox) -> None:
    waiting(patient)
    script = """
import os
try:
    os.fork()
except BlockingIOError:
    print('alone', os.getsid(0) == os.getpid())
"""
    ran = patient.python(script, limits=CommandLimits(wall_s=60, processes=1))
    assert ran.stdout == b"alone True\n", ran.text


def test_what_one_command_used_is_not_charged_to_the_next(patient: Sandbox) -> None:
    ready = waiting(patient)["monitor"]
    greedy = patient.python("import os; os.write(os.open('much', os.O_CREAT | os.O_WRONLY), bytearray(60_000_000))")
    assert greedy.exited.memory_peak_bytes > 60_000_000
    assert waiting(patient)["monitor"] == ready
    modest = patient.run("/usr/bin/true").exited
    assert modest.memory_peak_bytes < 60_000_000
    assert modest.cpu_s < greedy.exited.cpu_s


def test_a_monitor_that_was_told_to_end_its_command_watches_no_other(patient: Sandbox) -> None:
    before = waiting(patient)["monitor"]
    limits = CommandLimits(wall_s=0.5)
    ended = patient.python("import time; time.sleep(60)", limits=limits).exited
    assert ended.stopped_by is StoppedBy.WALL
    assert eventually(lambda: is_dead(before.pid))
    assert waiting(patient)["monitor"] != before


def test_a_monitor_is_replaced_after_so_many_commands(
    engine: DockerEngine, images: SessionImages, tmp_path: Path
) -> None:
    few = source("starter.py", "_COMMANDS_MAX = 100", "_COMMANDS_MAX, _REFILL_WAIT_S = 2, 60.0")
    with weakened(engine, images.sandbox, tmp_path, change=few) as sandbox:
        sandbox.list("/usr/bin/true")
        seen = []
        for _ in range(5):
            seen.append(waiting(sandbox)["monitor"].pid)
            assert sandbox.run("/usr/bin/true").exited.exit_code == 0
        assert seen[0] == seen[1] != seen[2] == seen[3] != seen[4]


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_killed_process_that_waited_is_replaced(fresh: Sandbox, name: str) -> None:
    killed = waiting(fresh)[name]
    os.kill(killed.pid, signal.SIGKILL)
    # A command handed to a dying process is answered as lost: whether it ran is not known.
    assert eventually(lambda: is_dead(killed.pid))
    for _ in range(3):
        assert fresh.run("/usr/bin/true").exited.exit_code == 0
    assert killed not in waiting(fresh).values()


def test_what_waits_runs_under_the_policy_that_came_meanwhile(fresh: Sandbox) -> None:
    fresh.list("/usr/bin/env", "/usr/bin/true", digest="wide", starts={"/usr/bin/env": ("/usr/bin/true",)})
    assert fresh.run("/usr/bin/env", "/usr/bin/true").exited.exit_code == 0
    waiting(fresh)
    fresh.list("/usr/bin/env", digest="narrow")
    assert exit_code(fresh, "/usr/bin/env", "/usr/bin/true") == 126
    fresh.list("/usr/bin/python3", "/usr/bin/true")


def test_what_waits_cannot_be_signalled_by_a_command(fresh: Sandbox) -> None:
    fresh.run("/usr/bin/true")
    ready = waiting(fresh)
    # This one takes what waits; while it runs, the next ones are made, which it may not touch either.
    script = """
import os, sys, time
known = set(map(int, sys.argv[1:]))
for number in range(400):
    for pid in range(1, max(known) + 20):
        if pid in (os.getpid(), 0):
            continue
        try:
            os.kill(pid, 0)
        except PermissionError:
            known.discard(pid)
        except ProcessLookupError:
            pass
        else:
            print('reached', pid)
    if not known:
        break
    time.sleep(0.005)
print('unseen', known)
"""
    others = [str(ready[name].inside) for name in NAMES[:3]]
    assert fresh.python(script, *others).stdout == b"unseen set()\n"


def test_what_waits_holds_nothing_of_a_command_and_cannot_be_looked_into(fresh: Sandbox) -> None:
    fresh.run("/usr/bin/true")
    ready = waiting(fresh)
    # The template keeps the domain that limits nothing but signals; the monitor its counters.
    allowed = {"template": "ruleset]", "monitor": "/io", "program": "/dev/null"}
    for name, count in (("template", 5), ("monitor", 8), ("program", 5)):
        root = Path("/proc", str(ready[name].pid))
        held = [str(entry.readlink()) for entry in (root / "fd").iterdir()]
        ordinary = [target for target in held if target.startswith(("/dev/null", "socket:", "pipe:"))]
        assert len(held) == count, held
        assert all(target in ordinary or target.endswith(allowed[name]) for target in held), held
        # Memory is taken from a command first, never from what watches it.
        assert (root / "oom_score_adj").read_text() == ("500\n" if name == "program" else "0\n")
        # The kernel gives the files of what cannot be looked into to root.
        assert (root / "environ").stat().st_uid == 0


def test_a_tenant_that_runs_nothing_for_long_keeps_nothing_waiting(
    engine: DockerEngine, images: SessionImages, tmp_path: Path
) -> None:
    soon = source("starter.py", "_IDLE_S = 300.0", "_IDLE_S = 0.2")
    with weakened(engine, images.sandbox, tmp_path, change=soon) as sandbox:
        sandbox.list("/usr/bin/true")
        for _ in range(2):
            assert sandbox.run("/usr/bin/true").exited.exit_code == 0
            assert eventually(lambda: len(processes(sandbox)) == OWN_MAX - 2)


def test_a_file_that_was_replaced_is_granted_as_it_is_now(fresh: Sandbox) -> None:
    fresh.list("/usr/bin/python3", "/usr/bin/cat", digest="cat")
    for text in ("one", "two"):
        fresh.python(f"import os; open('new', 'w').write('{text}'); os.replace('new', 'kept')")
        assert fresh.run("/usr/bin/cat", "kept").stdout == text.encode()
    fresh.list("/usr/bin/python3", "/usr/bin/true")
