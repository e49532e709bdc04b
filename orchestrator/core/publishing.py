"""Pure: what may leave a workspace. Secrets and oversized files are found before anything is committed or pushed."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

FILE_BYTES_MAX = 20 * 2**20
FILES_MAX = 100_000
FINDINGS_MAX = 200
ENTROPY_MIN_BITS = 4.2

# Shapes published by the issuers themselves; each is anchored by a fixed prefix, so ordinary text does not match.
SHAPES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("private key", re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----")),
    ("AWS access key", re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")),
    ("GitHub token", re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,})\b")),
    ("GitLab token", re.compile(r"\bglpat-[A-Za-z0-9_-]{20,}\b")),
    ("Slack token", re.compile(r"\bxox[abposr]-[A-Za-z0-9-]{10,}\b")),
    ("Stripe key", re.compile(r"\b[rs]k_live_[A-Za-z0-9]{20,}\b")),
    ("Google API key", re.compile(r"\bAIza[0-9A-Za-z_-]{35}\b")),
    ("API token of this product", re.compile(r"\borc_[a-z0-9]{6,}_[A-Za-z0-9_-]{30,}\b")),
    ("password in a connection address", re.compile(r"\b[a-z][a-z0-9+]*://[^\s/:@]+:[^\s/@]{3,}@[^\s/]+")),
)
# `password = "…"` with a value that looks random; placeholders stay below the entropy limit.
ASSIGNED = re.compile(
    r"(?i)\b(?:secret|token|passw(?:or)?d|api_?key)\b[\"']?\s*[:=]\s*[\"']([A-Za-z0-9+/=_\-.!@#$%^&*]{24,})[\"']"
)


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
    if b"\0" in content[:8000]:
        return []
    found = []
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
        what = _secret_in(line[:4000])
        if what:
            found.append(Finding(FindingKind.SECRET, path, number, what))
        if len(found) >= FINDINGS_MAX:
            break
    return found


def _secret_in(line: str) -> str | None:
    for what, shape in SHAPES:
        if shape.search(line):
            return what
    assigned = ASSIGNED.search(line)
    return (
        "random value assigned to a secret's name" if assigned and _entropy(assigned[1]) >= ENTROPY_MIN_BITS else None
    )


def _entropy(text: str) -> float:
    """Shannon entropy in bits a character."""
    counts = Counter(text).values()
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts)


def misfits(files: Iterable[tuple[str, str, int, str]], *, file_bytes_max: int = FILE_BYTES_MAX) -> list[Finding]:
    """What does not belong in a branch, from (path, git mode, size in bytes, link target) of every new file."""
    found: list[Finding] = []
    count = 0
    for path, mode, size_bytes, target in files:
        count += 1
        if mode == "160000":
            found.append(Finding(FindingKind.SUBMODULE, path, None, "a nested repository or submodule"))
        elif mode == "120000" and leads_out(path, target):
            found.append(Finding(FindingKind.LINK_OUT, path, None, "a link that leaves the workspace"))
        elif size_bytes > file_bytes_max:
            shown = f"{size_bytes // 2**20} MiB, more than {file_bytes_max // 2**20} MiB"
            found.append(Finding(FindingKind.TOO_LARGE, path, None, shown))
        if is_hostile_name(path):
            found.append(Finding(FindingKind.HOSTILE_NAME, ascii(path), None, "control or direction characters"))
    if count > FILES_MAX:
        found.append(Finding(FindingKind.TOO_MANY_FILES, "", None, f"{count:,} files, more than {FILES_MAX:,}"))
    return found[:FINDINGS_MAX]


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
    return any(ord(c) < 32 or ord(c) == 127 or "\u202a" <= c <= "\u202e" or "\u2066" <= c <= "\u2069" for c in path)


def commit_message(tenant: str, actor: str, command_ids: Iterable[str]) -> str:
    """The bot's message: a subject people read and trailers programs read (git-interpret-trailers)."""
    trailers = [f"Tenant: {tenant}", f"Actor: {actor}", *(f"Command: {one}" for one in list(command_ids)[:50])]
    return f"Publish the work of {tenant}\n\n" + "\n".join(trailers) + "\n"
