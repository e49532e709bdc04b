"""Versions of the allowlist: numbered, with author and reason; the newest is the one in force. Pure."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from orchestrator.errors import Conflict, Denied, NotFound, OutsideFailure

DIFF_LINES_MAX = 2_000


class PolicyMoved(Conflict):
    """Somebody saved another version since the one the caller saw."""

    code = "conflict.allowlist_version"


class PolicyVersionMissing(NotFound):
    code = "not_found.allowlist_version"


class PolicyUnavailable(OutsideFailure):
    """There is no valid allowlist at all: everything is denied."""

    code = "outside_failure.allowlist"


class PolicyEditDenied(Denied):
    """An agent never edits the allowlist it is held by."""

    code = "denied.allowlist_edit"


class PolicySource(StrEnum):
    SAVED = "saved"  # by page, CLI or API
    DISK = "disk"  # edited by hand
    RESTORED = "restored"


@dataclass(frozen=True)
class PolicyVersion:
    """One accepted version. `digest` is the SHA-256 of the file's exact bytes."""

    number: int
    digest: str
    author: str
    reason: str
    source: PolicySource
    created_at: datetime
    restored_from: int | None = None


def text_diff(old: str, new: str, *, old_name: str, new_name: str) -> str:
    """A unified diff of two versions, cut at 2,000 lines."""
    lines = list(
        difflib.unified_diff(old.splitlines(), new.splitlines(), fromfile=old_name, tofile=new_name, lineterm="")
    )
    if len(lines) > DIFF_LINES_MAX:
        lines = [*lines[:DIFF_LINES_MAX], f"… {len(lines) - DIFF_LINES_MAX} more lines"]
    return "\n".join(lines)
