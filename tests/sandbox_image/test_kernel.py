"""The kernel holds when the gate is wide open: every hostile line of the corpus, sent past any decision.

The shared corpus gives the lines. The list is generous on purpose: it holds every program of the image that can start
others. What must not happen is the same for all of them: nothing outside the list starts, nothing outside the grants
is read, and no helper that a file or an option names runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.core.ports.sandboxd import (
    CommandLimits,
    ProgramNotListed,
    SandboxRequestInvalid,
)
from tests.support.sandbox import ENVIRONMENT, Ran, Sandbox

pytestmark = pytest.mark.engine

CORPUS = Path(__file__).parents[1] / "core/allowlist/corpus.yaml"
# Programs that start others, next to the harmless ones. Not on the list: shells, perl, awk, id, touch.
NAMES = """
true cat head tail ls grep find xargs env timeout nice nohup setsid stdbuf flock sort split sed tar git diff rm wc uniq
cut
"""
OPEN = tuple(f"/usr/bin/{name}" for name in NAMES.split())
PAYLOAD = "/usr/bin/id"
# Signs that something ran or was read that must not have been.
SIGNS = ("uid=", "root:x:", "nameserver")

WORKSPACE = """
import os, shutil
open('a', 'w').write('1\\n'); open('a.txt', 'w').write('one\\ntwo\\n'); open('notes.txt', 'w').write('n')
open('list', 'w').write('/usr/bin/id\\n'); open('f', 'w').write('f')
for name in ('x', 'script', 'id'):
    open(name, 'w').write('#!/bin/sh\\nid\\n: > /workspace/marker\\n'); os.chmod(name, 0o755)
os.mkdir('bin')
for name in ('ls', 'bin/ls', 'copy'):
    shutil.copyfile('/usr/bin/python3', name); os.chmod(name, 0o755)
os.symlink('/etc/passwd', 'outward-link'); os.symlink('/etc', 'outward-directory')
os.symlink('outward-link', 'link-to-link')
os.makedirs('sub/.GIT/hooks')
"""


def cases() -> Iterator[Any]:
    for row in yaml.safe_load(CORPUS.read_text())["rows"]:
        if "K" not in row["layer"]:
            continue
        for number, case in enumerate(row.get("cases", [])):
            if isinstance(case, (list, dict)):
                yield pytest.param(case, id=f"row{row['n']}.{number}")


@pytest.fixture(scope="module")
def opened(shared_sandbox: Sandbox) -> Iterator[Sandbox]:
    """A workspace full of bait, a repository with hostile configuration, and the generous list."""
    sandbox = shared_sandbox
    sandbox.list("/usr/bin/python3", "/usr/bin/git", digest="bait")
    done = sandbox.python(WORKSPACE)
    assert done.exited.exit_code == 0, done.text
    _hostile_repository(sandbox)
    sandbox.list(*OPEN, digest="open")
    yield sandbox
    sandbox.list("/usr/bin/find", digest="clean")
    sandbox.run("/usr/bin/find", "/workspace", "-mindepth", "1", "-delete")


def _hostile_repository(sandbox: Sandbox) -> None:
    identity = {
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@b",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@b",
    }
    environment = {**ENVIRONMENT, **identity}

    def git(*argv: str) -> None:
        done = sandbox.run("/usr/bin/git", *argv, environment=environment)
        assert done.exited.exit_code == 0, done.text

    git("init", "-q", ".")
    git("add", "a.txt")
    git("commit", "-q", "-m", "one")
    bait = """
import os
open('.git/config', 'a').write('''
[core]
    fsmonitor = /workspace/x
    pager = /workspace/x
    editor = /workspace/x
[diff]
    external = /workspace/x
[diff "bait"]
    textconv = /workspace/x
[filter "bait"]
    clean = /workspace/x
    smudge = /workspace/x
''')
open('.gitattributes', 'w').write('* diff=bait filter=bait\\n')
for name in ('pre-commit', 'post-checkout', 'pre-auto-gc'):
    open(f'.git/hooks/{name}', 'w').write('#!/bin/sh\\n: > /workspace/marker\\n')
    os.chmod(f'.git/hooks/{name}', 0o755)
