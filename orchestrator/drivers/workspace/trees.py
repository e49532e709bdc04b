"""The Workspaces port: walking a copied tree by descriptors, never through a link."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from orchestrator.core.allowlist.texts import shown
from orchestrator.core.commands import FileChanged, WorkspaceNotCopyable
from orchestrator.core.ports.workspaces import TreeChanges, TreeMark

ENTRIES_MAX = 100_000
DEPTH_MAX = 64
PATHS_MAX = 1_000
FILE_BYTES_MAX = 1_048_576
KEPT_BYTES_MAX = 33_554_432


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

    def changes(self, base: Path, tree: Path, before: TreeMark) -> TreeChanges:
        """See the port."""
        after = {path: (_values(facts), facts) for path, facts, _ in _walk(tree, limit=2 * ENTRIES_MAX)}
        touched = [path for path, (values, _) in after.items() if before.entries.get(path) != values]
        gone = [path for path in before.entries if path not in after]
        paths: list[str] = []
        files: list[FileChanged] = []
        budget = KEPT_BYTES_MAX
        for path in sorted({*touched, *gone}):
            change = _change(base, tree, path)
            if change is None:
                continue
            paths.append(path)
            size = len(change.content or b"")
            if _is_kept(change) and size <= budget and len(files) < PATHS_MAX:
                budget -= size
                files.append(change)
        shown_paths = tuple(os.fsencode(path).decode("utf-8", "backslashreplace") for path in paths)
        return TreeChanges(shown_paths[:PATHS_MAX], tuple(files), len(files) == len(paths) <= PATHS_MAX)


def _is_kept(change: FileChanged) -> bool:
    """A file whose name and content can be stored, or one that is gone."""
    try:
        change.path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    if any(part.casefold() == ".git" for part in change.path.split("/")):
        return False
    return change.kind == "deleted" or change.content is not None


def _change(base: Path, tree: Path, path: str) -> FileChanged | None:
    """How one path differs; None when it does not, or is a directory (which files bring with them)."""
    old, new = _content(base, path), _content(tree, path)
    if old == new:
        return None
    before = hashlib.sha256(old).hexdigest() if isinstance(old, bytes) else ""
    after = hashlib.sha256(new).hexdigest() if isinstance(new, bytes) else ""
    if new is None:
        return FileChanged(path, "deleted", before)
    kind = "added" if old is None else "modified"
    keeps = isinstance(new, bytes) and (old is None or isinstance(old, bytes))
    return FileChanged(path, kind, before, after, new if keeps and isinstance(new, bytes) else None)


def _content(root: Path, path: str) -> bytes | tuple[object, ...] | None:
    """A file's bytes, a tuple telling anything else apart, None where there is nothing."""
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for part in path.split("/")[:-1]:
                deeper = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = deeper
            return _leaf(descriptor, path.split("/")[-1])
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return ("unreadable",)


def _leaf(directory: int, name: str) -> bytes | tuple[object, ...]:
    facts = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if stat.S_ISDIR(facts.st_mode):
        return ("directory",)
    if stat.S_ISLNK(facts.st_mode):
        return ("link", os.readlink(name, dir_fd=directory))
    if not stat.S_ISREG(facts.st_mode) or facts.st_size > FILE_BYTES_MAX:
        return ("large", facts.st_size, facts.st_mtime_ns, stat.S_IFMT(facts.st_mode))
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(FILE_BYTES_MAX + 1)


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
        inner = target == inside or target.startswith(inside + "/")
        return None if inner else f"is a link that leads to {shown(link)}"
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    return "is a special file"
