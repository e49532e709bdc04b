"""Confining a path to the declared roots: no `..`, no look-alike prefix, no link that leads out, no special file.

The check is made before the command runs; the kernel's own rules hold when something changes in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

PATH_BYTES_MAX = 4_096
LINKS_MAX = 40


class Kind(StrEnum):
    MISSING = "missing"
    DIRECTORY = "directory"
    FILE = "file"
    LINK = "link"
    OTHER = "other"  # device, fifo, socket
    UNKNOWN = "unknown"  # cannot be seen from here


@dataclass(frozen=True)
class Seen:
    """What stands at a path, not following a link there. `target` is a link's text."""

    kind: Kind
    target: str = ""


class Links(Protocol):
    """Looks at the tenant's files as they are now, under the names they have inside the sandbox."""

    def look(self, path: str) -> Seen:
        """What is at `path`, an absolute path whose parents are known to hold no link."""
        ...


@dataclass(frozen=True)
class Root:
    """A directory commands may be given paths in, by its absolute path inside the sandbox."""

    name: str
    path: str
    writable: bool


@dataclass(frozen=True)
class Place:
    """Where a command stands and what it may reach. `links=None` judges by names alone (explain without a sandbox)."""

    cwd: str
    roots: tuple[Root, ...]
    links: Links | None = None

    def problem(self, path: str, *, write: bool, names: frozenset[str] | None, root_itself: bool) -> str | None:
        """Why `path` may not be given, None when it may. `names` limits the roots."""
        found = _lexical(path, self.cwd)
        if found is None:
            return _spelling(path)
        roots = [root for root in self.roots if names is None or root.name in names]
        root = _root_of(found, roots)
        if root is None:
            return "lies outside " + (" and ".join(one.path for one in roots) or "every declared root")
        real: str | None = found
        if self.links is not None:
            real, problem = _follow(found, root, roots, self.links)
            if real is None:
                return problem
            root = _root_of(real, roots)
        if root is None or (write and not root.writable):
            return f"may only be read, {root.path if root else path} is not writable"
        if not root_itself and real == root.path:
            return f"is {root.path} itself"
        if write and any(part.casefold() == ".git" for part in f"{found}/{real}".split("/")):
            return "belongs to git"
        return None

    def cwd_problem(self) -> str | None:
        """Why no command may be started in `cwd`, None when one may."""
        problem = self.problem(self.cwd, write=False, names=None, root_itself=True)
        if problem is not None or not self.cwd.startswith("/"):
            return problem or "is not an absolute path"
        if self.links is None:
            return None
        root = _root_of(_lexical(self.cwd, "/") or "", list(self.roots))
        if root is None:
            return "lies outside every declared root"
        real, trouble = _follow(self.cwd, root, list(self.roots), self.links)
        if real is None:
            return trouble
        kind = self.links.look(real).kind
        return None if kind in (Kind.DIRECTORY, Kind.UNKNOWN) else "is not a directory"


def _spelling(path: str) -> str:
    if not path:
        return "is empty"
    if ".." in path.split("/"):
        return "holds `..`"
    return "is not a path"


def _lexical(path: str, cwd: str) -> str | None:
    """The absolute form without `.` and doubled slashes; None when it is empty, too long, or holds `..` or controls."""
    if not path or len(path) > PATH_BYTES_MAX or "\n" in path or "\t" in path or "\0" in path:
        return None
    if not path.startswith("/"):
        path = f"{cwd}/{path}"
    if "/./" not in path and "//" not in path and "/.." not in path and not path.endswith(("/", "/.")):
        return path
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return None if ".." in parts else "/" + "/".join(parts)


def _root_of(path: str, roots: list[Root]) -> Root | None:
    """The longest root that is `path` or holds it; `/workspace-x` is not inside `/workspace`."""
    best: Root | None = None
    for root in roots:
        inside = path == root.path or path.startswith(root.path + "/")
        if inside and (best is None or len(root.path) > len(best.path)):
            best = root
    return best


def _follow(path: str, root: Root, roots: list[Root], links: Links) -> tuple[str | None, str]:
    """Resolve every link on the way as the kernel would; (None, why) when one leads out."""
    real = root.path
    rest = [part for part in path[len(root.path) :].split("/") if part]
    budget = LINKS_MAX
    while rest:
        current = f"{real}/{rest[0]}"
        seen = links.look(current)
        if seen.kind is Kind.OTHER:
            return None, "is a special file"
        if seen.kind is Kind.MISSING:
            return "/".join([real, *rest]), ""
        if seen.kind is not Kind.LINK:
            real = current
            rest.pop(0)
            continue
        budget -= 1
        if budget == 0:
            return None, "goes through too many links"
        landed = _land(seen.target, real)
        if landed is None:
            return None, "goes through a link that winds through `..`"
        new_root = _root_of(landed, roots)
        if new_root is None:
            return None, f"goes through a link that leads to {landed}"
        rest = [part for part in landed[len(new_root.path) :].split("/") if part] + rest[1:]
        real = new_root.path
    return real, ""


def _land(target: str, directory: str) -> str | None:
    """Where a link in the real directory `directory` points.

    `..` is taken away only at the front, where what it leaves is known to be real; None when it stands elsewhere.
    """
    parts: list[str] = [] if target.startswith("/") else [part for part in directory.split("/") if part]
    named = False
    for part in target.split("/"):
        if part == "..":
            if named:
                return None
            parts = parts[:-1]
        elif part not in ("", "."):
            named = True
            parts.append(part)
    return "/" + "/".join(parts)
