"""The command lines of files and branches: what they print, what they refuse, and how they end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from orchestrator.cli import session
from orchestrator.cli.app import create
from orchestrator.config import PROJECT
from orchestrator.drivers.audit.log import FileAuditLog
from orchestrator.drivers.files.confined import ConfinedFiles
from orchestrator.drivers.policy.file import DiskPolicyFile
from orchestrator.drivers.workspace.links import HostLinks
from orchestrator.flows.file import FileFlow
from orchestrator.parts.policy import PolicyPart
from orchestrator.wiring.services import Services
from tests.support import interfaces
from tests.support.cluster import Cluster
from tests.support.interfaces import some_services
from tests.support.publishing import Site, git, publishing_site
from tests.support.stores import control_store


@dataclass
class Terminal:
    site: Site

    def run(self, *arguments: str, stdin: bytes = b"", expect: int = 0) -> Result:
        done = CliRunner().invoke(create(), list(arguments), input=stdin)
        assert done.exit_code == expect, f"{done.exit_code}: {done.output}"
        return done

    def json(self, *arguments: str) -> object:
        return json.loads(self.run(*arguments, "-o", "json").stdout)


@pytest.fixture
def terminal(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    (tmp_path / "site").mkdir()
    with publishing_site(tmp_path / "site", cluster) as site, control_store(cluster) as store:
        audit = FileAuditLog(tmp_path / "audit", tmp_path / "audit.key")
        policies = PolicyPart(store, audit, DiskPolicyFile(PROJECT / "configs" / "allowlist.yaml"))
        links = HostLinks({"/workspace": site.tree})
        services = some_services(
            store=store,
            files=FileFlow(audit, ConfinedFiles(), policies, lambda _: site.tree, lambda _: links),
            publish=replace(site.flow, store=store, patience_s=0.0),
        )
        interfaces.tenant(store, "harbour")

        @contextmanager
        def opened() -> Iterator[Services]:
            yield services

        monkeypatch.setattr(session, "opened", opened)
        yield Terminal(site)


def test_files_are_listed_read_written_edited_found_and_deleted(terminal: Terminal) -> None:
    run = terminal.run
    assert run("file", "read", "harbour", "app.py").stdout == "one\ntwo\nthree\n"
    part = run("file", "read", "harbour", "app.py", "--offset", "4", "--limit", "3")
    assert part.stdout == "two" and "7 of 14 bytes" in part.stderr
    run("file", "write", "harbour", "reports/new.sql", stdin=b"select 1;\n")
    assert (terminal.site.tree / "reports" / "new.sql").read_text() == "select 1;\n"
    run("file", "edit", "harbour", "app.py", "--old", "two", "--new", "TWO")
    assert "TWO" in (terminal.site.tree / "app.py").read_text()
    run("file", "edit", "harbour", "app.py", "--old", "e", "--new", "x", expect=5)
    listed = run("file", "list", "harbour", "--recursive").stdout
    assert "reports/new.sql" in listed and "directory" in listed
    assert [one["path"] for one in terminal.json("file", "glob", "harbour", "**/*.sql")] == ["reports/new.sql"]  # type: ignore[attr-defined]
    assert "select 1;" in run("file", "search", "harbour", "select").stdout
    assert "not found in" in run("file", "search", "harbour", "no such words").stderr
    run("file", "delete", "harbour", "app.py", "--yes", expect=3)
    assert (terminal.site.tree / "app.py").exists(), "the allowlist has deletions wait for approval"


def test_files_go_up_and_come_down_and_nothing_here_is_overwritten(terminal: Terminal, tmp_path: Path) -> None:
    source, target = tmp_path / "photo.jpg", tmp_path / "back.jpg"
    source.write_bytes(bytes(range(256)))
    terminal.run("file", "upload", "harbour", str(source))
    terminal.run("file", "upload", "harbour", str(source), "pictures/one.jpg")
    terminal.run("file", "download", "harbour", "pictures/one.jpg", str(target))
    assert target.read_bytes() == bytes(range(256))
    assert terminal.run("file", "download", "harbour", "photo.jpg").stdout_bytes == bytes(range(256))
    refused = terminal.run("file", "download", "harbour", "app.py", str(target), expect=2)
    assert "--force" in refused.stderr
    terminal.run("file", "download", "harbour", "app.py", str(target), "--force")
    assert target.read_text().startswith("one")
    terminal.run("file", "upload", "harbour", str(tmp_path / "nowhere"), expect=2)


@pytest.mark.parametrize(
    ("arguments", "expect"),
    [
        (("read", "harbour", "nowhere"), 4),
        (("read", "nobody", "app.py"), 4),
        (("read", "harbour", "../../etc/passwd"), 3),
        (("write", "harbour", ".git/config"), 3),
        (("read", "harbour", "app.py", "--limit", "0"), 2),
        (("edit", "harbour", "app.py", "--old", "one"), 2),
        (("delete", "harbour", "app.py"), 2),
        (("list",), 2),
        (("glob", "harbour", "*" * 12), 2),
        (("search", "harbour", ""), 2),
    ],
)
def test_what_means_nothing_or_is_not_theirs_is_refused(
    terminal: Terminal, arguments: tuple[str, ...], expect: int
) -> None:
    terminal.run("file", *arguments, expect=expect)
    assert sorted(path.name for path in terminal.site.tree.iterdir()) == ["app.py"]


def test_a_branch_is_published_shown_and_brought_up_to_date(terminal: Terminal) -> None:
    site = terminal.site
    (site.tree / "app.py").write_text("one\nMINE\nthree\n")
    assert "published" in terminal.run("branch", "publish", "harbour", "--reason", "for the review").stdout
    shown = terminal.json("branch", "show", "harbour")
    assert isinstance(shown, dict)
    assert (shown["branch"], shown["ahead"], shown["behind"], shown["last_publish"]) == (
        "tenant/harbour", 1, 0, "published",
    )  # fmt: skip
    site.develop("theirs.txt", "theirs\n")
    assert "newest code" in terminal.run("branch", "merge", "harbour").stderr
    assert (site.tree / "theirs.txt").exists()
    site.develop("app.py", "one\nTHEIRS\nthree\n")
    conflict = terminal.run("branch", "merge", "harbour", expect=5)
    assert "app.py" in conflict.stderr
    assert "app.py" in terminal.run("branch", "publish", "harbour", expect=5).stderr
    (site.tree / "app.py").write_text("one\nBOTH\nthree\n")
    assert "published" in terminal.run("branch", "publish", "--all").stdout
    assert git(site.company, "show", "tenant/harbour:app.py") == "one\nBOTH\nthree"


def test_publishing_everybody_says_who_failed_and_ends_with_it(terminal: Terminal) -> None:
    (terminal.site.tree / "key.pem").write_text("-----BEGIN " + "PRIVATE KEY-----\n")
    done = terminal.run("branch", "publish", "--all", expect=1)
    assert "key.pem" in done.stdout and "failed" in done.stdout
    terminal.run("branch", "publish", "harbour", expect=5)


@pytest.mark.parametrize(
    ("arguments", "expect"),
    [
        (("publish",), 2),
        (("publish", "harbour", "--all"), 2),
        (("publish", "nobody"), 4),
        (("show", "nobody"), 4),
        (("merge",), 2),
    ],
)
def test_a_branch_nobody_has_or_nothing_named_is_refused(
    terminal: Terminal, arguments: tuple[str, ...], expect: int
) -> None:
    terminal.run("branch", *arguments, expect=expect)


@pytest.mark.parametrize(
    ("noun", "verbs"),
    [
        ("file", ("list", "read", "write", "edit", "delete", "glob", "search", "upload", "download")),
        ("branch", ("show", "publish", "merge")),
    ],
)
def test_help_names_every_verb_with_an_example(noun: str, verbs: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(create(), [noun, "--help"]).output
    assert all(verb in shown for verb in verbs)
    for verb in verbs:
        assert "Example" in CliRunner().invoke(create(), [noun, verb, "--help"]).output
