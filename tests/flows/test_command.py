"""Decide, record, run, record: nothing denied or unrecorded ever runs, and an approval is used once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from orchestrator.core.actors import Actor, ActorKind, system
from orchestrator.core.allowlist.load import load
from orchestrator.core.allowlist.request import CommandRequest
from orchestrator.core.approvals import ApprovalKind, ApprovalSettled, ApprovalState, ApprovalUnfit, ApproverUnfit
from orchestrator.core.commands import (
    ApprovalRequired,
    CommandDenied,
    CommandNotRunning,
    CommandState,
    Outcome,
    TooManyCommands,
)
from orchestrator.core.limits import CommandSection, Profile
from orchestrator.core.ports.audit import AuditQuery, AuditUnavailable
from orchestrator.core.ports.sandboxd import SandboxdUnreachable
from orchestrator.flows.approval import NothingToAsk
from orchestrator.parts.broker import Broker
from orchestrator.parts.running import Task
from orchestrator.store import approvals, commands
from tests.support.cluster import Cluster
from tests.support.gate import ADA, AGENT, BEN, Gated, NotingRunner, broken, gated
from tests.support.interfaces import tenant as another_tenant
from tests.support.stores import control_store


@pytest.fixture(scope="module")
def store(cluster: Cluster) -> Iterator[Engine]:
    with control_store(cluster) as made:
        yield made


@pytest.fixture
def gate(store: Engine, tmp_path: Path) -> Iterator[Gated]:
    with gated(store, tmp_path) as made:
        yield made


def asking(*argv: str, **more: Any) -> CommandRequest:
    return CommandRequest(argv=argv, **more)


RM = asking("rm", "a.txt")


def approval_for(gate: Gated, request: CommandRequest = RM, actor: Actor = AGENT) -> str:
    with pytest.raises(ApprovalRequired) as waiting:
        gate.commands.run(gate.tenant, request, actor=actor)
    return str(waiting.value.fields["approval_id"])


def test_an_allowed_command_is_recorded_before_and_after(gate: Gated) -> None:
    seen_before = []
    gate.runner.before = lambda task: seen_before.extend(gate.audit.search(AuditQuery(action="command.run")))
    ended = gate.commands.run(gate.tenant, asking("ls", "-l"), actor=AGENT, request_id="r1")
    assert (ended.state, ended.exit_code, ended.rule, ended.decision) == (CommandState.FINISHED, 0, "ls", "allow")
    assert [record.text("phase") for record in seen_before] == ["before"]
    after, before = gate.audit.search(AuditQuery(action="command.run"))
    for record in (before, after):
        assert (record.text("target"), record.text("rule"), record.text("policy_version")) == ("ls -l", "ls", "1")
        assert (record.text("tenant"), record.text("request_id")) == ("north", "r1")
    assert (after.text("phase"), after.text("result"), after.values["exit_code"]) == ("after", "ok", 0)
    assert b"".join(one.data for one in commands.output(gate.store, ended.id)) == b"done\n"


def test_what_runs_is_what_the_gate_made_of_it(gate: Gated) -> None:
    gate.commands.run(gate.tenant, asking("git", "diff", "--stat"), actor=AGENT)
    task = gate.runner.tasks[0]
    assert task.execution.argv == ("git", "diff", "--no-ext-diff", "--no-textconv", "--stat")
    assert task.policy.digest == gate.policies.sandbox_policy(gate.tenant).digest


def test_a_denied_command_never_runs_and_says_why(gate: Gated) -> None:
    with pytest.raises(CommandDenied) as caught:
        gate.commands.run(gate.tenant, asking("git", "diff", "--output=x"), actor=AGENT)
    assert caught.value.fields["nearest"] == "git.diff"
    assert "approval ask north" in caught.value.next_step
    assert gate.runner.tasks == []
    stored = commands.get(gate.store, str(caught.value.fields["command_id"]))
    assert (stored.state, stored.decision) == (CommandState.DENIED, "deny")
    assert gate.audit.search(AuditQuery(result="denied"))[0].text("decision") == "deny"


def test_hostile_arguments_are_denied_and_can_still_be_remembered(gate: Gated) -> None:
    for argv in (("ls", "a\0b"), ("ls", "\ud800"), ("\x1b[2J",), ()):
        with pytest.raises(CommandDenied):
            gate.commands.run(
                gate.tenant, CommandRequest.model_construct(**{**asking("x").model_dump(), "argv": argv}), actor=AGENT
            )
    assert len(commands.listed(gate.store, decision="deny")) == 4


def test_a_link_out_of_the_workspace_is_denied(gate: Gated) -> None:
    (gate.workspace / "out").symlink_to("/etc")
    with pytest.raises(CommandDenied, match="No rule"):
        gate.commands.run(gate.tenant, asking("cat", "out/passwd"), actor=AGENT)


def test_what_cannot_be_recorded_does_not_run(gate: Gated) -> None:
    gate.commands.run(gate.tenant, asking("ls"), actor=AGENT)
    broken(gate)
    with pytest.raises(AuditUnavailable):
        gate.commands.run(gate.tenant, asking("ls"), actor=AGENT)
    assert len(gate.runner.tasks) == 1
    assert commands.listed(gate.store)[0].state is CommandState.FAILED


def test_a_command_that_cannot_start_ends_as_failed(gate: Gated) -> None:
    def unreachable(task: Task) -> None:
        raise SandboxdUnreachable("Nobody answers.")

    gate.runner.before = unreachable
    ended = gate.commands.run(gate.tenant, asking("ls"), actor=AGENT)
    assert (ended.state, ended.exit_code) == (CommandState.FAILED, None)
    assert "Nobody answers" in str(ended.error)
    assert gate.audit.search(AuditQuery(limit=1))[0].text("result") == "failed"


def test_output_is_kept_up_to_its_cap_and_no_further(gate: Gated) -> None:
    gate.runner.told = tuple(("stdout", b"x" * 300) for _ in range(10))
    ended = gate.commands.run(gate.tenant, asking("ls"), actor=AGENT)
    assert ended.truncated
    assert sum(len(one.data) for one in commands.output(gate.store, ended.id)) == 1_000


def test_only_so_many_run_at_once(gate: Gated) -> None:
    gate.runner.hold = True
    at_once = 20  # the profile's: the shipped allowlist does not make it fewer
    started = [gate.commands.start(gate.tenant, asking("ls"), actor=AGENT) for _ in range(at_once)]
    with pytest.raises(TooManyCommands):
        gate.commands.start(gate.tenant, asking("ls"), actor=AGENT)
    after, before = gate.audit.search(AuditQuery(limit=2))
    assert (before.text("phase"), after.text("phase"), after.text("result")) == ("before", "after", "failed")
    assert "Too many" in str(after.values["details"])
    gate.runner.release.set()
    for command in started:
        list(gate.commands.follow(command.id))
    assert gate.commands.run(gate.tenant, asking("ls"), actor=AGENT).state is CommandState.FINISHED


def test_output_can_be_followed_while_it_comes_and_afterwards(gate: Gated) -> None:
    gate.runner.hold = True
    started = gate.commands.start(gate.tenant, asking("ls"), actor=AGENT)
    live = gate.commands.follow(started.id)
    first = next(one for one in live if one is not None)
    assert (first.stream, first.data) == ("stdout", b"done\n")
    gate.runner.release.set()
    assert [one for one in live if one is not None] == []
    again = [one for one in gate.commands.follow(started.id) if one is not None]
    assert [one.data for one in again] == [b"done\n"]


def test_a_running_command_can_be_cancelled_and_only_then(gate: Gated) -> None:
    gate.runner.hold = True
    started = gate.commands.start(gate.tenant, asking("ls"), actor=AGENT)
    next(one for one in gate.commands.follow(started.id) if one is not None)
    patient = replace(gate.commands, cancel_wait_s=60.0)
    assert patient.cancel(gate.tenant, started.id, actor=ADA).state is CommandState.CANCELLED
    with pytest.raises(CommandNotRunning):
        gate.commands.cancel(gate.tenant, started.id, actor=ADA)
    assert gate.audit.search(AuditQuery(action="command.cancel"))[0].values["actor"] == {
        "kind": "person",
        "id": "user_ada",
        "name": "Ada",
    }


def test_a_command_of_another_process_is_stopped_by_leaving_word(gate: Gated) -> None:
    gate.runner.hold = True
    started = gate.commands.start(gate.tenant, asking("ls"), actor=AGENT)
    next(one for one in gate.commands.follow(started.id) if one is not None)
    runners = dict.fromkeys(("sandbox", "disposable", "query"), NotingRunner())
    other = replace(gate.commands, gatekeeper=replace(gate.commands.gatekeeper, runners=runners), broker=Broker())

    def look() -> None:
        while not commands.is_to_cancel(gate.store, started.id):
            time.sleep(0.01)
        gate.runner.cancel(gate.tenant, started.id)

    looking = threading.Thread(target=look)
    looking.start()
    assert replace(other, cancel_wait_s=60.0).cancel(gate.tenant, started.id, actor=ADA).state is CommandState.CANCELLED
    looking.join(60)
    assert gate.audit.search(AuditQuery(action="command.cancel"))[0].text("tenant") == "north"


def test_a_command_nobody_runs_is_not_called_stopped(gate: Gated) -> None:
    gate.runner.hold = True
    started = gate.commands.start(gate.tenant, asking("ls"), actor=AGENT)
    next(one for one in gate.commands.follow(started.id) if one is not None)
    runners = dict.fromkeys(("sandbox", "disposable", "query"), NotingRunner())
    other = replace(gate.commands, gatekeeper=replace(gate.commands.gatekeeper, runners=runners), cancel_wait_s=0.2)
    with pytest.raises(CommandNotRunning, match="Nothing answered"):
        other.cancel(gate.tenant, started.id, actor=ADA)
    gate.runner.release.set()
    list(gate.commands.follow(started.id))


def test_the_profile_bounds_how_long_a_command_may_ask_for(gate: Gated) -> None:
    short = Profile(commands=CommandSection(wall_time=90))
    bounded = replace(gate.commands, gatekeeper=replace(gate.commands.gatekeeper, profile=lambda _: short))
    for wanted, given in ((None, 60.0), (30.0, 30.0), (400.0, 90.0)):
        bounded.run(gate.tenant, asking("ls", timeout_s=wanted), actor=AGENT)
        assert gate.runner.tasks[-1].limits.wall_s == given


def test_commands_of_a_dead_process_are_closed(gate: Gated) -> None:
    gate.runner.hold = True
    started = gate.commands.start(gate.tenant, asking("ls"), actor=AGENT)
    next(one for one in gate.commands.follow(started.id) if one is not None)
    assert gate.commands.close_interrupted(grace_s=-120) == 0  # this process still runs it
    with gate.store.begin() as connection:
        connection.execute(text("UPDATE commands SET id = 'kdead' WHERE id = :id"), {"id": started.id})
    assert gate.commands.close_interrupted() == 0  # its time is not over
    assert gate.commands.close_interrupted(grace_s=-120) == 1
    assert commands.get(gate.store, "kdead").state is CommandState.INTERRUPTED
    with gate.store.begin() as connection:
        connection.execute(text("UPDATE commands SET id = :id WHERE id = 'kdead'"), {"id": started.id})
    gate.runner.release.set()
    for thread in threading.enumerate():
        if thread.name == f"command-{started.id}":
            thread.join(60)


def test_an_approved_command_runs_exactly_once(gate: Gated) -> None:
    approval_id = approval_for(gate)
    assert gate.runner.tasks == []
    assert approval_for(gate) == approval_id  # asking again is the same request
    gate.approvals.approve(approval_id, actor=BEN, reason="Fine.")
    ended = gate.commands.run(gate.tenant, RM, actor=AGENT)
    assert (ended.state, ended.approval_id, ended.decision) == (CommandState.FINISHED, approval_id, "approval")
    used = gate.approvals.get(approval_id)
    assert (used.state, used.used_by_command, used.decided_by) == (ApprovalState.USED, ended.id, "Ben")
    assert approval_for(gate) != approval_id
    record = gate.audit.search(AuditQuery(action="command.run", result="ok", limit=1))[0]
    assert (record.text("approval"), record.text("approver")) == (approval_id, "Ben")


def test_two_runs_at_once_cannot_share_an_approval(gate: Gated) -> None:
    gate.approvals.approve(approval_for(gate), actor=BEN)

    def run(_: int) -> bool:
        try:
            gate.commands.run(gate.tenant, RM, actor=AGENT)
        except ApprovalRequired:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(run, range(4))) == 1


@pytest.mark.parametrize(
    "other",
    [
        asking("rm", "b.txt"),
        asking("rm", "a.txt", cwd="/workspace/sub"),
        asking("rm", "./a.txt"),
        asking("rm", "a.txt", timeout_s=5),
        asking("rm", "a.txt", place="disposable"),
    ],
    ids=["argv", "cwd", "spelling", "timeout", "place"],
)
def test_an_approval_is_bound_to_every_byte(gate: Gated, other: CommandRequest) -> None:
    (gate.workspace / "sub").mkdir()
    approval_id = approval_for(gate)
    gate.approvals.approve(approval_id, actor=BEN)
    with pytest.raises(ApprovalUnfit):
        gate.commands.run(gate.tenant, other.model_copy(update={"approval": approval_id}), actor=AGENT)
    assert gate.runner.tasks == []
    assert gate.approvals.get(approval_id).state is ApprovalState.APPROVED


def test_an_approval_is_bound_to_tenant_requester_policy_and_time(gate: Gated) -> None:
    approval_id = approval_for(gate)
    gate.approvals.approve(approval_id, actor=BEN)
    named = RM.model_copy(update={"approval": approval_id})
    south = another_tenant(gate.store, "south")
    with pytest.raises(ApprovalUnfit):
        gate.commands.run(south, named, actor=AGENT)
    with pytest.raises(ApprovalUnfit):
        gate.commands.run(gate.tenant, named, actor=Actor(ActorKind.AGENT, "tok_2", "other"))
    with gate.store.begin() as connection:
        connection.execute(text("UPDATE approvals SET expires_at = now() - interval '1 second'"))
    with pytest.raises(ApprovalUnfit):
        gate.commands.run(gate.tenant, named, actor=AGENT)
    with gate.store.begin() as connection:
        connection.execute(text("UPDATE approvals SET expires_at = now() + interval '1 hour'"))
    gate.file.write_text(gate.file.read_text() + "\n# another version\n")
    with pytest.raises(ApprovalUnfit):
        gate.commands.run(gate.tenant, named, actor=AGENT)
    assert gate.runner.tasks == []


@pytest.mark.parametrize(
    "approver", [AGENT, ADA, system("scheduler"), Actor(ActorKind.AGENT, "tok_9", "Ben/agent", on_behalf_of="user_ben")]
)
def test_neither_the_requester_nor_any_agent_approves(gate: Gated, approver: Actor) -> None:
    approval_id = approval_for(gate)
    with pytest.raises(ApproverUnfit):
        gate.approvals.approve(approval_id, actor=approver)
    assert gate.approvals.get(approval_id).state is ApprovalState.PENDING


def test_a_request_is_decided_once_and_a_denied_one_opens_nothing(gate: Gated) -> None:
    approval_id = approval_for(gate)
    gate.approvals.deny(approval_id, actor=BEN, reason="Keep it.")
    with pytest.raises(ApprovalSettled, match="denied by Ben already"):
        gate.approvals.approve(approval_id, actor=BEN)
    assert approval_for(gate) != approval_id
    assert gate.runner.tasks == []


def test_an_expired_request_can_be_asked_again(gate: Gated) -> None:
    approval_id = approval_for(gate)
    with gate.store.begin() as connection:
        connection.execute(text("UPDATE approvals SET expires_at = now() - interval '1 second'"))
    with pytest.raises(ApprovalSettled, match="expired"):
        gate.approvals.approve(approval_id, actor=BEN)
    assert approvals.pending_count(gate.store) == 0
    assert approval_for(gate) != approval_id


def test_a_denied_command_becomes_a_rule(gate: Gated) -> None:
    with pytest.raises(NothingToAsk):
        gate.approvals.ask_rule(gate.tenant, asking("ls"), actor=AGENT, reason="Why not.")
    wanted = asking("stat", "--format=%s", "a.csv")
    asked = gate.approvals.ask_rule(gate.tenant, wanted, actor=AGENT, reason="File sizes.")
    assert (asked.kind, asked.shown_command) == (ApprovalKind.RULE, "stat --format=%s a.csv")
    draft = gate.approvals.rule_draft(asked.id, gate.tenant)
    indented = "".join(f"  {line}\n" for line in draft.splitlines())
    widened = load(gate.file.read_text() + "\n" + indented, source="widened")
    decided = widened.gate(profile="office", tenant="north").decide(wanted)
    assert (decided.decision, decided.rule) == ("approval", "draft.stat")
    assert gate.approvals.approve(asked.id, actor=BEN).state is ApprovalState.APPROVED
    with pytest.raises(CommandDenied):  # agreeing that a rule is wanted runs nothing
        gate.commands.run(gate.tenant, wanted, actor=AGENT)


def test_a_driver_fault_still_ends_the_command(gate: Gated) -> None:
    def fault(task: Task) -> None:
        raise RuntimeError("bug")

    gate.runner.before = fault
    ended = gate.commands.run(gate.tenant, asking("ls"), actor=AGENT)
    assert (ended.state, ended.error) == (CommandState.FAILED, "error: RuntimeError")


def test_limits_and_signals_are_told_apart(gate: Gated) -> None:
    gate.runner.outcome = Outcome(CommandState.TIMED_OUT, signal=9, stopped_by="wall")
    ended = gate.commands.run(gate.tenant, asking("ls"), actor=AGENT)
    assert (ended.state, ended.signal, ended.stopped_by) == (CommandState.TIMED_OUT, 9, "wall")
    assert gate.audit.search(AuditQuery(limit=1))[0].text("result") == "timed_out"
