"""What a command gets: its arguments, environment, input and files, exactly as decided, and nothing else."""

from __future__ import annotations

import os

import pytest

from orchestrator.core.ports.sandboxd import (
    Access,
    CommandLimits,
    CommandOutput,
    CommandStarted,
    PathGrant,
    SandboxRequestInvalid,
)
from tests.support.processes import SLEEP
from tests.support.sandbox import Sandbox

pytestmark = pytest.mark.engine


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


def test_disk_usage_is_counted(sandbox: Sandbox) -> None:
    sandbox.python("open('big', 'wb').write(b'x' * 3_000_000)")
    usage = {entry.path: entry for entry in sandbox.client.disk_usage()}
    assert usage["/workspace"].used_bytes >= 3_000_000
    assert usage["/workspace"].file_system_bytes == 64 * 2**20
