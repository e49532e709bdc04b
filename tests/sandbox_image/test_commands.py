"""A command runs alone, within its limits, and leaves nothing behind: not a process, not a zombie, not a leak."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.core.ports.sandboxd import (
    Access,
    AppState,
    CommandExited,
    CommandLimits,
    CommandOutput,
    CommandStarted,
    CommandUnknown,
    PathGrant,
    PolicyMissing,
    Program,
    ProgramNotListed,
    SandboxBusy,
    SandboxPolicy,
    SandboxRequestInvalid,
    StoppedBy,
)
from orchestrator.drivers.docker.engine import DockerEngine
from tests.support.engine import SessionImages
from tests.support.sandbox import PATIENCE_S, Sandbox, collect, running_sandbox

pytestmark = pytest.mark.engine

SLEEP = "import time; print('up', flush=True); time.sleep(600)"
# Ten processes that left the session, were orphaned and ignore every polite signal.
STUBBORN = """
import os, signal, sys, time
for number in range(10):
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        for which in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(which, signal.SIG_IGN)
        time.sleep(600)
        os._exit(0)
for number in range(10):
    os.wait()
print('up', flush=True)
"""


def members(sandbox: Sandbox) -> list[str]:
    """The states of all processes whose real uid is the tenant's, however dumpable they are."""
    states = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            status = dict(line.split(":\t", 1) for line in (entry / "status").read_text().splitlines() if ":\t" in line)
        except (OSError, ValueError):
            continue
        if status.get("Uid", "").split("\t")[0] == str(sandbox.uid):
            states.append(status["State"])
    return states


def eventually(condition: Callable[[], bool], wait_s: float = PATIENCE_S) -> bool:
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_streams_and_exit_code_arrive_as_they_are(sandbox: Sandbox) -> None:
    ran = sandbox.python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
    assert (ran.stdout, ran.stderr, ran.exited.exit_code) == (b"out\n", b"err\n", 3)
    assert ran.exited.signal is None
    assert ran.exited.stopped_by is None


def test_output_arrives_while_the_command_runs(sandbox: Sandbox) -> None:
    events = sandbox.client.run(sandbox.command("/usr/bin/python3", "-c", SLEEP))
    assert isinstance(next(events), CommandStarted)
    assert next(events) == CommandOutput("stdout", b"up\n")
    events.close()  # type: ignore[attr-defined]


def test_arguments_arrive_exactly_as_decided(sandbox: Sandbox) -> None:
    hostile = ("; id", "$(id)", "`id`", "a b", "", "-rf", "--", "*", "~", "é\u202e", "\n", "'\"\\", "{a,b}")
    script = "import sys; sys.stdout.buffer.write(open('/proc/self/cmdline', 'rb').read())"
    ran = sandbox.python(script, *hostile, grants=())
    # /proc is closed to a command, its own arguments included: the interpreter is asked instead.
    assert ran.exited.exit_code != 0
    ran = sandbox.python("import sys; print(ascii(sys.argv[1:]))", *hostile)
    assert ran.stdout.decode().strip() == ascii(list(hostile))


def test_the_environment_is_what_was_given_and_nothing_else(sandbox: Sandbox) -> None:
    given = {"PATH": "/usr/bin", "LANG": "C.UTF-8", "ONE": "1"}
    ran = sandbox.python("import os; print(sorted(os.environ.items()))", environment=given)
    assert ran.stdout.decode().strip() == str(sorted(given.items()))


def test_input_arrives_whole_and_ends(sandbox: Sandbox) -> None:
    data = os.urandom(3_000_000)
    ran = sandbox.run("/usr/bin/cat", stdin=data, limits=CommandLimits(output_bytes=4_000_000))
    assert ran.stdout == data


def test_a_program_that_ignores_its_input_still_ends(sandbox: Sandbox) -> None:
    assert sandbox.run("/usr/bin/true", stdin=b"x" * 5_000_000).exited.exit_code == 0


def test_changed_paths_are_named(sandbox: Sandbox) -> None:
    sandbox.python("import os; os.mkdir('d'); open('d/gone', 'w'); open('kept', 'w'); open('same', 'w')")
    ran = sandbox.python(
        "import os; os.remove('d/gone'); open('kept', 'a').write('x'); open('d/new', 'w'); os.utime('kept', (1, 1))"
    )
    assert ran.exited.changed == ("d/gone", "d/new", "kept")
    assert ran.exited.changed_complete


