"""The policy says what can start at all, from the next command on."""

from __future__ import annotations

import pytest

from orchestrator.core.ports.sandboxd import (
    AppState,
    PolicyMissing,
    Program,
    ProgramNotListed,
    SandboxPolicy,
)
from orchestrator.drivers.docker.engine import DockerEngine
from tests.support.engine import SessionImages
from tests.support.sandbox import Sandbox, running_sandbox

pytestmark = pytest.mark.engine


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
