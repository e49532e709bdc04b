"""A held command: ready to be executed, and not one instruction of it run before the word to go."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from orchestrator.core.ports.sandboxd import (
    CommandEvent,
    CommandExited,
    PolicyMissing,
    SandboxCommand,
    StoppedBy,
)
from orchestrator.drivers.docker.engine import DockerEngine
from tests.sandbox_image.test_weakened import source, weakened
from tests.sandbox_image.test_wire import answer, connected, frames
from tests.support.engine import SessionImages
from tests.support.processes import eventually
from tests.support.sandbox import Sandbox

pytestmark = pytest.mark.engine

PYTHON = "/usr/bin/python3"


@pytest.fixture(scope="module")
def hasty(engine: DockerEngine, images: SessionImages, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """One that holds a command for a moment only."""
    soon = source("settings.py", "HOLD_WAIT_S = 20.0", "HOLD_WAIT_S = 0.1")
    with weakened(engine, images.sandbox, tmp_path_factory.mktemp("hasty"), change=soon) as running:
        running.list(PYTHON)
        yield running


def leaving_a_mark(sandbox: Sandbox, digest: str | None = None) -> SandboxCommand:
    return sandbox.command(PYTHON, "-c", "open('/workspace/mark', 'w').close()", policy_digest=digest)


def ran(sandbox: Sandbox) -> bool:
    sandbox.list(PYTHON)
    answer = sandbox.python("import os; print(os.path.exists('/workspace/mark'))").text
    assert answer in ("True\n", "False\n")
    return answer == "True\n"


def ended(events: list[CommandEvent]) -> CommandExited:
    assert isinstance(events[-1], CommandExited)
    return events[-1]


def nothing_runs(sandbox: Sandbox) -> bool:
    return sandbox.client.status().commands == 0


def test_it_runs_at_the_word_and_not_before(sandbox: Sandbox) -> None:
    held = sandbox.client.hold(leaving_a_mark(sandbox))
    assert eventually(lambda: sandbox.client.status().commands == 1)
    answer = sandbox.python("import os; print(os.path.exists('/workspace/mark'))").text
    assert answer == "False\n"
    end = ended(list(held.go()))
    assert (end.exit_code, end.changed) == (0, ("mark",))
    assert ran(sandbox)


def test_one_that_is_closed_never_runs(sandbox: Sandbox) -> None:
    held = sandbox.client.hold(leaving_a_mark(sandbox))
    assert eventually(lambda: sandbox.client.status().commands == 1)
    held.close()
    assert eventually(lambda: nothing_runs(sandbox))
    assert not ran(sandbox)


def test_one_that_is_cancelled_never_runs(sandbox: Sandbox) -> None:
    command = leaving_a_mark(sandbox)
    held = sandbox.client.hold(command)
    assert eventually(lambda: sandbox.client.status().commands == 1)
    sandbox.client.cancel(command.id)
    assert eventually(lambda: nothing_runs(sandbox))
    (end,) = held.go()
    assert isinstance(end, CommandExited)
    assert (end.stopped_by, end.exit_code, end.signal) == (StoppedBy.CANCELLED, None, None)
    assert not ran(sandbox)


def test_a_policy_that_came_meanwhile_holds_for_it(sandbox: Sandbox) -> None:
    sandbox.list(PYTHON, digest="before")
    held = sandbox.client.hold(leaving_a_mark(sandbox, "before"))
    assert eventually(lambda: sandbox.client.status().commands == 1)
    sandbox.list("/usr/bin/true", digest="after")
    with pytest.raises(PolicyMissing):
        list(held.go())
    assert eventually(lambda: nothing_runs(sandbox))
    assert not ran(sandbox)


def test_one_that_nobody_speaks_to_lapses(hasty: Sandbox) -> None:
    command = leaving_a_mark(hasty)
    asked = {"id": command.id, "program": PYTHON, "argv": list(command.argv), "cwd": command.cwd}
    with connected(hasty) as stream:
        stream.sendall(json.dumps({"type": "run", "hold": True, **asked}).encode() + b"\n")
        first, *rest = frames(answer(stream))
    assert (first["type"], first["code"]) == ("error", "busy")
    assert [frame["type"] for frame in rest] == ["exited"]
    assert not ran(hasty)


def test_whatever_is_wrong_is_said_at_the_word(sandbox: Sandbox) -> None:
    held = sandbox.client.hold(leaving_a_mark(sandbox, "another"))
    with pytest.raises(PolicyMissing):
        list(held.go())