def test_a_command_that_cannot_write_changes_nothing(sandbox: Sandbox) -> None:
    look = (PathGrant("/workspace", Access.READ),)
    ran = sandbox.run("/usr/bin/cat", "nothing", grants=look, replace_grants=True)
    assert ran.exited.changed == ()


def test_narrower_grants_replace_the_programs_own(sandbox: Sandbox) -> None:
    sandbox.python("open('a', 'w').write('A'); open('b', 'w').write('B')")
    only_a = (PathGrant("/workspace/a", Access.READ),)
    assert sandbox.run("/usr/bin/cat", "a", grants=only_a, replace_grants=True).stdout == b"A"
    assert sandbox.run("/usr/bin/cat", "b", grants=only_a, replace_grants=True).exited.exit_code == 1


def test_a_grant_through_a_link_is_refused(sandbox: Sandbox) -> None:
    sandbox.python("import os; os.symlink('/etc', 'out')")
    through = (PathGrant("/workspace/out/hostname", Access.READ),)
    ran = sandbox.run("/usr/bin/cat", "out/hostname", grants=through, replace_grants=True)
    assert "symbolic link" in (ran.exited.start_error or "")


@pytest.mark.parametrize(
    "grant",
    [
        PathGrant("/usr/bin", Access.READ),
        PathGrant("/usr", Access.READ),
        PathGrant("/", Access.LIST),
        PathGrant("/usr/lib", Access.READ),
        PathGrant("/proc", Access.READ),
        PathGrant("/dev", Access.READ),
        PathGrant("/run/sandboxd", Access.READ),
        PathGrant("/opt/sandboxd", Access.READ),
        PathGrant("/etc", Access.WRITE),
        PathGrant("/run/sandboxd", Access.WRITE),
        PathGrant("/workspace/../etc", Access.READ),
        PathGrant("workspace", Access.READ),
    ],
)
def test_a_grant_that_would_open_programs_or_pseudo_files_is_refused(sandbox: Sandbox, grant: PathGrant) -> None:
    with pytest.raises(SandboxRequestInvalid):
        sandbox.run("/usr/bin/true", grants=(grant,))


@pytest.mark.parametrize("cwd", ["/etc", "/usr/bin", "workspace", "", "/workspace/..", "/proc/self/root"])
def test_a_working_directory_outside_is_refused(sandbox: Sandbox, cwd: str) -> None:
    with pytest.raises(SandboxRequestInvalid):
        sandbox.run("/usr/bin/true", cwd=cwd)


@pytest.mark.parametrize("cwd", ["/workspace/out", "/workspace/out/deeper", "/workspace/missing", "/workspace/file"])
def test_a_working_directory_that_is_no_plain_directory_starts_nothing(sandbox: Sandbox, cwd: str) -> None:
    sandbox.python("import os; os.symlink('/etc', 'out'); open('file', 'w')")
    assert "working directory" in (sandbox.run("/usr/bin/true", cwd=cwd).exited.start_error or "")


# What stops a command


def test_wall_time_ends_the_whole_tree(sandbox: Sandbox) -> None:
    ran = sandbox.python(STUBBORN + "\ntime.sleep(600)", limits=CommandLimits(wall_s=1.0))
    assert ran.exited.stopped_by is StoppedBy.WALL
    assert ran.exited.signal == 9
    assert eventually(lambda: len(members(sandbox)) <= 2)  # the init and sandboxd


def test_orphans_of_a_command_that_ended_well_are_ended_too(sandbox: Sandbox) -> None:
    ran = sandbox.python(STUBBORN)
    assert ran.exited.exit_code == 0
    assert eventually(lambda: len(members(sandbox)) <= 2)
    assert not any(state.startswith("Z") for state in members(sandbox))


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
    assert eventually(lambda: len(members(sandbox)) <= 2)


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
    assert eventually(lambda: len(members(sandbox)) <= 2)


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


# Many at once


def test_commands_at_once_are_bounded_not_queued(sandbox: Sandbox) -> None:
    sandbox.list("/usr/bin/sleep", digest="small")
    running = []
    refused = 0
    try:
        for _ in range(24):
            events = sandbox.client.run(sandbox.command("/usr/bin/sleep", "600", limits=CommandLimits(wall_s=600)))
            try:
                next(events)
                running.append(events)
            except SandboxBusy:
                refused += 1
    finally:
        for events in running:
            events.close()  # type: ignore[attr-defined]
    assert len(running) == 20
    assert refused == 4
    assert eventually(lambda: sandbox.client.status().commands == 0)


