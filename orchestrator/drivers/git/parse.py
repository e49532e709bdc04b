"""Pure: git's machine-readable output into our records. Paths are NUL-separated, so no name can forge a field."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import IO

from orchestrator.core.ports.git import Commit, FileChange, GitFailed

COMMIT_FORMAT = "%H%x00%P%x00%an <%ae>%x00%aI%x00%s%x00%b%x00%x01"
STATUS = {"A": "added", "M": "modified", "D": "deleted", "R": "renamed", "C": "added", "T": "type_changed"}


def commits(text: str) -> list[Commit]:
    """Read the output of `git log --format=COMMIT_FORMAT`."""
    found = []
    for record in text.split("\0\x01"):
        fields = record.lstrip("\n").split("\0")
        if len(fields) != 6:
            continue
        commit_id, parents, author, written_at, subject, body = fields
        found.append(
            Commit(
                commit_id,
                tuple(parents.split()),
                author,
                datetime.fromisoformat(written_at),
                subject,
                body.strip(),
            )
        )
    return found


def raw_changes(output: bytes) -> list[tuple[str, str, str, str | None, str]]:
    """Read `git diff --raw -z`, merges as `-c` shows them: (status letter, new mode, new blob, old path, path) each.

    Raises GitFailed on anything else: what is not understood must not pass unseen.
    """
    fields = [field for field in output.split(b"\0") if field]
    found: list[tuple[str, str, str, str | None, str]] = []
    at = 0
    while at < len(fields):
        header = fields[at].decode("ascii", "replace")
        parents = len(header) - len(header.lstrip(":"))
        parts = header[parents:].split(" ")
        if not parents or len(parts) != 2 * parents + 3 or at + 1 >= len(fields):
            raise GitFailed("git printed a list of changes that cannot be read.")
        mode, blob, status = parts[parents], parts[-2], parts[-1]
        path, old_path = _path(fields[at + 1]), None
        at += 2
        if status[0] in "RC":
            old_path, path = path, _path(fields[at])
            at += 1
        letter = "D" if set(status) == {"D"} else status[0]
        found.append((letter, mode, blob, old_path, path))
    return found


def numbers(output: bytes) -> dict[str, tuple[int | None, int | None]]:
    """Read `git diff --numstat -z`: lines added and removed by path, None for binary files."""
    fields = output.split(b"\0")
    found: dict[str, tuple[int | None, int | None]] = {}
    at = 0
    while at < len(fields) and fields[at]:
        added, removed, path = fields[at].split(b"\t", 2)
        at += 1
        if not path:  # a rename: old and new path follow as fields of their own
            path = fields[at + 1]
            at += 2
        found[_path(path)] = (_number(added), _number(removed))
    return found


def file_changes(raw: bytes, numstat: bytes, sizes: dict[str, int]) -> list[FileChange]:
    """Join the three views of one diff."""
    lines = numbers(numstat)
    return [
        FileChange(
            path=path,
            old_path=old_path,
            status=STATUS.get(letter, "modified"),
            mode=mode,
            lines_added=lines.get(path, (None, None))[0],
            lines_removed=lines.get(path, (None, None))[1],
            size_bytes=sizes.get(blob, 0),
        )
        for letter, mode, blob, old_path, path in raw_changes(raw)
    ]


def conflicts(output: bytes) -> tuple[str, ...]:
    """The conflicting paths in `git merge-tree --write-tree --name-only -z --no-messages`, tree id left out."""
    return tuple(dict.fromkeys(_path(field) for field in output.split(b"\0")[1:] if field))


def blobs(output: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """Read `git cat-file --batch` as it comes: (object id, content) each; the announced size separates them."""
    while header := output.readline():
        fields = header.split()
        if len(fields) != 3:
            continue  # `<id> missing`
        content = output.read(int(fields[2]))
        output.read(1)
        yield fields[0].decode("ascii"), content


def _path(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _number(raw: bytes) -> int | None:
    return None if raw == b"-" else int(raw)
