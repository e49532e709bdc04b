"""Publishing: nothing bad leaves, nothing is lost when it dies in between, nothing is ever forced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.ports.code import CodeMerge
from orchestrator.core.ports.sandboxd import SandboxCommand, SandboxdUnreachable
from orchestrator.core.publishes import MergeConflicts, PublishRefused, PublishState
from orchestrator.parts.code import Code
from orchestrator.store import publishes
from tests.support.cluster import Cluster
from tests.support.publishing import ACTOR, Site, git, publishing_site


@pytest.fixture
def site(tmp_path: Path, cluster: Cluster) -> Iterator[Site]:
    with publishing_site(tmp_path, cluster) as made:
        yield made


def test_an_unchanged_workspace_commits_nothing(site: Site) -> None:
    first = site.flow.run(site.tenant, actor=ACTOR)
    assert first.commit == site.company_head("main") == site.company_head("tenant/harbour")
    again = site.flow.run(site.tenant, actor=ACTOR)
    assert (again.state, again.commit) == (PublishState.UNCHANGED, first.commit)
    assert git(site.company, "rev-list", "--count", "tenant/harbour") == "1"


def test_an_edit_arrives_with_author_and_trailers(site: Site) -> None:
    (site.tree / "app.py").write_text("one\nTWO\nthree\n")
    (site.tree / "new.txt").write_text("new\n")
    done = site.flow.run(site.tenant, actor=ACTOR)
    assert done.state is PublishState.PUBLISHED
    assert done.files_count == 2
    assert site.company_head("tenant/harbour") == done.commit
    message = git(site.company, "log", "-1", "--format=%an%n%B", "tenant/harbour")
    assert message.startswith("harbour (agent)\n")
    for trailer in ("Tenant: harbour", "Actor: Ada", "Command: c7"):
        assert trailer in message
    assert [record.action for record in site.records] == ["branch.publish"] * 2
    assert site.flow.run(site.tenant, actor=ACTOR).state is PublishState.UNCHANGED


def test_a_secret_stops_the_publish_before_the_branch_moves(site: Site) -> None:
    before = site.repository.branch("tenant/harbour")
    (site.tree / "key.pem").write_text("-----BEGIN " + "PRIVATE KEY-----\n")
    with pytest.raises(PublishRefused, match="private key"):
        site.flow.run(site.tenant, actor=ACTOR)
    assert site.repository.branch("tenant/harbour") == before
    (last,) = publishes.history(site.store, "t1")
    assert (last.state, last.findings[0].path) == (PublishState.REFUSED, "key.pem")
    (site.tree / "key.pem").unlink()
    (site.tree / "fine.txt").write_text("fine\n")
    assert site.flow.run(site.tenant, actor=ACTOR).state is PublishState.PUBLISHED
    assert "key.pem" not in git(site.company, "log", "--name-only", "tenant/harbour")


def test_a_secret_the_agent_committed_and_removed_is_still_found(site: Site) -> None:
    inside = ["--git-dir", str(site.sandboxd.git), "--work-tree", str(site.tree)]
    for content in ("-----BEGIN " + "PRIVATE KEY-----\n", "harmless\n"):
        (site.tree / "notes.txt").write_text(content)
        git(site.tree, *inside, "add", "--all")
        git(site.tree, *inside, "commit", "--quiet", "--message", "By the agent")
    with pytest.raises(PublishRefused, match=r"notes\.txt"):
        site.flow.run(site.tenant, actor=ACTOR)


@pytest.mark.parametrize("kind", ["link", "submodule", "large"])
def test_what_does_not_belong_is_refused_by_name(site: Site, kind: str) -> None:
    if kind == "link":
        (site.tree / "out").symlink_to("/etc/passwd")
    elif kind == "submodule":
        nested = site.tree / "nested"
        nested.mkdir()
        git(nested, "init", "--quiet")
        (nested / "a").write_text("a")
        git(nested, "add", "a")
        git(nested, "commit", "--quiet", "--message", "nested")
    else:
        (site.tree / "large.bin").write_bytes(b"\1" * (21 * 2**20))
    with pytest.raises(PublishRefused):
        site.flow.run(site.tenant, actor=ACTOR)


def test_a_rewritten_branch_is_refused(site: Site) -> None:
    (site.tree / "app.py").write_text("published\n")
    published = site.flow.run(site.tenant, actor=ACTOR).commit
    inside = ["--git-dir", str(site.sandboxd.git), "--work-tree", str(site.tree)]
    git(site.tree, *inside, "commit", "--quiet", "--amend", "--message", "Rewritten")
    (last,) = [failure for failure in [_failure(site)] if failure]
    assert "rewritten" in last
    assert site.repository.branch("tenant/harbour") == published


def _failure(site: Site) -> str:
    try:
        site.flow.run(site.tenant, actor=ACTOR)
    except Exception as error:
        return repr(error)
    return ""


def test_a_remote_that_is_down_leaves_the_work_safe_and_pending(site: Site) -> None:
    (site.tree / "app.py").write_text("offline\n")
    hidden = site.company.rename(site.company.with_suffix(".away"))
    pending = site.flow.run(site.tenant, actor=ACTOR)
    assert pending.state is PublishState.PENDING
    assert site.repository.branch("tenant/harbour") == pending.commit
    hidden.rename(site.company)
    assert site.flow.run(site.tenant, actor=ACTOR).state is PublishState.PUBLISHED
    assert site.company_head("tenant/harbour") == pending.commit


def test_a_branch_that_moved_at_the_remote_is_never_forced(site: Site) -> None:
    site.flow.run(site.tenant, actor=ACTOR)
    foreign = site.develop("foreign.txt", "x\n")
    git(site.developer, "push", "--quiet", "origin", "HEAD:tenant/harbour")
    (site.tree / "app.py").write_text("mine\n")
    assert site.flow.run(site.tenant, actor=ACTOR).state is PublishState.PENDING
    assert site.company_head("tenant/harbour") == foreign


STEPS = ["rev-parse", "add", "write-tree", "commit-tree", "update-ref", "pack-objects"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("time", [1, 2])
def test_dying_at_any_step_inside_is_repaired_by_the_next_publish(site: Site, step: str, time: int) -> None:
    site.flow.run(site.tenant, actor=ACTOR)
    (site.tree / "app.py").write_text(f"edited {step}\n")
    seen = 0

    def die(command: SandboxCommand) -> None:
        nonlocal seen
        seen += step in command.argv
        if step in command.argv and seen == time:
            raise SandboxdUnreachable("killed")

    site.sandboxd.before = die
    _failure(site)
    site.sandboxd.before = lambda command: None
    done = site.flow.run(site.tenant, actor=ACTOR)
    assert done.state in (PublishState.PUBLISHED, PublishState.UNCHANGED)
    assert git(site.company, "show", "tenant/harbour:app.py") == f"edited {step}"
    assert git(site.company, "rev-list", "--count", "tenant/harbour") == "2"
    assert site.flow.run(site.tenant, actor=ACTOR).state is PublishState.UNCHANGED


def test_production_comes_into_the_branch_by_a_merge(site: Site) -> None:
    (site.tree / "mine.txt").write_text("mine\n")
    site.flow.run(site.tenant, actor=ACTOR)
    moved = site.develop("theirs.txt", "theirs\n")
    site.repository.fetch(branch="main")
    assert (site.flow.view(site.tenant).behind, site.flow.view(site.tenant).ahead) == (1, 1)
    after = site.flow.bring_up_to_date(site.tenant, actor=ACTOR)
    assert after.behind == 0
    assert (site.tree / "theirs.txt").read_text() == "theirs\n"
    assert site.repository.is_ancestor(moved, site.company_head("tenant/harbour"))


def test_a_conflict_stays_in_the_workspace_until_it_is_resolved(site: Site) -> None:
    (site.tree / "app.py").write_text("one\nMINE\nthree\n")
    site.flow.run(site.tenant, actor=ACTOR)
    site.develop("app.py", "one\nTHEIRS\nthree\n")
    with pytest.raises(MergeConflicts) as caught:
        site.flow.bring_up_to_date(site.tenant, actor=ACTOR)
    assert caught.value.fields["conflicts"] == ["app.py"]
    assert "<<<<<<<" in (site.tree / "app.py").read_text()
    with pytest.raises(MergeConflicts):
        site.flow.run(site.tenant, actor=ACTOR)
    (site.tree / "app.py").write_text("one\nBOTH\nthree\n")
    assert site.flow.run(site.tenant, actor=ACTOR).state is PublishState.PUBLISHED
    view = site.flow.view(site.tenant)
    assert (view.behind, view.conflicts) == (0, ())


def test_the_code_of_a_change_merges_once_and_can_be_undone_without_force(site: Site) -> None:
    (site.tree / "migrations").mkdir()
    (site.tree / "migrations" / "001_note.sql").write_text("ALTER TABLE x ADD note text;\n")
    head = site.flow.run(site.tenant, actor=ACTOR).commit
    code = Code(site.repository, "main")
    assert code.head("harbour") == head
    check = code.check("harbour", str(head))
    assert [(item.path, item.text) for item in check.migrations] == [
        ("migrations/001_note.sql", "ALTER TABLE x ADD note text;\n")
    ]
    told: list[CodeMerge] = []
    arguments: dict[str, Any] = {"expected": check.production, "message": "Merge", "author": "Rev"}
    merge = code.merge("harbour", str(head), **arguments, about_to=told.append)
    assert told == [merge] and site.company_head("main") == merge.after
    again = code.merge("harbour", str(head), **arguments, about_to=told.append)
    assert again == CodeMerge(merge.after, merge.after) and told == [merge]
    assert code.check("harbour", str(head)).is_merged
    assert code.undo(merge) and code.undo(merge)
    assert not code.undo(CodeMerge(merge.before, "f" * 40)), "it never arrived"
    assert git(site.company, "ls-tree", "-r", "--name-only", "main") == "app.py"
    assert site.repository.is_ancestor(merge.after, site.company_head("main"))


def test_what_was_undone_is_merged_whole_the_next_time(site: Site) -> None:
    (site.tree / "one.py").write_text("1\n")
    first = str(site.flow.run(site.tenant, actor=ACTOR).commit)
    code = Code(site.repository, "main")

    def merge(commit: str) -> CodeMerge:
        at = code.check("harbour", commit).production
        return code.merge("harbour", commit, expected=at, message="Merge", author="R", about_to=lambda _: None)

    assert code.undo(merge(first))
    check = code.check("harbour", first)
    assert not check.is_merged and [file["path"] for file in check.files] == ["one.py"]
    assert code.head("harbour") == first
    assert code.undo(merge(first))
    assert git(site.company, "ls-tree", "-r", "--name-only", "main") == "app.py"
    (site.tree / "two.py").write_text("2\n")
    second = str(site.flow.run(site.tenant, actor=ACTOR).commit)
    assert [file["path"] for file in code.check("harbour", second).files] == ["one.py", "two.py"]
    merge(second)
    assert git(site.company, "ls-tree", "-r", "--name-only", "main").split() == ["app.py", "one.py", "two.py"]
    assert code.check("harbour", second).is_merged and code.head("harbour") is None
