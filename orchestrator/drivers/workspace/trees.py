"""The Workspaces port: walking a copied tree by descriptors, never through a link."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.core.allowlist.texts import shown
from orchestrator.core.commands import FileChanged, WorkspaceNotCopyable
from orchestrator.core.ports.files import DEPTH_MAX as APPLIED_DEPTH_MAX
from orchestrator.core.ports.files import PATH_BYTES_MAX
from orchestrator.core.ports.placing import NOTHING, link_state
from orchestrator.core.ports.workspaces import Keeping, TreeChanges, TreeMark

ENTRIES_MAX = 100_000
DEPTH_MAX = 64
PATHS_MAX = 1_000
SMALL_BYTES_MAX = 1_048_576
SMALL_TOGETHER_BYTES_MAX = 33_554_432
CHUNK_BYTES = 1_048_576


@dataclass(frozen=True)
class _Seen:
    """What stands at a path: `kind` is nothing, directory, file, link or other; `state` as the Placer tells it."""

    kind: str
    state: str = NOTHING
    size_bytes: int = 0
    link: str | None = None


@dataclass
class _Room:
    """How many bytes of results may still be kept, here (in the answer) and aside."""

    bytes_left: int
    small_left: int = SMALL_TOGETHER_BYTES_MAX


class CopiedTrees:
    """Stateless."""

    def mark(self, tree: Path, *, inside: str) -> TreeMark:
        """See the port."""
        entries: dict[str, tuple[int, ...]] = {}
        for path, facts, link in _walk(tree):
            problem = _problem(path, facts, link, inside)
            if problem is not None or len(entries) >= ENTRIES_MAX:
                why = problem or f"holds more than {ENTRIES_MAX} entries"
                raise WorkspaceNotCopyable(
                    f"The workspace cannot be copied: {shown(path)} {why}.",
                    effect="Nothing was run.",
                    next_step="Remove it from the workspace, or run in the sandbox itself.",
                )
            entries[path] = _values(facts)
        return TreeMark(entries)

    def changes(self, base: Path, tree: Path, before: TreeMark, keeping: Keeping) -> TreeChanges:
        """See the port."""
        after = {path: _values(facts) for path, facts, _ in _walk(tree, limit=2 * ENTRIES_MAX)}
        touched = [path for path, values in after.items() if before.entries.get(path) != values]
        gone = [path for path in before.entries if path not in after]
        room = _Room(keeping.bytes_max)
        paths: list[str] = []
        files: dict[str, FileChanged] = {}
        for path in sorted({*touched, *gone}):
            change = _change(base, tree, path, keeping, room)
            if change is None:
                continue
            paths.append(change.path)
            if len(files) < PATHS_MAX:
                files.setdefault(change.path, change)  # names that are no Unicode may look the same
        complete = len(files) == len(paths) and not any(one.problem for one in files.values())
        return TreeChanges(tuple(paths[:PATHS_MAX]), tuple(files.values()), complete)


def _change(base: Path, tree: Path, path: str, keeping: Keeping, room: _Room) -> FileChanged | None:
    """How one path differs; None when it does not, or is a directory that came or went (files bring theirs along)."""
    old, new = _seen(base, path), _seen(tree, path)
    if {old.kind, new.kind} <= {"nothing", "directory"}:
        return None
    if (old.kind, old.state) == (new.kind, new.state) and old.kind in ("file", "link"):
        return None
    kind = "deleted" if new.kind == "nothing" else "added" if old.kind == "nothing" else "modified"
    problem = _unfit(path, old, new, keeping)
    content = None
    if not problem and new.kind == "file":
        problem, content = _kept(tree, path, new, keeping, room)
    return FileChanged(
        _printable(path),
        kind,
        before_digest=old.state,
        after_digest=new.state,
        content=content,
        link=None if problem else new.link,
        size_bytes=new.size_bytes,
        problem=problem,
    )


def _unfit(path: str, old: _Seen, new: _Seen, keeping: Keeping) -> str:
    """Why this change cannot be applied to the workspace, empty when it can."""
    parts = path.split("/")
    if _printable(path) != path:
        return "has a name that is not valid UTF-8"
    if len(path.encode()) > PATH_BYTES_MAX or len(parts) > APPLIED_DEPTH_MAX:
        return "lies too deep"
    if any(part.casefold() == ".git" for part in parts):
        return "belongs to git"
    if "directory" in (old.kind, new.kind):
        return "was a directory and is none any more" if old.kind == "directory" else "became a directory"
    if "other" in (old.kind, new.kind):
        return "is a special file, or cannot be read"
    if new.link is not None:
        if _printable(new.link) != new.link:
            return "is a link whose target is not valid UTF-8"
        return _astray(path, new.link, keeping.inside)
    return ""


def _astray(path: str, link: str, inside: str) -> str:
    """Why a link leads where none may lead, empty when it stays among the workspace's own files."""
    parent = os.path.dirname(f"{inside}/{path}")  # noqa: PTH120 - plain texts, as the container sees them
    target = os.path.normpath(link if link.startswith("/") else f"{parent}/{link}")
    if target != inside and not target.startswith(inside + "/"):
        return f"is a link that leads out of the workspace, to {shown(link)}"
    if any(part.casefold() == ".git" for part in target.split("/")):
        return "is a link to what belongs to git"
    return ""


