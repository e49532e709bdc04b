"""The bare repository: reads, packs in and out, merges without a work tree."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from orchestrator.core.ports.git import (
    BranchMoved,
    CodeDiff,
    Commit,
    GitFailed,
    MergeCheck,
    NewFile,
    PackRefused,
    UnknownRevision,
)
from orchestrator.drivers.git import parse, quarantine, workspace
from orchestrator.drivers.git.process import Git
from orchestrator.drivers.git.remote import Remote

OBJECT_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
NO_PROGRAMS = ("--no-ext-diff", "--no-textconv", "--no-color")
ZERO = "0" * 40
SUBMODULE = "160000"
NEW_BYTES_MAX = 2 * 2**30  # all new files of one publish together, as they are in the work tree
PACKS_MAX = 40  # a publish leaves a pack; with many of them every look-up is slow
UNUSED_KEPT = "1.day.ago"  # far longer than a publish that is under way
TIDY_S_MAX = 900.0
SEEN_MAX = 1000


class BareRepository:
    """Implements core.ports.git.Repository on a directory of our own and at most one remote."""

    def __init__(self, directory: Path, remote: Remote | None = None, *, pack_bytes_max: int = 512 * 2**20) -> None:
        self._directory = directory
        self._git = Git(directory)
        self._remote = remote
        self._pack_bytes_max = pack_bytes_max
        # What is so once for whole commit ids is so for ever.
        self._seen: set[str] = set()
        self._descends: dict[tuple[str, str], bool] = {}
        self._held_by: dict[tuple[str, str], bool] = {}

    def ensure(self) -> None:
        if (self._directory / "HEAD").exists():
            return
        self._directory.parent.mkdir(parents=True, exist_ok=True)
        self._git.run("init", "--quiet", "--bare", "--template=", "--initial-branch=main", str(self._directory))

    # Reading

    def branch(self, name: str) -> str | None:
        return self._resolve(f"refs/heads/{name}")

    def branches(self, prefix: str = "") -> dict[str, str]:
        pattern = "refs/heads/" + prefix
        lines = self._git.run("for-each-ref", "--format=%(refname) %(objectname)", pattern).text.splitlines()
        return {name.removeprefix("refs/heads/"): commit for name, commit in (line.split(" ") for line in lines)}

    def commit(self, revision: str) -> Commit:
        return self.log(revision, limit=1)[0]

    def log(self, revision: str, *, since: str | None = None, limit: int = 100) -> list[Commit]:
        span = [self._known(revision)] + ([f"^{self._known(since)}"] if since else [])
        text = self._git.run("log", f"--max-count={limit}", f"--format={parse.COMMIT_FORMAT}", *span, "--").text
        return parse.commits(text)

    def diff(self, base: str, head: str, *, files_max: int = 2000) -> CodeDiff:
        merge_base, head = self._merge_base(base, head), self._known(head)
        shape = ("--raw", "-z", "--no-abbrev", "-M", *NO_PROGRAMS)
        raw = self._git.run("diff-tree", "-r", *shape, merge_base, head).stdout
        lines = self._git.run("diff-tree", "-r", "--numstat", "-z", "-M", *NO_PROGRAMS, merge_base, head).stdout
        files = parse.file_changes(raw, lines, self._sizes({change[2] for change in parse.raw_changes(raw)}))
        return CodeDiff(merge_base, head, tuple(files[:files_max]), truncated=len(files) > files_max)

    def patch(self, base: str, head: str, *, path: str | None = None, bytes_max: int = 1_000_000) -> str:
        merge_base, head = self._merge_base(base, head), self._known(head)
        # `:(literal)` keeps a hostile file name from being read as a pathspec pattern.
        where = [f":(literal){path}"] if path else []
        output = self._git.run("diff-tree", "-r", "-p", "-M", *NO_PROGRAMS, merge_base, head, "--", *where, cut=True)
        return output.stdout[:bytes_max].decode("utf-8", "replace")

    def read(self, revision: str, path: str, *, bytes_max: int = 1_000_000) -> bytes:
        blob = self._resolve(f"{self._known(revision)}:{path}", kind="blob")
        if blob is None:
            raise UnknownRevision(f"There is no file {path!a} in {revision[:12]}.")
        return self._git.run("cat-file", "blob", blob, cut=True).stdout[:bytes_max]

    def files(self, revision: str, *, under: str = "", limit: int = 5000) -> list[str]:
        where = [f":(literal){under}"] if under else []
        names = self._git.run("ls-tree", "-r", "-z", "--name-only", self._known(revision), "--", *where).stdout
        return [name.decode("utf-8", "backslashreplace") for name in names.split(b"\0") if name][:limit]

    def tree(self, revision: str) -> str:
        return self._git.run("rev-parse", "--verify", f"{self._known(revision)}^{{tree}}").text.strip()

    def is_ancestor(self, ancestor: str, descendant: str) -> bool:
        pair = (self._known(ancestor), self._known(descendant))
        if pair not in self._descends:
            if len(self._descends) >= SEEN_MAX:
                self._descends.clear()
            self._descends[pair] = self._git.run("merge-base", "--is-ancestor", *pair, allowed=(0, 1)).exit_code == 0
        return self._descends[pair]

    # Packs

    def has(self, commit: str) -> bool:
        return OBJECT_ID.fullmatch(commit) is not None and self._resolve(commit) is not None

    def take_pack(self, pack: Path, *, head: str, expected: str | None) -> None:
        if not OBJECT_ID.fullmatch(head):
            raise PackRefused("The head of the pack is not a commit id.")
        if pack.stat().st_size > self._pack_bytes_max:
            raise PackRefused(
                f"The pack is larger than {self._pack_bytes_max // 2**20} MiB.",
                effect="The branch stays where it was.",
                next_step="Take large files out of the branch.",
            )
        try:
            # Every object and link is checked, and nothing is kept when one is bad.
            with pack.open("rb") as file:
                self._git.run("index-pack", "--stdin", "--fix-thin", "--strict", stdin=file)
            self._git.run("rev-list", "--objects", "--quiet", head, "--not", "--all")
        except GitFailed as failure:
            raise PackRefused(
                "git's checks refused the tenant's objects.", effect=failure.effect, next_step=failure.message
            ) from failure
        if self._resolve(head) is None:
            raise PackRefused("The pack does not hold the commit it was said to hold.")
        if expected is not None and not self.is_ancestor(expected, head):
            raise PackRefused(
                "The branch was rewritten: its new head does not contain what was published before.",
                effect="Nothing was published.",
                next_step="Merge the published commit back into the workspace.",
            )

    @contextmanager
    def quarantine(self) -> Iterator[Quarantined]:
        with quarantine.objects_apart(self._directory) as (held, variables):
            yield Quarantined(self._directory, held, variables, pack_bytes_max=self._pack_bytes_max)

    def new_files(
        self, head: str, *, known: Sequence[str], content_bytes_max: int, bytes_max: int = NEW_BYTES_MAX
    ) -> Iterator[NewFile]:
        span = [self._known(head), *(f"^{self._known(one)}" for one in known)]
        # A merge brings only what none of its parents had (`-c`); what they had is looked at with them.
        shape = ("--raw", "-z", "--no-abbrev", "--no-renames", "-c", "--root", "--format=", *NO_PROGRAMS)
        try:
            raw = self._git.run("log", *shape, *span, "--").stdout
        except GitFailed as failure:
            raise PackRefused("The new commits are more than can be checked.", effect=failure.message) from failure
        changes = [change for change in parse.raw_changes(raw) if change[0] != "D"]
        sizes = self._sizes({blob for _, mode, blob, _, _ in changes if mode != SUBMODULE})
        if sum(sizes.values()) > bytes_max:
            raise PackRefused(
                f"The new files hold {sum(sizes.values()) / 2**30:.1f} GiB, more than {bytes_max / 2**30:.1f} GiB.",
                effect="Nothing was published.",
                next_step="Take large files out of the branch.",
            )
        places: dict[str, list[tuple[str, str]]] = {}
        for _, mode, blob, _, path in changes:
            if sizes.get(blob, content_bytes_max + 1) <= content_bytes_max:
                places.setdefault(blob, []).append((path, mode))
            else:
                yield NewFile(path, mode, sizes.get(blob, 0), blob, b"")
        for blob, content in self._contents(places):
            for path, mode in places[blob]:
                yield NewFile(path, mode, len(content), blob, content)

    def _contents(self, blobs: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Each blob once, one in memory at a time. Raises GitFailed when one is missing."""
        wanted = sorted(blobs)
        if not wanted:
            return
        count = 0
        with self._git.piped(
            "cat-file", "--batch", "--buffer", stdin="".join(f"{b}\n" for b in wanted).encode()
        ) as out:
            for blob in parse.blobs(out):
                count += 1
                yield blob
        if count != len(wanted):
            raise GitFailed(f"{len(wanted) - count} of {len(wanted)} new files could not be read.")

    def tidy(self) -> bool:
        """Put many packs into one and drop what nothing refers to since a day; returns whether there was need."""
        if sum(1 for _ in (self._directory / "objects" / "pack").glob("*.idx")) <= PACKS_MAX:
            return False
        Git(self._directory, timeout_s=TIDY_S_MAX).run("gc", "--quiet", f"--prune={UNUSED_KEPT}")
        return True

    def pack(self, head: str, *, without: str | None) -> bytes:
        wanted = [self._known(head)] + ([f"^{self._known(without)}"] if without else [])
        arguments = ("pack-objects", "--revs", "--stdout", "--quiet", "--thin")
        return self._git.run(*arguments, stdin="".join(f"{line}\n" for line in wanted).encode()).stdout

    def create_workspace(self, tree: Path, git: Path, *, branch: str, start: str, production: str) -> None:
        workspace.create(
            tree, git, source=self._directory, branch=branch, start=self._known(start), upstream=production
        )

    # Merging and moving

    def holds(self, commit: str, *, at: str) -> bool:
        if self.is_ancestor(commit, at):
            return True
        pair = (commit, at)
        if pair not in self._held_by:
            if len(self._held_by) >= SEEN_MAX:
                self._held_by.clear()
            self._held_by[pair] = self.merge_check(at, commit).tree == self.tree(at)
        return self._held_by[pair]

    def merge_check(self, ours: str, theirs: str) -> MergeCheck:
        ours, theirs = self._known(ours), self._known(theirs)
        shape = ("--write-tree", "--name-only", "-z", "--no-messages")
        output = self._git.run("merge-tree", *shape, ours, theirs, allowed=(0, 1))
        if output.exit_code == 1:
            return MergeCheck(ours, theirs, None, parse.conflicts(output.stdout))
        return MergeCheck(ours, theirs, output.stdout.split(b"\0")[0].decode("ascii").strip(), ())

    def merge(self, check: MergeCheck, *, message: str, author: str, email: str) -> str:
        if check.tree is None:
            raise BranchMoved("A merge with conflicts cannot be written.", conflicts=check.conflicts)
        parents = (check.ours, check.theirs)
        return self._commit_tree(check.tree, parents, message=message, author=author, email=email)

    def restore(self, state: str, *, onto: str, message: str, author: str, email: str) -> str:
        return self._commit_tree(self.tree(state), (self._known(onto),), message=message, author=author, email=email)

    def _commit_tree(self, tree: str, parents: Sequence[str], *, message: str, author: str, email: str) -> str:
        identity = {
            f"GIT_{who}_{what}": value
            for who in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", author), ("EMAIL", email))
        }
        flags = [part for parent in parents for part in ("-p", parent)]
        arguments = ("commit-tree", tree, *flags, "-F", "-")
        return self._git.run(*arguments, stdin=message.encode(), environment=identity).text.strip()

    def move_branch(self, name: str, *, expected: str | None, to: str | None) -> None:
        reference = f"refs/heads/{name}"
        arguments = ["-d", reference] if to is None else [reference, to]
        try:
            self._git.run("update-ref", *arguments, expected or ZERO)
        except GitFailed as failure:
            now = self.branch(name)
            if now == expected:
                raise
            raise BranchMoved(
                f"The branch {name} is at {(now or 'nothing')[:12]}, not at {(expected or 'nothing')[:12]}.",
                effect="It was not moved.",
                next_step="Look at what changed and try again.",
            ) from failure

    # The remote

    def fetch(self, *, branch: str) -> str | None:
        return self._the_remote().fetch(self._git, branch)

    def push(self, commit: str, *, branch: str, expected: str | None, credential: str) -> None:
        self._the_remote().push(self._git, self._known(commit), branch, expected, credential)

    def remote_branch(self, branch: str) -> str | None:
        return self._the_remote().branch(self._git, branch)

    def _the_remote(self) -> Remote:
        if self._remote is None:
            raise GitFailed("No remote is configured.", next_step="Set branch.remote in configs/orchestrator.yaml.")
        return self._remote

    # Small steps

    def _resolve(self, expression: str, *, kind: str = "commit") -> str | None:
        arguments = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{expression}^{{{kind}}}")
        if kind == "blob":  # a path may contain `^{`; ask for the object itself and check its type apart
            arguments = ("rev-parse", "--verify", "--quiet", "--end-of-options", expression)
        output = self._git.run(*arguments, allowed=(0, 1, 128))
        found = output.text.strip()
        if output.exit_code != 0 or not OBJECT_ID.fullmatch(found):
            return None
        if kind == "blob" and self._git.run("cat-file", "-t", found).text.strip() != "blob":
            return None
        return found

    def _known(self, revision: str) -> str:
        if revision in self._seen:
            return revision
        found = self._resolve(revision)
        if found is None:
            raise UnknownRevision(f"There is no commit {ascii(revision)[:80]} here.")
        if found == revision:
            # A whole id always names the same commit: it need not be asked again for every step of one errand.
            if len(self._seen) >= SEEN_MAX:
                self._seen.clear()
            self._seen.add(found)
        return found

    def _merge_base(self, base: str, head: str) -> str:
        base = self._known(base)
        output = self._git.run("merge-base", base, self._known(head), allowed=(0, 1))
        return output.text.split("\n")[0].strip() or base

    def _sizes(self, blobs: set[str]) -> dict[str, int]:
        wanted = "".join(f"{blob}\n" for blob in sorted(blobs) if blob.strip("0"))
        if not wanted:
            return {}
        lines = self._git.run("cat-file", "--batch-check=%(objectname) %(objectsize)", stdin=wanted.encode())
        pairs = (line.split(" ") for line in lines.text.splitlines() if not line.endswith(" missing"))
        return {blob: int(size) for blob, size in pairs}


class Quarantined(BareRepository):
    """A look at the repository that takes objects into a directory apart; implements core.ports.git.Quarantine."""

    def __init__(self, directory: Path, held: Path, variables: Mapping[str, str], *, pack_bytes_max: int) -> None:
        super().__init__(directory, pack_bytes_max=pack_bytes_max)
        self._git = replace(self._git, variables=variables)
        self._held = held

    def keep(self) -> None:
        quarantine.keep(self._held, self._directory)
