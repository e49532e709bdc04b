"""Files over the API have rules of their own: nothing without one, approval where one says so, records of all of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.core.allowlist.request import CommandRequest
from orchestrator.core.commands import ApprovalRequired, Command, CommandDenied, CommandState
from orchestrator.core.ports.audit import AuditQuery
from orchestrator.drivers.files.confined import ConfinedFiles
from orchestrator.drivers.workspace.links import HostLinks
from orchestrator.flows.file import FileDenied, FileFlow
from orchestrator.parts.filework import FileRunner
from orchestrator.store import commands
from tests.support.cluster import Cluster
from tests.support.gate import ADA, AGENT, BEN, Gated, gated
from tests.support.stores import control_store


@pytest.fixture
def gate(cluster: Cluster, tmp_path: Path) -> Iterator[Gated]:
    with control_store(cluster) as store, gated(store, tmp_path) as made:
        runner = FileRunner(ConfinedFiles(), lambda _: made.workspace)
        gatekeeper = made.commands.gatekeeper
        with_files = replace(gatekeeper, runners={**gatekeeper.runners, "files": runner})
        yield replace(made, commands=replace(made.commands, gatekeeper=with_files))


@pytest.fixture
def files(gate: Gated) -> FileFlow:
    (gate.workspace / "notes.txt").write_text("one\ntwo\n")
    links = HostLinks({"/workspace": gate.workspace})
    return FileFlow(gate.audit, ConfinedFiles(), gate.policies, lambda _: gate.workspace, lambda _: links)


def without(gate: Gated, rule: str) -> None:
    """Take one rule out of the allowlist on the disk."""
    text = gate.file.read_text()
    begin = text.index(f"  - id: {rule}\n")
    gate.file.write_text(text[:begin] + text[text.index("\n\n", begin) + 2 :])


def output(gate: Gated, command: Command) -> str:
    return b"".join(one.data for one in commands.output(gate.store, command.id)).decode()


def test_each_operation_is_decided_by_its_own_rule(gate: Gated, files: FileFlow) -> None:
    north = gate.tenant
    files.entries(north, "", actor=AGENT)
    files.read(north, "notes.txt", actor=AGENT)
    files.search(north, "-two", actor=AGENT)
    files.glob(north, "**/*.txt", actor=AGENT)
    files.write(north, "new/a.txt", b"x", actor=AGENT)
    files.edit(north, "notes.txt", "one", "three", actor=AGENT)
    found = [(one.text("action"), one.text("rule"), one.text("phase")) for one in gate.audit.export(AuditQuery())]
    assert [one for one in found if one[0].startswith("file.")] == [
        ("file.list", "files.list", "event"),
        ("file.read", "files.read", "event"),
        ("file.search", "files.search", "event"),
        ("file.glob", "files.glob", "event"),
        ("file.write", "files.write", "before"),
        ("file.write", "files.write", "after"),
        ("file.edit", "files.write", "before"),
        ("file.edit", "files.write", "after"),
    ]


def test_who_may_read_may_not_write_for_that(gate: Gated, files: FileFlow) -> None:
    without(gate, "files.write")
    assert files.read(gate.tenant, "notes.txt", actor=AGENT).content == b"one\ntwo\n"
    with pytest.raises(FileDenied):
        files.write(gate.tenant, "notes.txt", b"x", actor=AGENT)
    with pytest.raises(FileDenied):
        files.edit(gate.tenant, "notes.txt", "one", "x", actor=AGENT)
    assert (gate.workspace / "notes.txt").read_text() == "one\ntwo\n"
    assert gate.audit.search(AuditQuery(action="file.edit"))[0].text("result") == "denied"


def test_an_edit_is_no_way_to_read(gate: Gated, files: FileFlow) -> None:
    without(gate, "files.read")
    with pytest.raises(FileDenied):
        files.edit(gate.tenant, "notes.txt", "one", "x", actor=AGENT)


def test_an_allowlist_without_file_rules_lets_nothing_be_done(gate: Gated, files: FileFlow) -> None:
    for rule in ("list", "read", "search", "glob", "write", "delete"):
        without(gate, f"files.{rule}")
    gate.file.write_text(gate.file.read_text().replace("  files: {builtin: files}\n", ""))
    with pytest.raises(FileDenied, match="no rules for files"):
        files.entries(gate.tenant, "", actor=ADA)


@pytest.mark.parametrize("path", [".git/config", "/etc/passwd", "../x", "out/x"])
def test_what_is_not_the_workspaces_is_not_written(gate: Gated, files: FileFlow, path: str) -> None:
    (gate.workspace / "out").symlink_to("/tmp")
    with pytest.raises(FileDenied):
        files.write(gate.tenant, path, b"x", actor=AGENT)


def test_deleting_waits_for_a_person_and_is_then_done_as_a_command(gate: Gated, files: FileFlow) -> None:
    with pytest.raises(FileDenied, match="allowlist") as refused:
        files.delete(gate.tenant, "notes.txt", actor=AGENT)
    assert "files delete -- /workspace/notes.txt" in refused.value.next_step
    request = CommandRequest(argv=("files", "delete", "--", "/workspace/notes.txt"))
    with pytest.raises(ApprovalRequired) as asked:
        gate.commands.run(gate.tenant, request, actor=AGENT)
    gate.approvals.approve(str(asked.value.fields["approval_id"]), actor=BEN)
    ended = gate.commands.run(gate.tenant, request, actor=AGENT)
    assert (ended.state, ended.exit_code, ended.changed_paths) == (CommandState.FINISHED, 0, ("notes.txt",))
    assert not (gate.workspace / "notes.txt").exists()


def test_file_operations_are_commands_like_others(gate: Gated, files: FileFlow) -> None:
    def run(*argv: str, stdin: str = "", cwd: str = "/workspace") -> tuple[int | None, str]:
        ended = gate.commands.run(gate.tenant, CommandRequest(argv=argv, stdin=stdin, cwd=cwd), actor=AGENT)
        return ended.exit_code, output(gate, ended)

    (gate.workspace / "deep").mkdir()
    assert run("files", "write", "b.txt", stdin="two more\n", cwd="/workspace/deep") == (0, "")
    assert (gate.workspace / "deep" / "b.txt").read_text() == "two more\n"
    assert run("files", "read", "notes.txt") == (0, "one\ntwo\n")
    assert run("files", "list", cwd="/workspace/deep") == (0, "deep/b.txt\n")
    assert run("files", "glob", "**/*.txt")[1].splitlines() == ["notes.txt", "deep/b.txt"]
    assert run("files", "search", "two")[1].splitlines() == ["notes.txt:2:two", "deep/b.txt:1:two more"]
    code, told = run("files", "read", "none.txt")
    assert code == 1 and "There is no" in told


def test_it_is_never_done_in_a_disposable_place(gate: Gated, files: FileFlow) -> None:
    request = CommandRequest(argv=("files", "write", "a.txt"), stdin="x", place="disposable")
    with pytest.raises(CommandDenied):
        gate.commands.run(gate.tenant, request, actor=AGENT)
    gate.file.write_text(gate.file.read_text().replace("    places: [sandbox]\n", ""))
    with pytest.raises(CommandDenied, match="outside every container"):
        gate.commands.run(gate.tenant, request, actor=AGENT)
    assert not (gate.workspace / "a.txt").exists()
