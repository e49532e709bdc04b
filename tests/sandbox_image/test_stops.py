"""What stops a command, and that it leaves nothing behind: not a process, not a zombie."""

from __future__ import annotations

import pytest

from orchestrator.core.ports.sandboxd import (
    CommandLimits,
    CommandOutput,
    CommandStarted,
    CommandUnknown,
    StoppedBy,
)
from tests.support.processes import SLEEP, STUBBORN, eventually, settled
from tests.support.sandbox import Sandbox, collect

pytestmark = pytest.mark.engine


def test_wall_time_ends_the_whole_tree(sandbox: Sandbox) -> None:
    ran = sandbox.python(STUBBORN + "\ntime.sleep(600)", limits=CommandLimits(wall_s=1.0))
    assert ran.exited.stopped_by is StoppedBy.WALL
    assert ran.exited.signal == 9
    assert eventually(lambda: settled(sandbox))


def test_orphans_of_a_command_that_ended_well_are_ended_too(sandbox: Sandbox) -> None:
    ran = sandbox.python(STUBBORN)
    assert ran.exited.exit_code == 0
    assert eventually(lambda: settled(sandbox))


def test_endless_output_is_cut_and_ended(sandbox: Sandbox) -> None:
    ran = sandbox.python("while True: print('x' * 1000)", limits=CommandLimits(output_bytes=200_000))
    assert ran.exited.stopped_by is StoppedBy.OUTPUT
    assert ran.exited.truncated
    assert len(ran.stdout) == 200_000


def test_one_huge_file_is_stopped(sandbox: Sandbox) -> None:
    script = "f = open('big', 'wb')\nwhile True: f.write(b'x' * 65536)"
    ran = sandbox.python(script, limits=CommandLimits(write_bytes=1_000_000))
    size = sandbox.python("import os; print(os.path.getsize('big'))")
    assert int(size.stdout) <= 1_000_000
    # Python sees the limit as an error of the write; a program that does not is ended by the signal.
    assert ran.exited.stopped_by is StoppedBy.WRITE or b"File too large" in ran.stderr


def test_cancel_ends_the_tree_and_says_so(sandbox: Sandbox) -> None:
    command = sandbox.command("/usr/bin/python3", "-c", SLEEP)
    events = sandbox.client.run(command)
    assert isinstance(next(events), CommandStarted)
    sandbox.client.cancel(command.id)
    ran = collect(events)
    assert ran.exited.stopped_by is StoppedBy.CANCELLED
    with pytest.raises(CommandUnknown):
        sandbox.client.cancel(command.id)


def test_a_caller_who_leaves_takes_the_command_along(sandbox: Sandbox) -> None:
    events = sandbox.client.run(sandbox.command("/usr/bin/python3", "-c", STUBBORN + "\ntime.sleep(600)"))
    assert isinstance(next(events), CommandStarted)
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert eventually(lambda: sandbox.client.status().commands == 0)
    assert eventually(lambda: settled(sandbox))


def test_a_fork_bomb_ends_with_its_command_and_others_still_run(sandbox: Sandbox) -> None:
    bomb = """
import os, time
print('up', flush=True)
while True:
    try:
        os.fork()
    except OSError:
        time.sleep(0.01)
"""
    command = sandbox.command("/usr/bin/python3", "-c", bomb, limits=CommandLimits(wall_s=120, processes=60))
    events = sandbox.client.run(command)
    assert isinstance(next(events), CommandStarted)
    assert next(events) == CommandOutput("stdout", b"up\n")
    # The bomb fills its own allowance; the container's is larger, so there is room for others.
    other = sandbox.run("/usr/bin/true", limits=CommandLimits(wall_s=60, processes=120))
    assert other.exited.exit_code == 0
    sandbox.client.cancel(command.id)
    assert collect(events).exited.stopped_by is StoppedBy.CANCELLED
    assert eventually(lambda: settled(sandbox))


def test_a_greedy_command_is_ended_for_memory_and_nothing_else_is(sandbox: Sandbox) -> None:
    hog = "held = []\nwhile True: held.append(bytearray(1_000_000)); held[-1][::4096] = b'x' * len(held[-1][::4096])"
    before = sandbox.client.status().started_at
    ran = sandbox.python(hog)
    assert ran.exited.stopped_by is StoppedBy.MEMORY
    assert ran.exited.signal == 9
    assert sandbox.client.status().started_at == before


def test_a_command_cannot_signal_or_stop_what_watches_it(sandbox: Sandbox) -> None:
    script = """
import os, signal
for pid in (1, os.getppid(), -1):
    for number in (signal.SIGKILL, signal.SIGSTOP):
        try:
            os.kill(pid, number)
            print('sent', pid)
        except OSError as failure:
            print(failure.errno)
"""
    before = sandbox.client.status().started_at
    ran = sandbox.python(script)
    # The last one may only reach the command itself; the first two must fail.
    assert ran.stdout.startswith(b"1\n1\n1\n1\n")
    assert sandbox.client.status().started_at == before


def test_a_command_cannot_talk_to_the_supervisor(sandbox: Sandbox) -> None:
    """Connecting may work; being heard does not."""
    script = """
import socket
caller = socket.socket(socket.AF_UNIX)
caller.settimeout(60)
try:
    caller.connect('/run/sandboxd/sandboxd.sock')
    caller.sendall(b'{"type":"hello"}\\n')
    print('heard' if caller.recv(1) else 'closed')
except OSError as failure:
    print('closed')
"""
    assert sandbox.python(script).stdout == b"closed\n"


def test_a_caller_of_the_tenants_uid_cannot_flood_the_supervisor_to_death(sandbox: Sandbox) -> None:
    flood = """
import socket
for number in range(2000):
    caller = socket.socket(socket.AF_UNIX)
    caller.settimeout(60)
    try:
        caller.connect('/run/sandboxd/sandboxd.sock')
        caller.send(b'x' * 100)
    except OSError:
        pass
    caller.close()
print('done')
"""
    before = sandbox.client.status().started_at
    assert sandbox.python(flood).stdout == b"done\n"
    assert sandbox.client.status().started_at == before
