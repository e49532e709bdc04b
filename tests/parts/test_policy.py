"""The allowlist in force: every way of editing it makes a version, and no bad file ever takes its place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine

from orchestrator.core.allowlist.errors import InvalidAllowlist
from orchestrator.core.allowlist.request import CommandRequest
from orchestrator.core.allowlist.rules import Decision
from orchestrator.core.policies import PolicyEditDenied, PolicyMoved, PolicySource, PolicyUnavailable
from orchestrator.core.ports.audit import AuditQuery, AuditUnavailable
from orchestrator.flows.allowlist import ReasonMissing
from orchestrator.parts.policy import PolicyPart
from tests.support.cluster import Cluster
from tests.support.gate import ADA, AGENT, Gated, gated
from tests.support.stores import control_store

WITHOUT_LS = ("  - id: ls\n    program: ls\n", "  - id: ls\n    program: ls\n    scope: tenant:nobody\n")


@pytest.fixture(scope="module")
def store(cluster: Cluster) -> Iterator[Engine]:
    with control_store(cluster) as made:
        yield made


@pytest.fixture
def gate(store: Engine, tmp_path: Path) -> Iterator[Gated]:
    with gated(store, tmp_path) as made:
        yield made


def edited(text: str) -> str:
    assert WITHOUT_LS[0] in text
    return text.replace(*WITHOUT_LS)


def ls(gate: Gated, policies: PolicyPart) -> Decision:
    return policies.in_force().gate(gate.tenant).decide(CommandRequest(argv=("ls",))).decision


def test_the_first_file_is_version_one(gate: Gated) -> None:
    version = gate.policies.in_force().version
    assert (version.number, version.source, version.author) == (1, PolicySource.DISK, "disk")
    assert gate.another_process().in_force().version.number == 1


def test_a_saved_edit_holds_for_the_next_command_in_every_process(gate: Gated) -> None:
    other = gate.another_process()
    assert ls(gate, gate.policies) is ls(gate, other) is Decision.ALLOW
    version = gate.allowlist.save(edited(gate.file.read_text()), actor=ADA, reason="No listing.", expected=1)
    assert version.number == 2
    assert ls(gate, gate.policies) is ls(gate, other) is Decision.DENY
    assert other.in_force().version == gate.policies.in_force().version == version


def test_a_text_that_comes_back_is_a_later_version_in_every_process(gate: Gated) -> None:
    other, text = gate.another_process(), gate.file.read_text()
    assert other.in_force().version.number == 1
    gate.allowlist.save(edited(text), actor=ADA, reason="No listing.", expected=1)
    gate.allowlist.save(text, actor=ADA, reason="As before.", expected=2)
    assert other.in_force().version.number == 3
    gate.allowlist.save(edited(text), actor=ADA, reason="No listing.", expected=3)
    gate.file.write_text(text)
    found = other.in_force()
    assert (found.version.number, found.version.source) == (5, PolicySource.DISK)


def test_a_text_saved_over_while_it_was_read_is_no_edit_by_hand(gate: Gated, monkeypatch: pytest.MonkeyPatch) -> None:
    other, text = gate.another_process(), gate.file.read_text()
    assert other.in_force().version.number == 1
    gate.file.write_text(text)  # another stamp: the file is read again
    saves = iter([edited(text)])

    def slowly(_: object) -> str:
        found = gate.file.read_text()
        for one in saves:
            gate.allowlist.save(one, actor=ADA, reason="No listing.", expected=1)
        return found

    monkeypatch.setattr(type(other._file), "read", slowly)
    found = other.in_force()
    assert (found.version.number, found.version.author) == (2, "Ada")
    assert ls(gate, other) is Decision.DENY


def test_a_file_broken_twice_alike_leaves_the_newest_version_in_force(gate: Gated) -> None:
    other, text = gate.another_process(), gate.file.read_text()
    gate.policies.in_force()
    gate.file.write_text("rules: [")
    assert ls(gate, other) is Decision.ALLOW
    gate.allowlist.save(edited(text), actor=ADA, reason="No listing.", expected=1)
    gate.file.write_text("rules: [")
    assert ls(gate, other) is Decision.DENY


def test_an_edit_by_hand_becomes_a_version(gate: Gated) -> None:
    gate.policies.in_force()
    gate.file.write_text(edited(gate.file.read_text()))
    found = gate.policies.in_force()
    assert (found.version.number, found.version.source, found.problem) == (2, PolicySource.DISK, "")
    assert ls(gate, gate.policies) is Decision.DENY
    assert "tenant:nobody" in gate.allowlist.diff(2)


def test_an_edit_that_keeps_size_and_time_is_seen(gate: Gated) -> None:
    gate.policies.in_force()
    before = gate.file.stat()
    gate.file.write_text(gate.file.read_text().replace("reason: List files.", "reason: List filez."))
    os.utime(gate.file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert gate.policies.in_force().version.number == 2


@pytest.mark.parametrize("damage", ["rules: [", "version: 1\n", "", "\xff", "version: 1\nsurprise: 1\n"])
def test_an_invalid_file_never_replaces_what_is_in_force(gate: Gated, damage: str) -> None:
    good = gate.file.read_text()
    gate.policies.in_force()
    gate.file.write_bytes(damage.encode("latin-1"))
    for policies in (gate.policies, gate.another_process()):
        found = policies.in_force()
        assert found.version.number == 1
        assert found.problem
        assert ls(gate, policies) is Decision.ALLOW
    gate.file.write_text(good)
    assert gate.policies.in_force().problem == ""
    assert len(gate.allowlist.history()) == 1


def test_a_deleted_file_leaves_the_last_version_in_force(gate: Gated) -> None:
    gate.policies.in_force()
    gate.file.unlink()
    assert "cannot be read" in gate.policies.in_force().problem
    assert ls(gate, gate.policies) is Decision.ALLOW


def test_without_any_valid_allowlist_everything_is_refused(gate: Gated) -> None:
    gate.file.write_text("nonsense")
    with pytest.raises(PolicyUnavailable, match="no valid allowlist"):
        gate.policies.in_force()


def test_somebody_elses_edit_is_never_overwritten(gate: Gated) -> None:
    text = gate.file.read_text()
    gate.allowlist.save(edited(text), actor=ADA, reason="First.", expected=1)
    with pytest.raises(PolicyMoved, match="at version 2, not at 1"):
        gate.allowlist.save(text + "\n# late\n", actor=ADA, reason="Second.", expected=1)


def test_of_many_editors_at_once_exactly_one_wins(gate: Gated) -> None:
    gate.policies.in_force()
    text = gate.file.read_text()

    def save(number: int) -> bool:
        try:
            gate.allowlist.save(f"{text}\n# {number}\n", actor=ADA, reason="Race.", expected=1)
        except PolicyMoved:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(save, range(4))) == 1
    version, stored = gate.allowlist.version(2)
    assert stored == gate.file.read_text()
    assert gate.policies.in_force().version == version


def test_an_old_version_can_be_put_in_force_again(gate: Gated) -> None:
    first = gate.file.read_text()
    gate.allowlist.save(edited(first), actor=ADA, reason="No listing.", expected=1)
    restored = gate.allowlist.restore(1, actor=ADA, reason="It was wrong.")
    assert (restored.number, restored.source, restored.restored_from) == (3, PolicySource.RESTORED, 1)
    assert gate.file.read_text() == first
    assert [one.number for one in gate.allowlist.history()] == [3, 2, 1]


def test_nothing_bad_is_ever_saved(gate: Gated) -> None:
    text = gate.file.read_text()
    with pytest.raises(InvalidAllowlist):
        gate.allowlist.save(text + "\nrules: []", actor=ADA, reason="Broken.", expected=None)
    with pytest.raises(ReasonMissing):
        gate.allowlist.save(edited(text), actor=ADA, reason="  ", expected=None)
    with pytest.raises(PolicyEditDenied):
        gate.allowlist.save(edited(text), actor=AGENT, reason="Let me out.", expected=None)
    assert gate.file.read_text() == text


def test_an_edit_that_cannot_be_recorded_is_not_made(gate: Gated) -> None:
    gate.policies.in_force()
    text = gate.file.read_text()
    (gate.audit_directory / "head").unlink()
    (gate.audit_directory / "head").mkdir()
    with pytest.raises(AuditUnavailable):
        gate.allowlist.save(edited(text), actor=ADA, reason="Unseen.", expected=1)
    assert gate.file.read_text() == text


def test_saving_is_recorded_with_author_and_reason(gate: Gated) -> None:
    gate.allowlist.save(edited(gate.file.read_text()), actor=ADA, reason="No listing.", expected=1)
    record = gate.audit.search(AuditQuery(action="allowlist.save", actor="Ada", limit=1))[0]
    assert record.values["policy_version"] == 2
    details = record.values["details"]
    assert isinstance(details, dict) and details["reason"] == "No listing."


def test_replay_tells_which_decisions_would_change(gate: Gated) -> None:
    for argv in (("ls",), ("ls", "-l"), ("pwd",)):
        gate.commands.run(gate.tenant, CommandRequest(argv=argv), actor=AGENT)
    found = gate.allowlist.replay(edited(gate.file.read_text()))
    assert found.replayed == 3
    assert {(one.command.argv, one.before, one.after) for one in found.changes} == {
        (("ls",), "allow", "deny"),
        (("ls", "-l"), "allow", "deny"),
    }
