"""git inside a tenant's container: the only program that may write to the repository's own directory.

Its configuration is pinned by argument and environment, so nothing a tenant writes can make it start a program.
Its output is hostile input: ids are checked, paths are NUL-separated, sizes are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from orchestrator.core.names import new_id
from orchestrator.core.ports.sandboxd import (
    Access,
    CommandExited,
    CommandLimits,
    CommandOutput,
    PathGrant,
    SandboxCommand,
    Sandboxd,
)
from orchestrator.errors import OutsideFailure

PROGRAM = "/usr/bin/git"
WORKSPACE, REPOSITORY = "/workspace", "/repository"
OBJECT_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
STDERR_KEPT_BYTES = 20_000

PINS: Mapping[str, str] = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "core.pager": "",
    "core.editor": "false",
    "core.quotePath": "false",
    "diff.external": "",
    "commit.gpgSign": "false",
    "tag.gpgSign": "false",
    "merge.verifySignatures": "false",
    "submodule.recurse": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "protocol.allow": "never",
    # What leaves is packed in one go and checked outside at once: looking for deltas would cost the tenant's time.
    "pack.window": "0",
    "pack.compression": "1",
}
ENVIRONMENT: Mapping[str, str] = {
    "GIT_DIR": REPOSITORY,
    "GIT_WORK_TREE": WORKSPACE,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_PAGER": "",
    "HOME": "/tmp",  # noqa: S108 - inside the container
    "LANG": "C.UTF-8",
}
GRANTS = (
    PathGrant(WORKSPACE, Access.WRITE),
    PathGrant(REPOSITORY, Access.WRITE),
)


class InnerGitFailed(OutsideFailure):
    code = "outside_failure.inner_git"


@dataclass(frozen=True)
class Ended:
    exit_code: int
    stdout: bytes
    stderr: str


@dataclass(frozen=True)
class InnerGit:
    """Runs pinned git through the tenant's supervisor. `limits` bound every call; `streamed_bytes` what is streamed.

    What is not streamed is held in memory, so a call that prints more than its limit is a failed one.
    """

    sandboxd: Sandboxd
    limits: CommandLimits = field(
        default_factory=lambda: CommandLimits(
            wall_s=120.0, output_bytes=16 * 2**20, write_bytes=2 * 2**30, changed_paths=0
        )
    )
    streamed_bytes: int = 640 * 2**20

    def stream(self, *arguments: str, stdin: bytes = b"") -> Iterator[bytes]:
        """Yield standard output as it comes. Raises InnerGitFailed at the end when git did not succeed."""
        ended: CommandExited | None = None
        stderr = bytearray()
        limits = replace(self.limits, output_bytes=self.streamed_bytes)
        for event in self.sandboxd.run(replace(self._command(arguments, stdin, {}), limits=limits)):
            if isinstance(event, CommandOutput):
                if event.stream == "stdout":
                    yield event.data
                elif len(stderr) < STDERR_KEPT_BYTES:
                    stderr += event.data
            elif isinstance(event, CommandExited):
                ended = event
        if ended is None or ended.exit_code != 0:
            raise self._failed(arguments, ended, bytes(stderr))

    def run(
        self,
        *arguments: str,
        stdin: bytes = b"",
        environment: Mapping[str, str] | None = None,
        allowed: tuple[int, ...] = (0,),
    ) -> Ended:
        """Run it to its end. Raises InnerGitFailed on a signal, a limit or an exit code outside `allowed`."""
        stdout, stderr = bytearray(), bytearray()
        ended: CommandExited | None = None
        for event in self.sandboxd.run(self._command(arguments, stdin, environment or {})):
            if isinstance(event, CommandOutput):
                (stdout if event.stream == "stdout" else stderr).extend(event.data)
            elif isinstance(event, CommandExited):
                ended = event
        if ended is None or ended.exit_code is None or ended.exit_code not in allowed:
            raise self._failed(arguments, ended, bytes(stderr))
        return Ended(ended.exit_code, bytes(stdout), stderr.decode("utf-8", "replace")[:STDERR_KEPT_BYTES])

    def ids(self, *expressions: str) -> tuple[str | None, ...]:
        """The objects that expressions name, in one question; None for what is not there."""
        asked = "".join(f"{one}\n" for one in expressions).encode()
        lines = self.run("cat-file", "--batch-check=%(objectname)", stdin=asked).stdout.decode("ascii", "replace")
        found = tuple(line if OBJECT_ID.fullmatch(line) else None for line in lines.splitlines())
        if len(found) != len(expressions):
            raise InnerGitFailed("git cat-file answered another question.", effect="Nothing was published.")
        return found

    def commit_id(self, expression: str) -> str | None:
        """The commit an expression names, None when there is none."""
        arguments = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{expression}^{{commit}}")
        ended = self.run(*arguments, allowed=(0, 1, 128))
        found = ended.stdout.decode("ascii", "replace").strip()
        return found if ended.exit_code == 0 and OBJECT_ID.fullmatch(found) else None

    def object_id(self, *arguments: str, **rest: bytes | Mapping[str, str]) -> str:
        """Run a subcommand that prints one object id. Raises InnerGitFailed when it prints anything else."""
        ended = self.run(*arguments, **rest)  # type: ignore[arg-type]
        found = ended.stdout.decode("ascii", "replace").strip()
        if not OBJECT_ID.fullmatch(found):
            raise InnerGitFailed(f"git {arguments[0]} printed no object id.", effect="Nothing was published.")
        return found

    def failed(self, subcommand: str, ended: Ended) -> InnerGitFailed:
        """What is raised for a call that ended, but not well."""
        return _said(f"git {subcommand} failed in the workspace (exit code {ended.exit_code}).", ended.stderr)

    def _command(self, arguments: tuple[str, ...], stdin: bytes, environment: Mapping[str, str]) -> SandboxCommand:
        pinned = tuple(part for name, value in PINS.items() for part in ("-c", f"{name}={value}"))
        return SandboxCommand(
            id=new_id("g"),
            program=PROGRAM,
            argv=(PROGRAM, *pinned, *arguments),
            cwd=WORKSPACE,
            environment={**ENVIRONMENT, **environment},
            stdin=stdin,
            limits=self.limits,
            grants=GRANTS,
        )

    def _failed(self, arguments: tuple[str, ...], ended: CommandExited | None, stderr: bytes) -> InnerGitFailed:
        why = "it did not end" if ended is None else f"exit code {ended.exit_code}"
        if ended is not None and ended.stopped_by is not None:
            why = f"stopped by its limit: {ended.stopped_by}"
        elif ended is not None and ended.start_error:
            why = f"it could not start: {ended.start_error}"
        return _said(f"git {arguments[0]} failed in the workspace ({why}).", stderr.decode("utf-8", "replace"))


def _said(message: str, stderr: str) -> InnerGitFailed:
    is_full = "No space left on device" in stderr or "Disk quota exceeded" in stderr
    next_step = "The workspace is full: delete files, then publish again." if is_full else ""
    return InnerGitFailed(message, effect=ascii(stderr.strip()[-400:])[1:-1], next_step=next_step)