def _kept(tree: Path, path: str, new: _Seen, keeping: Keeping, room: _Room) -> tuple[str, bytes | None]:
    """Keep a file's bytes, small ones in the answer, others aside; or why they are not kept."""
    if new.size_bytes > room.bytes_left:
        return f"has {new.size_bytes} bytes; a result may hold {keeping.bytes_max} bytes in all", None
    room.bytes_left -= new.size_bytes
    descriptor = _opened(tree, path)
    with os.fdopen(descriptor, "rb") as file:
        if new.size_bytes <= min(SMALL_BYTES_MAX, room.small_left):
            room.small_left -= new.size_bytes
            return "", file.read(new.size_bytes)
        keeping.aside.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (keeping.aside / new.state).open("wb") as aside:
            left = new.size_bytes
            while left and (chunk := file.read(min(CHUNK_BYTES, left))):
                left -= len(chunk)
                aside.write(chunk)
    return "", None


def _seen(root: Path, path: str) -> _Seen:
    try:
        descriptor = _opened(root, path, flags=os.O_PATH)
    except (FileNotFoundError, NotADirectoryError):
        return _Seen("nothing")
    except OSError:
        return _Seen("other", "unreadable")
    try:
        facts = os.fstat(descriptor)
        if stat.S_ISDIR(facts.st_mode):
            return _Seen("directory", "directory")
        if stat.S_ISLNK(facts.st_mode):
            link = os.readlink("", dir_fd=descriptor)
            return _Seen("link", link_state(_printable(link)), link=link)
        if not stat.S_ISREG(facts.st_mode):
            return _Seen("other", f"special {facts.st_mode}")
    finally:
        os.close(descriptor)
    with os.fdopen(_opened(root, path), "rb") as file:
        return _Seen("file", hashlib.file_digest(file, "sha256").hexdigest(), facts.st_size)


def _opened(root: Path, path: str, *, flags: int = os.O_RDONLY | os.O_NONBLOCK) -> int:
    """A descriptor of what stands at `path`, no component followed through a link. Raises OSError."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        *above, name = path.split("/")
        for part in above:
            deeper = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = deeper
        return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
    finally:
        os.close(descriptor)


def _printable(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _walk(tree: Path, *, limit: int = ENTRIES_MAX + 1) -> Iterator[tuple[str, os.stat_result, str]]:
    """Relative path, facts and link text of everything below; depth and count are bounded."""
    count = 0
    for here, directories, files, descriptor in os.fwalk(tree, follow_symlinks=False):
        below = os.path.relpath(here, tree)
        prefix = "" if below == "." else f"{below}/"
        if prefix.count("/") >= DEPTH_MAX:
            directories.clear()
        for name in [*directories, *files]:
            count += 1
            if count > limit:
                return
            facts = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            link = os.readlink(name, dir_fd=descriptor) if stat.S_ISLNK(facts.st_mode) else ""
            yield prefix + name, facts, link


def _values(facts: os.stat_result) -> tuple[int, ...]:
    """The change time cannot be set back by whoever owns the file."""
    if stat.S_ISDIR(facts.st_mode):
        return (facts.st_mode,)
    return (facts.st_mode, facts.st_ino, facts.st_size, facts.st_ctime_ns)


def _problem(path: str, facts: os.stat_result, link: str, inside: str) -> str | None:
    mode = facts.st_mode
    if stat.S_ISLNK(mode):
        parent = os.path.dirname(f"{inside}/{path}")  # noqa: PTH120 - plain texts, as the container sees them
        target = os.path.normpath(link if link.startswith("/") else f"{parent}/{link}")
        return None if target == inside or target.startswith(inside + "/") else f"is a link that leads to {shown(link)}"
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    return "is a special file"
