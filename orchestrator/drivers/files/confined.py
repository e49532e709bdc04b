"""Implements core.ports.files.Files on a workspace's directory."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.core.ports import files as port
from orchestrator.core.ports.files import (
    EditMismatch,
    Entry,
    EntryKind,
    FileNotThere,
    FilePart,
    FileTooLarge,
    InvalidPath,
    Listing,
    Match,
    Matches,
    PathRefused,
    WorkspaceFull,
)
from orchestrator.drivers.files import walking

SEARCHED_BYTES_MAX = 64 * 1_048_576
SEARCHED_FILE_BYTES_MAX = 2 * 1_048_576
SEARCH_S_MAX = 10.0
WALKED_ENTRIES_MAX = 50_000
LINE_SHOWN_MAX = 300


class ConfinedFiles:
    """Stateless; every call opens the workspace anew."""

    def entries(self, root: Path, path: str, *, recursive: bool = False) -> Listing:
        found: list[Entry] = []
        for entry in _walk(root, walking.parts_of(path), deep=recursive):
            if len(found) == port.ENTRIES_MAX:
                return Listing(tuple(found), truncated=True)
            found.append(entry)
        return Listing(tuple(found), truncated=False)

    def read(self, root: Path, path: str, *, offset: int = 0, limit: int = port.READ_BYTES_MAX) -> FilePart:
        if offset < 0 or not 0 < limit <= port.READ_BYTES_MAX:
            raise InvalidPath(f"The offset is 0 or more and the limit 1 to {port.READ_BYTES_MAX} bytes.")
        with walking.plain_file(root, walking.parts_of(path)) as (descriptor, facts):
            content = _read(descriptor, offset, limit)
            whole = offset == 0 and len(content) == facts.st_size
            digest = hashlib.sha256(content).hexdigest() if whole else ""
            return FilePart(path, content, offset, facts.st_size, digest)

    def write(self, root: Path, path: str, content: bytes, *, uid: int, expected_digest: str | None = None) -> FilePart:
        if len(content) > port.WRITE_BYTES_MAX:
            raise FileTooLarge(f"A file written here is at most {port.WRITE_BYTES_MAX // 2**20} MiB large.")
        parts = walking.parts_of(path)
        if not parts:
            raise InvalidPath("Name a file to write.")
        with walking.directory(root, parts[:-1], create_as=uid) as above:
            mode = self._refuse_changed(root, parts, expected_digest)
            _replace(above, parts[-1], content, uid, mode)
        return FilePart(path, b"", 0, len(content), hashlib.sha256(content).hexdigest())

    def edit(self, root: Path, path: str, old: str, new: str, *, uid: int) -> FilePart:
        with walking.plain_file(root, walking.parts_of(path)) as (descriptor, facts):
            if facts.st_size > port.WRITE_BYTES_MAX:
                raise FileTooLarge(f"A file edited here is at most {port.WRITE_BYTES_MAX // 2**20} MiB large.")
            before = _read(descriptor, 0, port.WRITE_BYTES_MAX)
        count = before.count(old.encode()) if old else 0
        if count != 1:
            raise EditMismatch(
                f"The text to replace stands {count} times in the file.",
                effect="Nothing was changed.",
                next_step="Give more of the lines around it, exactly as they are.",
                count=count,
            )
        after = before.replace(old.encode(), new.encode())
        return self.write(root, path, after, uid=uid, expected_digest=hashlib.sha256(before).hexdigest())

    def delete(self, root: Path, path: str) -> None:
        parts = walking.parts_of(path)
        if not parts:
            raise PathRefused("The workspace itself cannot be deleted.")
        with walking.directory(root, parts[:-1]) as above:
            try:
                os.unlink(parts[-1], dir_fd=above)
            except FileNotFoundError as error:
                raise FileNotThere(f"There is no {parts[-1]!a} here.") from error
            except OSError as error:
                raise PathRefused("Only files and links can be deleted here.") from error

    def glob(self, root: Path, pattern: str) -> Listing:
        wanted = _glob(pattern)
        found: list[Entry] = []
        for entry in _walk(root, [], deep=True):
            if wanted.fullmatch(entry.path):
                if len(found) == port.ENTRIES_MAX:
                    return Listing(tuple(found), truncated=True)
                found.append(entry)
        return Listing(tuple(found), truncated=False)

    def search(self, root: Path, text: str, *, under: str = "", ignore_case: bool = False) -> Matches:
        if not text or "\n" in text or len(text) > LINE_SHOWN_MAX:
            raise InvalidPath(f"Search for 1 to {LINE_SHOWN_MAX} characters within a line.")
        wanted = (text.lower() if ignore_case else text).encode()
        deadline, budget, searched = time.monotonic() + SEARCH_S_MAX, SEARCHED_BYTES_MAX, 0
        found: list[Match] = []
        for entry in _walk(root, walking.parts_of(under), deep=True):
            if entry.kind is not EntryKind.FILE or entry.size_bytes > SEARCHED_FILE_BYTES_MAX:
                continue
            budget -= entry.size_bytes
            if budget < 0 or time.monotonic() > deadline or len(found) >= port.MATCHES_MAX:
                return Matches(tuple(found[: port.MATCHES_MAX]), True, searched)
            searched += 1
            found.extend(_matches(root, entry.path, wanted, ignore_case))
        return Matches(tuple(found[: port.MATCHES_MAX]), len(found) > port.MATCHES_MAX, searched)

    def _refuse_changed(self, root: Path, parts: list[str], expected_digest: str | None) -> int:
        """Compare with what the caller read, and return the mode the new file gets."""
        try:
            with walking.plain_file(root, parts) as (descriptor, facts):
                now = hashlib.sha256(_read(descriptor, 0, port.WRITE_BYTES_MAX)).hexdigest()
                mode = 0o755 if facts.st_mode & stat.S_IXUSR else 0o644
        except FileNotThere:
            now, mode = "", 0o644
        if expected_digest is not None and expected_digest != now:
            raise EditMismatch(
                "The file changed since it was read." if now else "The file is gone.",
                effect="Nothing was written.",
                next_step="Read it again and repeat the change.",
            )
        return mode


def _read(descriptor: int, offset: int, limit: int) -> bytes:
    content = bytearray()
    while len(content) < limit:
        chunk = os.pread(descriptor, min(limit - len(content), 1_048_576), offset + len(content))
        if not chunk:
            break
        content += chunk
    return bytes(content)


def _replace(above: int, name: str, content: bytes, uid: int, mode: int) -> None:
    """Write beside and rename over: readers see the old file or the new one, and a link there is replaced."""
    temporary = f".{secrets.token_hex(8)}.writing"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(temporary, flags, 0o600, dir_fd=above)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fchown(descriptor, uid, uid)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, name, src_dir_fd=above, dst_dir_fd=above)
    except OSError as error:
        _forget(above, temporary)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise WorkspaceFull(
                "The workspace is full.", effect="Nothing was written.", next_step="Delete files first."
            ) from error
        raise PathRefused(f"This file cannot be written: {error.strerror}.") from error


def _forget(above: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=above)
    except OSError:
        return


def _walk(root: Path, parts: list[str], *, deep: bool) -> Iterator[Entry]:
    """Entries below `parts`, sorted within each directory, bounded in number and depth."""
    waiting, seen = [parts], 0
    while waiting:
        here = waiting.pop()
        try:
            with walking.directory(root, here) as descriptor:
                entries = list(_entries(descriptor, here))
        except (FileNotThere, PathRefused):
            if here == parts:
                raise
            continue  # it went away or became a link while we walked
        below = []
        for entry in entries:
            seen += 1
            if seen > WALKED_ENTRIES_MAX:
                return
            yield entry
            if deep and entry.kind is EntryKind.DIRECTORY and len(here) < port.DEPTH_MAX - 1:
                below.append([*here, entry.path.rsplit("/", 1)[-1]])
        waiting.extend(reversed(below))


def _entries(descriptor: int, here: list[str]) -> Iterator[Entry]:
    with os.scandir(descriptor) as scanned:
        names = sorted((item.name for _, item in zip(range(WALKED_ENTRIES_MAX), scanned, strict=False)))
    for name in names:
        try:
            facts = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        except OSError:
            continue
        kind = (
            EntryKind.FILE
            if stat.S_ISREG(facts.st_mode)
            else EntryKind.DIRECTORY
            if stat.S_ISDIR(facts.st_mode)
            else EntryKind.LINK
            if stat.S_ISLNK(facts.st_mode)
            else EntryKind.OTHER
        )
        yield Entry(
            "/".join([*here, os.fsencode(name).decode("utf-8", "backslashreplace")]),
            kind,
            facts.st_size,
            datetime.fromtimestamp(facts.st_mtime, UTC),
            bool(facts.st_mode & stat.S_IXUSR),
        )


def _matches(root: Path, path: str, wanted: bytes, ignore_case: bool) -> Iterator[Match]:
    try:
        with walking.plain_file(root, walking.parts_of(path)) as (descriptor, _):
            content = _read(descriptor, 0, SEARCHED_FILE_BYTES_MAX)
    except (FileNotThere, PathRefused):
        return
    if b"\0" in content[:8000]:
        return
    if wanted not in (content.lower() if ignore_case else content):
        return
    for number, line in enumerate(content.split(b"\n"), start=1):
        if wanted in (line.lower() if ignore_case else line):
            yield Match(path, number, line.decode("utf-8", "replace")[:LINE_SHOWN_MAX])


def _glob(pattern: str) -> re.Pattern[str]:
    """Translate a glob; only `*`, `**` and `?`, so the expression matches in linear time for sane lengths."""
    if not pattern or len(pattern) > 200 or pattern.count("*") > 8:
        raise InvalidPath("A pattern has 1 to 200 characters and at most 8 stars.")
    walking.parts_of(pattern)
    out = []
    for piece in re.split(r"(\*\*/|\*\*|\*|\?)", pattern):
        out.append({"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(piece, re.escape(piece)))
    return re.compile("".join(out))
