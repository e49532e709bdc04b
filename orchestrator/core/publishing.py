"""Pure: what may leave a workspace. Secrets and oversized files are found before anything is committed or pushed."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from orchestrator.core.ports.git import NewFile

FILE_BYTES_MAX = 20 * 2**20
FILES_MAX = 100_000
FINDINGS_MAX = 200
ENTROPY_MIN_BITS = 4.2

LINK, SUBMODULE = "120000", "160000"

# Shapes published by the issuers themselves, each with what must be there before it is looked for. All repetitions
# that could overlap are bounded: the content is hostile, and the search must stay linear.
SHAPES: tuple[tuple[str, tuple[bytes, ...], re.Pattern[bytes]], ...] = (
    ("private key", (b"PRIVATE KEY-----",), re.compile(rb"-----BEGIN (?:[A-Z]{1,20} ){0,4}PRIVATE KEY-----")),
    ("AWS access key", (b"AKIA", b"ASIA"), re.compile(rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")),
    (
        "GitHub token",
        (b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_", b"github_pat_"),
        re.compile(rb"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,})\b"),
    ),
    ("GitLab token", (b"glpat-",), re.compile(rb"\bglpat-[A-Za-z0-9_-]{20,}\b")),
    ("Slack token", (b"xox",), re.compile(rb"\bxox[abposr]-[A-Za-z0-9-]{10,}\b")),
    ("Stripe key", (b"k_live_",), re.compile(rb"\b[rs]k_live_[A-Za-z0-9]{20,}\b")),
    ("Google API key", (b"AIza",), re.compile(rb"\bAIza[0-9A-Za-z_-]{35}\b")),
    ("API token of this product", (b"orc_",), re.compile(rb"\borc_[a-z0-9]{6,40}_[A-Za-z0-9_-]{30,}\b")),
    (
        "password in a connection address",
        (b"://",),
        re.compile(rb"\b[a-z][a-z0-9+]{0,20}://[^\s/:@]{1,200}:[^\s/@]{3,200}@[^\s/]"),
    ),
)
# `password = "…"` with a value that looks random; placeholders stay below the entropy limit.
ASSIGNED = re.compile(
    rb"(?i)\b(?:secret|token|passw(?:or)?d|api_?key)\b[\"']?[ \t]{0,20}[:=][ \t]{0,20}"
    rb"[\"']([A-Za-z0-9+/=_\-.!@#$%^&*]{24,1000})[\"']"
)
ASSIGNED_TO = (b"secret", b"token", b"passw", b"apikey", b"api_key")
HOSTILE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
WIDE = ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))


class FindingKind(StrEnum):
    SECRET = "secret"  # noqa: S105 - the kind of a finding, not a credential
    TOO_LARGE = "too_large"
    SUBMODULE = "submodule"
    LINK_OUT = "link_out"
    HOSTILE_NAME = "hostile_name"
    TOO_MANY_FILES = "too_many_files"


@dataclass(frozen=True)
class Finding:
    """One reason not to publish. Never holds the secret itself: the path and line are enough to find it."""

    kind: FindingKind
    path: str
    line: int | None
    what: str


def secrets_in(path: str, content: bytes) -> list[Finding]:
    """Every line of a text file that looks like a credential. Binary files are not searched."""
    for mark, encoding in WIDE:
        if content.startswith(mark):
            content = content[2:].decode(encoding, "replace").encode()
    if b"\0" in content[:8000]:
        return []
    found: dict[int, str] = {}
    for what, at in _secrets(content):
        found.setdefault(content.count(b"\n", 0, at) + 1, what)
        if len(found) >= FINDINGS_MAX:
            break
    return [Finding(FindingKind.SECRET, path, line, found[line]) for line in sorted(found)]


def _secrets(content: bytes) -> Iterator[tuple[str, int]]:
    for what, needles, shape in SHAPES:
        if any(needle in content for needle in needles):
            for match in shape.finditer(content):
                yield what, match.start()
    lowered = content.lower()
    if any(name in lowered for name in ASSIGNED_TO):
        for match in ASSIGNED.finditer(content):
            if _entropy(match[1]) >= ENTROPY_MIN_BITS:
                yield "random value assigned to a secret's name", match.start()


def _entropy(text: bytes) -> float:
    """Shannon entropy in bits a character."""
    counts = Counter(text).values()
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts)


@dataclass(frozen=True)
class Scan:
    """What was found in everything a publish brings; `files_count` paths were looked at."""

    findings: tuple[Finding, ...]
    files_count: int


def scan(files: Iterable[NewFile], *, file_bytes_max: int = FILE_BYTES_MAX) -> Scan:
    """Look at every version of every file, one at a time. Ends early when there are findings enough."""
    found: list[Finding] = []
    paths: set[str] = set()
    blob, secrets = "", list[Finding]()
    for versions, file in enumerate(files, start=1):
        paths.add(file.path)
        found.extend(misfits(file, file_bytes_max=file_bytes_max))
        if file.mode not in (LINK, SUBMODULE):
            if file.blob != blob:
                secrets = secrets_in(file.path, file.content)
                blob = file.blob
            found.extend(replace(one, path=shown_name(file.path)) for one in secrets)
        if versions > FILES_MAX:
            what = f"more than {FILES_MAX:,} new files"
            found.insert(0, Finding(FindingKind.TOO_MANY_FILES, "", None, what))
            break
        if len(found) >= FINDINGS_MAX:
            break
    return Scan(tuple(found[:FINDINGS_MAX]), len(paths))


def misfits(file: NewFile, *, file_bytes_max: int = FILE_BYTES_MAX) -> Iterator[Finding]:
    """Why a file does not belong in a branch."""
    name = shown_name(file.path)
    if is_hostile_name(file.path):
        yield Finding(FindingKind.HOSTILE_NAME, name, None, "control or direction characters in its name")
    if file.mode == SUBMODULE:
        yield Finding(FindingKind.SUBMODULE, name, None, "a nested repository or submodule")
    elif file.mode == LINK and leads_out(file.path, file.content.decode("utf-8", "replace")):
        yield Finding(FindingKind.LINK_OUT, name, None, "a link that leaves the workspace")
    elif file.size_bytes > file_bytes_max:
        shown = f"{_mebibytes(file.size_bytes)}, more than {_mebibytes(file_bytes_max)}"
        yield Finding(FindingKind.TOO_LARGE, name, None, shown)


def _mebibytes(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.1f}".removesuffix(".0") + " MiB"


def leads_out(path: str, target: str) -> bool:
    """Whether a link at `path` points outside the tree it lies in."""
    if target.startswith("/"):
        return True
    depth = path.count("/")
    for part in target.split("/"):
        depth += -1 if part == ".." else 0 if part in ("", ".") else 1
        if depth < 0:
            return True
    return False


def is_hostile_name(path: str) -> bool:
    """Names that could forge a log line, a terminal line or the reading direction of a page."""
    return HOSTILE.search(path) is not None


def shown_name(path: str) -> str:
    """A name as it may stand in a message: what could mislead is spelled out."""
    return HOSTILE.sub(lambda match: ascii(match[0])[1:-1], path)


def commit_message(tenant: str, actor: str, command_ids: Iterable[str]) -> str:
    """The bot's message: a subject people read and trailers programs read (git-interpret-trailers)."""
    actor = " ".join(actor.split())  # a trailer is one line, whatever somebody calls themselves
    trailers = [f"Tenant: {tenant}", f"Actor: {actor}", *(f"Command: {one}" for one in list(command_ids)[:50])]
    return f"Publish the work of {tenant}\n\n" + "\n".join(trailers) + "\n"
