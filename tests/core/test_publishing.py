"""What may not leave a workspace is found, and findings never repeat a secret."""

import base64
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import publishing
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


def test_misfits_name_every_kind() -> None:
    files = [
        ("sub", "160000", 0, ""),
        ("link", "120000", 0, "/etc"),
        ("big", "100644", 30 * 2**20, ""),
        ("bad\u202ename", "100644", 1, ""),
        ("fine", "100644", 1, ""),
    ]
    assert [finding.kind for finding in publishing.misfits(files)] == [
        FindingKind.SUBMODULE,
        FindingKind.LINK_OUT,
        FindingKind.TOO_LARGE,
        FindingKind.HOSTILE_NAME,
    ]


def test_too_many_files_are_refused_as_one_finding() -> None:
    files = (("f", "100644", 1, "") for _ in range(publishing.FILES_MAX + 1))
    assert [finding.kind for finding in publishing.misfits(files)] == [FindingKind.TOO_MANY_FILES]


@given(st.binary(max_size=2000))
def test_no_content_breaks_the_search(content: bytes) -> None:
    publishing.secrets_in("x", content)


def test_a_message_carries_trailers() -> None:
    message = publishing.commit_message("harbour", "scheduler", ["c1", "c2"])
    assert message.startswith("Publish the work of harbour\n\nTenant: harbour\nActor: scheduler\nCommand: c1\n")
