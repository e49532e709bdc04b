"""A command is made ready while it is being recorded, and told to go only when that is done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from orchestrator.core.allowlist.request import CommandRequest
from orchestrator.core.commands import ApprovalRequired, CommandDenied, CommandState, TooManyCommands
from orchestrator.core.limits import CommandSection, Profile
from orchestrator.core.ports.audit import AuditQuery, AuditUnavailable
from orchestrator.core.ports.sandboxd import (
    CommandEvent,
    CommandExited,
    CommandStarted,
    HeldCommand,
    PolicyMissing,
    SandboxBusy,
    SandboxCommand,
    SandboxPolicy,
)
from orchestrator.flows.command import CommandFlow
from orchestrator.parts.running import SandboxRunner
from orchestrator.store.session import single
from tests.support.cluster import Cluster
from tests.support.gate import AGENT, Gated, broken, gated
from tests.support.stores import control_store

END = CommandExited(0, None, None, None, False, 0, 0, 0, 0, 0, (), True)


@dataclass
class Held:
    """What was made ready, and what became of it."""

    sandbox: Sandbox
    command: SandboxCommand
    is_told: bool = False
    is_closed: bool = False

    def go(self) -> Iterator[CommandEvent]:
        self.is_told = True
        if self.sandbox.refusal is not None:
            raise self.sandbox.refusal
        yield from (CommandStarted(1), END)

    def close(self) -> None:
        self.is_closed = True


@dataclass
class Sandbox:
    """Notes what it is asked; `refusal` is what it answers a held command's word with."""

    refusal: Exception | None = None
    held: list[Held] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    policies: list[str] = field(default_factory=list)

    def hold(self, command: SandboxCommand) -> HeldCommand:
        self.held.append(Held(self, command))
        return self.held[-1]

    def run(self, command: SandboxCommand) -> Iterator[CommandEvent]:
        self.ran.append(command.id)
        yield from (CommandStarted(1), END)

    def set_policy(self, policy: SandboxPolicy) -> None:
        self.policies.append(policy.digest)


@pytest.fixture(scope="module")
def store(cluster: Cluster) -> Iterator[Engine]:
    with control_store(cluster) as made:
        yield made


@pytest.fixture
def gate(store: Engine, tmp_path: Path) -> Iterator[Gated]:
    with gated(store, tmp_path) as made:
        yield made


def flow(gate: Gated, sandbox: Sandbox, **changes: object) -> CommandFlow:
    runner = SandboxRunner(lambda _: sandbox, lambda tenant, network: None)  # type: ignore[arg-type, return-value]
    gatekeeper = replace(gate.commands.gatekeeper, runners={"sandbox": runner}, holders={"sandbox": runner})
    return replace(gate.commands, gatekeeper=replace(gatekeeper, **changes))  # type: ignore[arg-type]


def asking(*argv: str, stdin: str = "") -> CommandRequest:
    return CommandRequest(argv=argv, stdin=stdin)


def test_what_was_made_ready_is_what_runs(gate: Gated) -> None:
    sandbox = Sandbox()
    ended = flow(gate, sandbox).run(gate.tenant, asking("ls"), actor=AGENT)
    assert (ended.state, sandbox.ran) == (CommandState.FINISHED, [])
    assert [(one.command.id, one.is_told) for one in sandbox.held] == [(ended.id, True)]


def test_what_cannot_be_recorded_never_goes(gate: Gated) -> None:
    sandbox = Sandbox()
    commands = flow(gate, sandbox)
    commands.run(gate.tenant, asking("ls"), actor=AGENT)
    broken(gate)
    with pytest.raises(AuditUnavailable):
        commands.run(gate.tenant, asking("ls"), actor=AGENT)
    assert [(one.is_told, one.is_closed) for one in sandbox.held] == [(True, False), (False, True)]
    assert sandbox.ran == []


def test_what_cannot_be_stored_never_goes_and_is_recorded_as_failed(gate: Gated) -> None:
    sandbox = Sandbox()
    with single(gate.store) as connection:
        connection.execute(text("ALTER TABLE commands RENAME TO elsewhere"))
        try:
            with pytest.raises(DBAPIError):
                flow(gate, sandbox).run(gate.tenant, asking("ls"), actor=AGENT)
        finally:
            connection.execute(text("ALTER TABLE elsewhere RENAME TO commands"))
    assert [(one.is_told, one.is_closed) for one in sandbox.held] == [(False, True)]
    after, before = gate.audit.search(AuditQuery(limit=2))
    assert (before.text("phase"), after.text("phase"), after.text("result")) == ("before", "after", "failed")
    assert "could not be stored" in str(after.values["details"])


def test_one_that_waits_for_its_place_takes_nobody_elses(gate: Gated) -> None:
    sandbox = Sandbox()
    none = Profile(commands=CommandSection.model_construct(**{**CommandSection().model_dump(), "at_once": 0}))
    with pytest.raises(TooManyCommands):
        flow(gate, sandbox, profile=lambda _: none).run(gate.tenant, asking("ls"), actor=AGENT)
    assert [(one.is_told, one.is_closed) for one in sandbox.held] == [(False, True)]


@pytest.mark.parametrize("argv", [("curl", "example.org"), ("rm", "a.txt")])
def test_nothing_is_made_ready_that_is_denied_or_waits_for_a_person(gate: Gated, argv: tuple[str, ...]) -> None:
    sandbox = Sandbox()
    with pytest.raises((CommandDenied, ApprovalRequired)):
        flow(gate, sandbox).run(gate.tenant, asking(*argv), actor=AGENT)
    assert sandbox.held == []


@pytest.mark.parametrize("refusal", [PolicyMissing("none yet"), SandboxBusy("held for too long")])
def test_what_cannot_go_any_more_is_run_anew(gate: Gated, refusal: Exception) -> None:
    sandbox = Sandbox(refusal)
    ended = flow(gate, sandbox).run(gate.tenant, asking("ls"), actor=AGENT)
    assert (ended.state, sandbox.ran) == (CommandState.FINISHED, [ended.id])
    assert len(sandbox.policies) == isinstance(refusal, PolicyMissing)


def test_one_with_input_is_only_run(gate: Gated) -> None:
    sandbox = Sandbox()
    ended = flow(gate, sandbox).run(gate.tenant, asking("grep", "x", stdin="text"), actor=AGENT)
    assert (ended.state, sandbox.held, sandbox.ran) == (CommandState.FINISHED, [], [ended.id])
