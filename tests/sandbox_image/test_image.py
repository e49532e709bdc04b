"""The image holds what the shipped list names, and the demo app works in it as it will for a tenant."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
import yaml

from orchestrator.core.ports.sandboxd import Access, AppSpec, CommandLimits, PathGrant, Program, SandboxPolicy
from tests.support.sandbox import ENVIRONMENT, PROJECT, WORKSPACE, Sandbox

pytestmark = pytest.mark.engine

APP = PROJECT / "sandbox_image/app"
UNPACK = (
    "import io, sys, tarfile; tarfile.open(fileobj=io.BytesIO(sys.stdin.buffer.read())).extractall('.', filter='data')"
)


def packed(directory: Path) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.add(directory, ".", filter=lambda entry: None if "__pycache__" in entry.name else entry)
    return data.getvalue()


@pytest.fixture
def company(sandbox: Sandbox) -> Sandbox:
    """A workspace with the demo app in it."""
    ran = sandbox.python(UNPACK, stdin=packed(APP))
    assert ran.exited.exit_code == 0, ran.text
    return sandbox


def test_every_program_of_the_shipped_allowlist_is_in_the_image(sandbox: Sandbox) -> None:
    programs = yaml.safe_load((PROJECT / "configs/allowlist.yaml").read_text())["programs"]
    paths = [entry["path"] for entry in programs.values() if "path" in entry]
    report = sandbox.list(*paths, digest="shipped")
    assert report.refused == {}
    assert set(report.programs) == set(paths)


def test_the_apps_own_tests_pass_inside(company: Sandbox) -> None:
    environment = {**ENVIRONMENT, "PYTHONDONTWRITEBYTECODE": "1"}
    ran = company.run(
        "/usr/bin/python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", environment=environment,
        limits=CommandLimits(wall_s=240),
    )  # fmt: skip
    assert ran.exited.exit_code == 0, ran.text
    assert b"passed" in ran.stdout


def test_the_app_serves_under_the_kernel_gate(company: Sandbox) -> None:
    """Without a database behind it: the page that says so."""
    argv = ("/usr/bin/python3", "-m", "uvicorn", "backoffice.main:app", "--fd", "3", "--log-level", "warning")
    environment = {**ENVIRONMENT, "PGHOST": "/run/postgresql", "PGUSER": "nobody", "PYTHONDONTWRITEBYTECODE": "1"}
    company.client.start_app(AppSpec(argv=argv, environment=environment))
    page = ask_close(company)
    assert "503" in page.splitlines()[0]
    assert "The data is not reachable right now" in page


def ask_close(sandbox: Sandbox) -> str:
    """Like a visitor whose browser closes the connection after the answer."""
    script = """
import http.client
caller = http.client.HTTPConnection('127.0.0.1', 8000, timeout=60)
caller.request('GET', '/', headers={'Connection': 'close'})
answer = caller.getresponse()
print(answer.status, answer.read().decode())
"""
    ran = sandbox.python(script, tcp_connect=(8000,))
    assert ran.exited.exit_code == 0, ran.text
    return ran.stdout.decode()


def test_git_works_with_its_repository_outside_the_workspace(company: Sandbox) -> None:
    both = (*WORKSPACE, PathGrant("/repository", Access.WRITE))
    looking = (PathGrant("/workspace", Access.READ),)
    company.client.set_policy(
        SandboxPolicy("git", (Program("/usr/bin/git", both), Program("/usr/bin/python3", WORKSPACE)))
    )
    environment = {
        **ENVIRONMENT,
        "GIT_DIR": "/repository",
        "GIT_WORK_TREE": "/workspace",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": "gc.auto",
        "GIT_CONFIG_VALUE_0": "0",
        "GIT_CONFIG_KEY_1": "maintenance.auto",
        "GIT_CONFIG_VALUE_1": "false",
    }

    def git(*argv: str, **changes: object) -> str:
        ran = company.run("/usr/bin/git", *argv, environment=environment, **changes)
        assert ran.exited.exit_code == 0, ran.text
        assert "cannot" not in ran.text, ran.text
        return ran.text

    git("init", "-q", "-b", "main")
    git("add", "-A")
    git("commit", "-q", "-m", "one")
    git("checkout", "-q", "-b", "tenant/north")
    assert company.python("open('new.txt', 'w').write('new')").exited.exit_code == 0
    assert "new.txt" in git("status", "--short", grants=looking)
    git("add", "-A")
    git("commit", "-q", "-m", "two")
    assert "new.txt" in git("diff", "--stat", "main")
    git("bundle", "create", "/repository/out.bundle", "main..tenant/north")
    closed = company.python("open('/repository/config', 'a')")
    assert b"PermissionError" in closed.stderr