def test_many_commands_from_many_callers_all_end_well(sandbox: Sandbox) -> None:
    def one(number: int) -> int | None:
        return sandbox.run("/usr/bin/true", limits=CommandLimits(changed_paths=0)).exited.exit_code

    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(one, range(200)))
    assert codes == [0] * 200
    assert eventually(lambda: len(members(sandbox)) <= 2)


@pytest.mark.chaos
def test_ten_thousand_starts_leave_nothing_behind(sandbox: Sandbox) -> None:
    def one(number: int) -> int | None:
        return sandbox.run("/usr/bin/true", limits=CommandLimits(changed_paths=0)).exited.exit_code

    with ThreadPoolExecutor(12) as pool:
        assert set(pool.map(one, range(10_000))) == {0}
    assert eventually(lambda: len(members(sandbox)) <= 2)


def test_the_same_id_cannot_run_twice_at_once(sandbox: Sandbox) -> None:
    command = sandbox.command("/usr/bin/python3", "-c", SLEEP)
    events = sandbox.client.run(command)
    next(events)
    with pytest.raises(SandboxRequestInvalid):
        next(sandbox.client.run(command))
    events.close()  # type: ignore[attr-defined]


# The policy


def test_nothing_runs_before_a_policy_is_pushed(engine: DockerEngine, images: SessionImages) -> None:
    with running_sandbox(engine, images.sandbox) as fresh:
        with pytest.raises(PolicyMissing):
            fresh.run("/usr/bin/true")
        assert fresh.client.status().app.state is AppState.STOPPED
        # The shutdown asks nobody to wait: the container ends by itself and cleanly.
        engine.stop(fresh.name, timeout_s=30)
        ended = engine.observe(fresh.name)
        assert ended is not None
        assert ended.exit_code == 0


def test_a_command_decided_by_another_policy_does_not_run(sandbox: Sandbox) -> None:
    with pytest.raises(PolicyMissing):
        sandbox.run("/usr/bin/true", policy_digest="older")
    assert sandbox.run("/usr/bin/true", policy_digest="listed").exited.exit_code == 0


def test_a_policy_that_is_only_checked_changes_nothing(sandbox: Sandbox) -> None:
    asked = SandboxPolicy("asked", (Program("/usr/bin/cat"), Program("/usr/bin/nothing")))
    report = sandbox.client.check_policy(asked)
    assert report.programs == {"/usr/bin/cat": "/usr/bin/cat"}
    assert "No such file" in report.refused["/usr/bin/nothing"]
    assert sandbox.client.status().policy_digest == "listed"
    assert sandbox.run("/usr/bin/true").exited.exit_code == 0


def test_a_new_policy_holds_for_the_next_command(sandbox: Sandbox) -> None:
    sandbox.list("/usr/bin/cat", digest="two")
    with pytest.raises(ProgramNotListed):
        sandbox.run("/usr/bin/true")
    assert sandbox.client.status().policy_digest == "two"


@pytest.mark.parametrize(
    "path",
    [
        "/usr/bin/nothing",
        "/lib64/ld-linux-x86-64.so.2",
        "/usr/lib/x86_64-linux-gnu/libc.so.6",
        "/workspace/true",
        "/usr/bin/../bin/true",
        "true",
        "/usr/bin",
    ],
)
def test_what_is_no_safe_program_cannot_be_listed(sandbox: Sandbox, path: str) -> None:
    report = sandbox.list("/usr/bin/true", path)
    assert path in report.refused
    assert report.programs == {"/usr/bin/true": "/usr/bin/true"}


def test_an_empty_policy_closes_everything(sandbox: Sandbox) -> None:
    sandbox.client.set_policy(SandboxPolicy("empty", ()))
    with pytest.raises(ProgramNotListed):
        sandbox.run("/usr/bin/true")


def test_disk_usage_is_counted(sandbox: Sandbox) -> None:
    sandbox.python("open('big', 'wb').write(b'x' * 3_000_000)")
    usage = {entry.path: entry for entry in sandbox.client.disk_usage()}
    assert usage["/workspace"].used_bytes >= 3_000_000
    assert usage["/workspace"].file_system_bytes == 64 * 2**20


def test_events_of_parallel_commands_do_not_mix(sandbox: Sandbox) -> None:
    results: dict[int, CommandExited | None] = {}

    def one(number: int) -> None:
        ran = sandbox.python(f"for _ in range(200): print('{number}')")
        results[number] = ran.exited if set(ran.stdout.split()) == {str(number).encode()} else None

    threads = [threading.Thread(target=one, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert all(results.get(number) for number in range(6))