open('a.txt', 'a').write('three\\n')
"""
    assert sandbox.python(bait).exited.exit_code == 0


def absolute(name: str) -> str:
    return name if name.startswith("/") else f"/usr/bin/{name}"


def held(ran: Ran) -> None:
    for sign in SIGNS:
        assert sign not in ran.text, ran.text


def no_marker(sandbox: Sandbox) -> None:
    assert "marker" not in sandbox.run("/usr/bin/ls", "-a", "/workspace").text


@pytest.mark.parametrize("case", list(cases()))
def test_a_hostile_line_gets_nowhere_with_the_gate_open(opened: Sandbox, case: Any) -> None:
    argv = list(case["argv"] if isinstance(case, dict) else case)
    environment = {**ENVIRONMENT, **(case.get("environment", {}) if isinstance(case, dict) else {})}
    cwd = case.get("cwd", "/workspace") if isinstance(case, dict) else "/workspace"
    # The payload of the corpus, `id`, by its path: with the gate open no shell or PATH stands between.
    argv = [PAYLOAD if part == "id" else part for part in argv]
    program = absolute(argv[0])
    try:
        ran = opened.run(
            program, *argv[1:], environment=environment, cwd=cwd, stdin=b"y\n", limits=CommandLimits(wall_s=20)
        )
    except (ProgramNotListed, SandboxRequestInvalid):
        return
    held(ran)
    no_marker(opened)


SPAWNERS = [
    ("env", ("{}",)),
    ("env", ("-S", "{}")),
    ("timeout", ("20", "{}")),
    ("nice", ("{}",)),
    ("nohup", ("{}",)),
    ("setsid", ("-w", "{}")),
    ("stdbuf", ("-o0", "{}")),
    ("flock", ("f", "{}")),
    ("xargs", ("-a", "a", "{}")),
    ("find", ("a", "-exec", "{}", ";")),
    ("find", ("a", "-execdir", "{}", ";")),
    ("tar", ("-I", "{}", "-cf", "y.tar", "a")),
    ("sort", ("--compress-program={}", "a")),
]


@pytest.mark.parametrize(("program", "arguments"), SPAWNERS)
def test_a_listed_program_cannot_start_one_that_is_not(
    opened: Sandbox, program: str, arguments: tuple[str, ...]
) -> None:
    ran = opened.run(f"/usr/bin/{program}", *(part.format(PAYLOAD) for part in arguments))
    held(ran)


@pytest.mark.parametrize(
    ("program", "arguments"),
    [("env", ("/usr/bin/true",)), ("timeout", ("20", "/usr/bin/true")), ("find", ("a", "-exec", "/usr/bin/true", ";"))],
)
def test_it_cannot_start_a_listed_one_either_unless_the_policy_says_so(
    opened: Sandbox, program: str, arguments: tuple[str, ...]
) -> None:
    """A program of its own domain: being listed does not let others start it with arguments nobody decided on."""
    ran = opened.run(f"/usr/bin/{program}", *arguments)
    assert "Permission denied" in ran.text
    path = f"/usr/bin/{program}"
    opened.list(*OPEN, digest="starts", starts={path: ("/usr/bin/true",)})
    try:
        assert "Permission denied" not in opened.run(path, *arguments).text
    finally:
        opened.list(*OPEN, digest="open")


@pytest.mark.parametrize(
    "script",
    [
        "sed:1e /usr/bin/id",
        "sed:s/.*/\\/usr\\/bin\\/id/e",
        "sed:r /etc/hostname",
        "sed:w /etc/marker",
    ],
)
def test_a_script_inside_an_argument_gets_nowhere(opened: Sandbox, script: str) -> None:
    program, _, text = script.partition(":")
    ran = opened.run(f"/usr/bin/{program}", text, "a.txt")
    held(ran)
    assert ran.exited.exit_code != 0 or "Permission denied" in ran.text or ran.stdout == b"one\ntwo\nthree\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "--short"),
        ("diff",),
        ("diff", "--ext-diff"),
        ("log", "-p", "-1", "--textconv"),
        ("-p", "log"),
        ("-c", "alias.z=!/usr/bin/id", "z"),
        ("grep", "-O/usr/bin/id", "one"),
        ("ls-remote", "--upload-pack=/usr/bin/id", "."),
        ("rebase", "--exec", "/usr/bin/id", "HEAD"),
        ("bisect", "run", "/usr/bin/id"),
        ("add", "a.txt"),
        ("commit", "-m", "m"),
    ],
)
def test_git_starts_no_helper_however_it_is_asked(opened: Sandbox, arguments: tuple[str, ...]) -> None:
    """With the repository's configuration hostile and none of the gate's pins."""
    environment = {**ENVIRONMENT, "GIT_EDITOR": PAYLOAD, "GIT_PAGER": PAYLOAD, "GIT_EXTERNAL_DIFF": PAYLOAD}
    held(opened.run("/usr/bin/git", *arguments, environment=environment, limits=CommandLimits(wall_s=30)))
    no_marker(opened)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "/etc/hostname",
        "/proc/1/environ",
        "/proc/self/environ",
        "/proc/self/root/etc/hostname",
        "/workspace/../etc/hostname",
        "/workspace/outward-link",
        "/workspace/outward-directory/hostname",
        "/workspace/link-to-link",
        "/usr/bin/id",
        "/opt/sandboxd/image.json",
        "/run/sandboxd/sandboxd.sock",
        "/usr/lib/git-core/git",
    ],
)
def test_nothing_outside_the_grants_can_be_read(opened: Sandbox, path: str) -> None:
    ran = opened.run("/usr/bin/cat", path)
    assert ran.exited.exit_code == 1
    assert ran.stdout == b""


@pytest.mark.parametrize("name", ["LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH", "GCONV_PATH"])
def test_loader_variables_load_nothing_of_the_tenants(opened: Sandbox, name: str) -> None:
    """noexec: a library in the workspace cannot be mapped as code, whoever names it."""
    value = "/workspace" if name.endswith("PATH") else "/workspace/copy"
    ran = opened.run("/usr/bin/cat", "a", environment={**ENVIRONMENT, name: value})
    assert ran.stdout in (b"1\n", b"")
    held(ran)
    no_marker(opened)
