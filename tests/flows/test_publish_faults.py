"""Publishing under bad input and bad luck: nothing bad leaves, nothing is lost, nothing happens twice."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from orchestrator.core import publishing
from orchestrator.core.jobs import JobState
from orchestrator.core.ports.sandboxd import CommandExited, CommandOutput, SandboxCommand, SandboxdUnreachable
from orchestrator.core.publishes import MergeConflicts, Publish, PublishRefused, PublishState
from orchestrator.core.publishing import FindingKind
from orchestrator.core.tenants import Tenant
from orchestrator.drivers.git.keys import PushKeys
from orchestrator.drivers.git.remote import Remote
from orchestrator.drivers.git.repository import BareRepository, Quarantined
from orchestrator.parts.inner_git import InnerGit, InnerGitFailed
from orchestrator.parts.workspace import Standing, fasten, read_status
from orchestrator.scheduler.start import pushed_again
from orchestrator.store import jobs, measures, publishes
from orchestrator.store.session import TenantBusy, tenant_lock
from tests.support import interfaces
from tests.support.cluster import Cluster
from tests.support.local_sandboxd import LocalSandboxd
from tests.support.publishing import ACTOR, Site, git, publishing_site

SECRET = "-----BEGIN " + "PRIVATE KEY-----\n"


@pytest.fixture
def site(tmp_path: Path, cluster: Cluster) -> Iterator[Site]:
    with publishing_site(tmp_path, cluster) as made:
        yield made


class Killed(BaseException):
    """The process dies: nothing of ours runs after it."""


def inside(site: Site, *arguments: str) -> str:
    return git(site.tree, "--git-dir", str(site.sandboxd.git), "--work-tree", str(site.tree), *arguments)


def refused(site: Site) -> list[FindingKind]:
    with pytest.raises(PublishRefused):
        site.flow.run(site.tenant, actor=ACTOR)
    return [finding.kind for finding in publishes.history(site.store, "t1", limit=1)[0].findings]


BOUNDARIES = ["save", "take", "scan", "move", "kept", "moved", "settle", "push", "pushed"]


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_killed_at_any_boundary_the_work_is_published_exactly_once_by_the_next_run(
    site: Site, boundary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.flow.run(site.tenant, actor=ACTOR)
    (site.tree / "app.py").write_text(f"edited before {boundary}\n")

    def die_after(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def then_die(*arguments: Any, **named: Any) -> None:
            real(*arguments, **named)
            raise Killed(boundary)

        monkeypatch.setattr(owner, name, then_die)

    if boundary == "kept":
        die_after(Quarantined, "keep")
    elif boundary in ("moved", "pushed"):
        die_after(BareRepository, {"moved": "move_branch", "pushed": "push"}[boundary])
    else:
        real_step = publishes.step

        def step(engine: Any, publish_id: str, name: str, **values: Any) -> None:
            real_step(engine, publish_id, name, **values)
            if name == boundary:
                raise Killed(boundary)

        monkeypatch.setattr(publishes, "step", step)
    with pytest.raises(Killed):
        site.flow.run(site.tenant, actor=ACTOR)
    monkeypatch.undo()
    (cut_off, _) = publishes.history(site.store, "t1")
    assert cut_off.state is PublishState.RUNNING

    done = site.flow.run(site.tenant, actor=ACTOR)
    assert done.state in (PublishState.PUBLISHED, PublishState.UNCHANGED)
    assert git(site.company, "show", "tenant/harbour:app.py") == f"edited before {boundary}"
    assert git(site.company, "rev-list", "--count", "tenant/harbour") == "2"
    assert inside(site, "rev-parse", "refs/heads/tenant/harbour") == site.company_head("tenant/harbour") == done.commit
    assert publishes.get(site.store, cut_off.id).state is PublishState.FAILED
    assert site.flow.run(site.tenant, actor=ACTOR).state is PublishState.UNCHANGED
    assert not list((site.repository._directory / "quarantine").iterdir())


def test_two_at_once_make_one_commit(site: Site) -> None:
    (site.tree / "app.py").write_text("edited\n")
    ended: list[Publish] = []
    patient = replace(site.flow, patience_s=60.0)
    threads = [threading.Thread(target=lambda: ended.append(patient.run(site.tenant, actor=ACTOR))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(one.state for one in ended) == [PublishState.PUBLISHED, PublishState.UNCHANGED]
    assert git(site.company, "rev-list", "--count", "tenant/harbour") == "2"


def test_whoever_finds_the_tenant_busy_is_told_so(site: Site) -> None:
    with tenant_lock(site.store, site.tenant.id), pytest.raises(TenantBusy):
        replace(site.flow, patience_s=0.0).run(site.tenant, actor=ACTOR)
    assert publishes.history(site.store, "t1") == []


def test_what_was_refused_is_kept_nowhere_outside(site: Site) -> None:
    site.flow.run(site.tenant, actor=ACTOR)
    (site.tree / "key.pem").write_text(SECRET)
    assert refused(site) == [FindingKind.SECRET]
    blob = git(site.tree, "hash-object", "key.pem")
    there = ["git", "--git-dir", str(site.repository._directory), "cat-file", "-e", blob]
    assert subprocess.run(there, capture_output=True).returncode != 0


def test_a_nested_repository_is_refused_by_name_with_and_without_commits(site: Site) -> None:
    nested = site.tree / "vendor" / "lib"
    nested.mkdir(parents=True)
    git(nested, "init", "--quiet")
    (nested / "a").write_text("a\n")
    with pytest.raises(PublishRefused, match="vendor/lib"):
        site.flow.run(site.tenant, actor=ACTOR)
    git(nested, "add", "a")
    git(nested, "commit", "--quiet", "--message", "nested")
    assert refused(site) == [FindingKind.SUBMODULE]
    (last, *_) = publishes.history(site.store, "t1")
    assert (last.state, last.findings[0].path) == (PublishState.REFUSED, "vendor/lib")


def test_hostile_names_are_refused_and_strange_ones_pass(site: Site) -> None:
    for name in (b"-rf", b"--output=x", b"\xff\xfe.bin", "ü 日本 'quote\".txt".encode(), b"a;b|c$(d)`e`", b" lead"):
        Path(os.fsdecode(os.fsencode(site.tree) + b"/" + name)).write_bytes(b"x\n")
    assert site.flow.run(site.tenant, actor=ACTOR).files_count == 6
    for hostile in ("two\nlines", "\u202egnp.exe", "\x1b[2J"):
        (site.tree / hostile).write_text("x\n")
    assert refused(site) == [FindingKind.HOSTILE_NAME] * 3
    (last, *_) = publishes.history(site.store, "t1")
    assert not publishing.is_hostile_name("".join(one.path for one in last.findings) + last.error)


def test_too_many_files_are_refused_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "FILES_MAX", 20)
    for number in range(30):
        (site.tree / f"f{number}").write_text(f"{number}\n")
    assert refused(site) == [FindingKind.TOO_MANY_FILES]


def test_binary_files_and_a_thousand_others_are_published(site: Site) -> None:
    (site.tree / "photo.jpg").write_bytes(bytes(range(256)) * 400)
    (site.tree / "many").mkdir()
    for number in range(1000):
        (site.tree / "many" / f"{number}.py").write_text(f"value = {number}\n")
    done = site.flow.run(site.tenant, actor=ACTOR)
    assert (done.state, done.files_count) == (PublishState.PUBLISHED, 1001)
    shown = subprocess.run(["git", "show", f"{done.commit}:photo.jpg"], cwd=site.company, capture_output=True)
    assert shown.stdout == bytes(range(256)) * 400


def test_nothing_of_the_tenants_configuration_or_hooks_runs_outside(site: Site, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    trap = tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch {mark}\ncat\n")
    trap.chmod(0o755)
    (site.sandboxd.git / "hooks").mkdir(exist_ok=True)
    for hook in ("pre-commit", "post-commit", "reference-transaction", "pre-push", "post-index-change", "pre-auto-gc"):
        (site.sandboxd.git / "hooks" / hook).symlink_to(trap)
    for name in ("core.fsmonitor", "core.sshCommand", "core.pager", "diff.external", "uploadpack.packObjectsHook"):
        git(site.tree, "config", "--file", str(site.sandboxd.git / "config"), name, str(trap))
    for name in ("filter.x.smudge", "diff.x.textconv", "diff.x.command", "merge.x.driver"):
        git(site.tree, "config", "--file", str(site.sandboxd.git / "config"), name, str(trap))
    nested = site.tree / ".git"
    nested.mkdir()
    (nested / "config").write_text(f"[core]\n\tfsmonitor = {trap}\n\tworktree = /\n")
    (site.tree / ".gitattributes").write_text("* filter=x diff=x merge=x text\n*.md export-subst ident\n")
    (site.tree / "app.py").write_text("one\nMINE\nthree\n")
    done = site.flow.run(site.tenant, actor=ACTOR)
    assert done.state is PublishState.PUBLISHED
    production = str(site.repository.branch("main"))
    assert site.repository.merge_check(production, str(done.commit)).is_clean
    assert "+MINE" in site.repository.patch(production, str(done.commit))
    site.flow.view(site.tenant)
    assert not mark.exists()
    assert ".git/config" not in git(site.company, "ls-tree", "-r", "--name-only", "tenant/harbour")


def test_work_on_another_branch_inside_comes_back_to_the_tenants_own(site: Site) -> None:
    site.flow.run(site.tenant, actor=ACTOR)
    inside(site, "checkout", "--quiet", "-b", "somewhere-else")
    (site.tree / "app.py").write_text("strayed\n")
    first = site.flow.run(site.tenant, actor=ACTOR)
    (site.tree / "app.py").write_text("and on\n")
    second = site.flow.run(site.tenant, actor=ACTOR)
    assert inside(site, "symbolic-ref", "HEAD") == "refs/heads/tenant/harbour"
    assert git(site.company, "show", "tenant/harbour:app.py") == "and on"
    assert site.repository.is_ancestor(str(first.commit), str(second.commit))


def test_a_key_the_remote_refuses_leaves_the_work_safe_and_says_so(site: Site, tmp_path: Path) -> None:
    keys = PushKeys(site.company, tmp_path / "keys", "main")
    keys.ensure()
    keys.files()["publish"].write_text("another key\n")
    repository = BareRepository(site.repository._directory, Remote(str(site.company), keys=keys))
    flow = replace(site.flow, repository=repository)
    (site.tree / "app.py").write_text("mine\n")
    done = flow.run(site.tenant, actor=ACTOR)
    assert done.state is PublishState.PENDING
    assert "may not move this branch" in done.error
    assert site.repository.branch("tenant/harbour") == done.commit


def test_a_push_that_failed_is_asked_for_again_after_a_while_and_then_arrives(site: Site) -> None:
    tenant = interfaces.tenant(site.store, "harbour")
    site.flow.run(site.tenant, actor=ACTOR)
    with site.store.begin() as connection:
        connection.execute(text("UPDATE publishes SET tenant_id = :id"), {"id": tenant.id})
    again = replace(site.tenant, id=tenant.id)
    away = site.company.rename(site.company.with_suffix(".away"))
    (site.tree / "app.py").write_text("offline\n")
    assert site.flow.run(again, actor=ACTOR).state is PublishState.PENDING
    assert _failed_push(site) == 1.0
    assert pushed_again(site.store) == [], "not at once"
    _age(site, 50)
    assert pushed_again(site.store) == []
    _age(site, 15)
    assert pushed_again(site.store) == pushed_again(site.store) == [tenant.id]
    (job,) = jobs.find(site.store, kind="publish")
    assert (job.state, job.tenant_id) == (JobState.QUEUED, tenant.id)

    assert site.flow.run(again, actor=ACTOR).state is PublishState.PENDING
    _age(site, 65)
    assert publishes.due_again(site.store) == [], "the second time it waits longer"
    _age(site, 60)
    assert publishes.due_again(site.store) == [tenant.id]
    away.rename(site.company)
    assert site.flow.run(again, actor=ACTOR).state is PublishState.PUBLISHED
    assert publishes.due_again(site.store) == []
    assert _failed_push(site) == 0.0
    assert git(site.company, "show", "tenant/harbour:app.py") == "offline"


def _age(site: Site, seconds: int) -> None:
    with site.store.begin() as connection:
        connection.execute(
            text("UPDATE publishes SET finished_at = finished_at - make_interval(secs => :age)"), {"age": seconds}
        )


def _failed_push(site: Site) -> float:
    (family,) = (one for one in measures.collect(site.store) if one.name == "orchestrator_publish_last_failed")
    (value,) = (sample.value for sample in family.samples if sample.labels == {"tenant": "harbour", "how": "push"})
    return value


def test_bringing_up_to_date_names_what_conflicts_and_goes_on_when_it_is_resolved(site: Site) -> None:
    (site.tree / "app.py").write_text("one\nMINE\nthree\n")
    site.develop("app.py", "one\nTHEIRS\nthree\n")
    site.develop("added.py", "added\n")
    with pytest.raises(MergeConflicts) as caught:
        site.flow.bring_up_to_date(site.tenant, actor=ACTOR)
    assert caught.value.fields["conflicts"] == ["app.py"]
    with pytest.raises(MergeConflicts, match=r"app\.py"):
        site.flow.bring_up_to_date(site.tenant, actor=ACTOR)
    (site.tree / "app.py").write_text("one\nBOTH\nthree\n")
    view = site.flow.bring_up_to_date(site.tenant, actor=ACTOR)
    assert (view.behind, view.conflicts) == (0, ())
    assert (site.tree / "added.py").read_text() == "added\n"
    assert git(site.company, "show", "tenant/harbour:app.py") == "one\nBOTH\nthree"


def test_resolving_everything_in_ones_own_favour_ends_the_merge_too(site: Site) -> None:
    (site.tree / "app.py").write_text("one\nMINE\nthree\n")
    theirs = site.develop("app.py", "one\nTHEIRS\nthree\n")
    with pytest.raises(MergeConflicts):
        site.flow.bring_up_to_date(site.tenant, actor=ACTOR)
    (site.tree / "app.py").write_text("one\nMINE\nthree\n")
    inside(site, "add", "app.py")
    done = site.flow.run(site.tenant, actor=ACTOR)
    assert done.state is PublishState.PUBLISHED
    assert site.repository.is_ancestor(theirs, str(done.commit))
    assert site.flow.run(site.tenant, actor=ACTOR).state is PublishState.UNCHANGED


def test_one_tenants_trouble_does_not_hold_up_the_others(site: Site) -> None:
    @contextmanager
    def reach(tenant: Tenant) -> Iterator[LocalSandboxd]:
        if tenant.id == "t2":
            raise SandboxdUnreachable("gone")
        yield site.sandboxd

    (site.tree / "app.py").write_text("edited\n")
    other = replace(site.tenant, id="t2", name="riverside")
    flow = replace(site.flow, reach=reach)  # type: ignore[arg-type]
    results = flow.run_all([other, site.tenant], actor=ACTOR, reason="nightly")
    assert isinstance(results["riverside"], SandboxdUnreachable)
    assert isinstance(results["harbour"], Publish) and results["harbour"].state is PublishState.PUBLISHED


def test_the_configuration_inside_belongs_to_nobody_there(tmp_path: Path) -> None:
    """The kernel's own rules, as the tenant's uid."""
    made = tmp_path / "git"
    git(tmp_path, "init", "--quiet", "--bare", str(made))
    (made / "hooks" / "post-commit").write_text("#!/bin/sh\n")
    (made / "config").write_text("[core]\n\tfsmonitor = /tmp/trap\n")
    uid = 123_456
    for path in (made, *made.rglob("*")):
        os.chown(path, uid, uid)
    fasten(made, uid)
    fasten(made, uid)
    assert "fsmonitor" not in (made / "config").read_text()
    assert list((made / "hooks").iterdir()) == []
    script = (
        "import os, sys\n"
        "def attempt(what, act):\n"
        "    try:\n"
        "        act(); print(what)\n"
        "    except OSError: pass\n"
        "attempt('write config', lambda: open('config', 'a'))\n"
        "open('other', 'w').write('x')\n"
        "attempt('replace config', lambda: os.rename('other', 'config'))\n"
        "attempt('delete config', lambda: os.unlink('config'))\n"
        "attempt('replace hooks', lambda: os.rename('hooks', 'old'))\n"
        "attempt('make a hook', lambda: open('hooks/post-commit', 'w'))\n"
        "attempt('make attributes', lambda: open('info/attributes', 'w'))\n"
        "attempt('open the directory', lambda: os.chmod('.', 0o777))\n"
        "os.rename('other', 'index')\n"
    )
    attempt = ["/usr/bin/python3", "-c", script]
    done = subprocess.run(attempt, cwd=made, user=uid, group=uid, extra_groups=[], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_a_status_is_read_whatever_files_are_called() -> None:
    head = "a" * 40
    lines = [
        f"# branch.oid {head}",
        "# branch.head tenant/harbour",
        "? # branch.oid forged\n# branch.head forged",
        f"u UU N... 100644 100644 100644 100644 {head} {head} {head} a file with blanks",
    ]
    assert read_status("\0".join(lines).encode() + b"\0") == Standing(
        head, "tenant/harbour", 2, False, ("a file with blanks",)
    )
    assert read_status(b"# branch.oid (initial)\0# branch.head (detached)\0? new/\0") == Standing(
        None, "(detached)", 1, True
    )


class Telling:
    """A supervisor that answers every command the same way."""

    def __init__(self, stderr: str) -> None:
        self.stderr = stderr

    def run(self, command: SandboxCommand) -> Iterator[CommandOutput | CommandExited]:
        yield CommandOutput("stderr", self.stderr.encode())
        yield CommandExited(128, None, None, None, False, 0, 0, 0, 0, 0, (), True)


@pytest.mark.parametrize("said", ["fatal: unable to write: No space left on device", "error: Disk quota exceeded"])
def test_a_full_workspace_is_said_plainly(said: str) -> None:
    with pytest.raises(InnerGitFailed) as caught:
        InnerGit(Telling(said)).run("add", "--all")  # type: ignore[arg-type]
    assert "delete files" in caught.value.next_step
