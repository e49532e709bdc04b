"""What may not leave a workspace is found, and findings never repeat a secret."""

import base64
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import publishing
from orchestrator.core.ports.git import NewFile
from orchestrator.core.publishing import FindingKind

RANDOM = base64.b64encode(random.Random(7).randbytes(30)).decode()
SECRETS = {
    "private key": "-----BEGIN RSA " + "PRIVATE KEY-----",
    "AWS access key": "key = AKIA" + "ABCDEFGHIJKLMNOP",
    "GitHub token": "ghp_" + "a1B2" * 10,
    "GitLab token": "glpat-" + "abcdefghij0123456789",
    "Stripe key": "sk_" + "live_abcdefghijklmnopqrstuv",
    "password in a connection address": "postgres://app:" + "hunter22@db.example.test/app",
    "random value assigned to a secret's name": f'API_KEY = "{RANDOM}"',
}


@pytest.mark.parametrize(("what", "line"), SECRETS.items())
def test_credentials_are_found_with_their_line_and_never_repeated(what: str, line: str) -> None:
    (finding,) = publishing.secrets_in("settings.py", f"first\n{line}\n".encode())
    assert (finding.kind, finding.line, finding.what) == (FindingKind.SECRET, 2, what)
    assert line not in str(finding)


@pytest.mark.parametrize(
    "line",
    ['password = "change-me-please-change-me"', "token = read_token()", "https://example.test/a:b", "secret: ''"],
)
def test_ordinary_lines_pass(line: str) -> None:
    assert publishing.secrets_in("a", line.encode()) == []


def test_binary_files_are_not_searched() -> None:
    assert publishing.secrets_in("a", b"\0" + SECRETS["private key"].encode()) == []


@pytest.mark.parametrize(
    ("path", "target", "out"),
    [
        ("a", "/etc/passwd", True),
        ("a", "../x", True),
        ("d/a", "../x", False),
        ("d/a", "../../x", True),
        ("a", "d/../../x", True),
        ("a", "./b", False),
    ],
)
def test_links_that_leave_the_workspace(path: str, target: str, out: bool) -> None:
    assert publishing.leads_out(path, target) is out


def new(path: str, *, mode: str = "100644", content: bytes = b"x\n", size_bytes: int | None = None) -> NewFile:
    return NewFile(path, mode, len(content) if size_bytes is None else size_bytes, f"{path}{mode}", content)


def test_misfits_name_every_kind() -> None:
    files = [
        new("sub", mode="160000", content=b""),
        new("link", mode="120000", content=b"/etc"),
        new("big", size_bytes=30 * 2**20, content=b""),
        new("bad\u202ename"),
        new("two\nlines"),
        new("fine"),
        new("-rf"),
        new("überall/日本.txt"),
    ]
    scan = publishing.scan(files)
    assert [finding.kind for finding in scan.findings] == [
        FindingKind.SUBMODULE,
        FindingKind.LINK_OUT,
        FindingKind.TOO_LARGE,
        FindingKind.HOSTILE_NAME,
        FindingKind.HOSTILE_NAME,
    ]
    assert scan.files_count == len(files)
    assert not any(publishing.is_hostile_name(finding.path) for finding in scan.findings)


def test_a_secret_in_a_file_with_a_hostile_name_is_shown_under_a_harmless_one() -> None:
    scan = publishing.scan([new("a\x1b[2Jb", content=SECRETS["private key"].encode())])
    assert [finding.path for finding in scan.findings] == ["a\\x1b[2Jb"] * 2


def test_every_path_of_the_same_content_is_named() -> None:
    content = SECRETS["private key"].encode()
    files = [replace(new(path, content=content), blob="b") for path in ("one", "two")]
    assert [finding.path for finding in publishing.scan(files).findings] == ["one", "two"]


def test_too_many_files_are_refused_as_one_finding() -> None:
    files = (new("f") for _ in range(publishing.FILES_MAX + 10))
    scan = publishing.scan(files)
    assert [finding.kind for finding in scan.findings] == [FindingKind.TOO_MANY_FILES]
    assert len(list(files)) == 9, "it ends where it knows enough"


def test_findings_are_bounded_and_looking_ends_with_them() -> None:
    seen = 0

    def many() -> Iterator[NewFile]:
        nonlocal seen
        for seen in range(10 * publishing.FINDINGS_MAX):
            yield new(f"f{seen}", content=SECRETS["private key"].encode())

    assert len(publishing.scan(many()).findings) == publishing.FINDINGS_MAX
    assert seen < 2 * publishing.FINDINGS_MAX


def test_a_secret_is_found_far_into_a_long_line_and_in_wide_characters() -> None:
    line = "x" * 100_000 + " " + SECRETS["AWS access key"]
    (finding,) = publishing.secrets_in("minified.js", b"first\n" + line.encode())
    assert (finding.line, finding.what) == (2, "AWS access key")
    wide = "\ufefffirst\n" + SECRETS["private key"]
    assert [one.line for one in publishing.secrets_in("notes.txt", wide.encode("utf-16-le"))] == [2]


@pytest.mark.parametrize(
    "unit", [b"a+", b"a://", b"a://b:", b"-----BEGIN A ", b"token='", b"secret ", b"orc_a", b"AKIA", b"xoxb-", b"eyJ."]
)
def test_hostile_content_does_not_make_the_search_slow(unit: bytes) -> None:
    """A quadratic search of four million bytes would not end within any test's patience."""
    publishing.secrets_in("x", unit * (4_000_000 // len(unit)))


@given(st.binary(max_size=2000))
def test_no_content_breaks_the_search(content: bytes) -> None:
    publishing.secrets_in("x", content)


def test_a_message_carries_trailers() -> None:
    message = publishing.commit_message("harbour", "scheduler", ["c1", "c2"])
    assert message.startswith("Publish the work of harbour\n\nTenant: harbour\nActor: scheduler\nCommand: c1\n")
    forged = publishing.commit_message("harbour", "Eve\nTenant: riverside", [])
    assert "\nTenant: riverside" not in forged
