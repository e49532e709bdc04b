"""The builtin `files` as a command: `files read PATH`, `files write PATH` with the content on standard input.

What the API does at once with an allowed file operation, a command can do once a person has approved it.
"""

from __future__ import annotations

import posixpath
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.core.allowlist.texts import shown
from orchestrator.core.commands import CommandState, Outcome
from orchestrator.core.ports.files import READ_BYTES_MAX, Files, InvalidPath
from orchestrator.core.tenants import Tenant
from orchestrator.errors import OrchestratorError
from orchestrator.parts.running import Publish, Ran, Task

ROOT = "/workspace"
CHANGING = ("write", "delete")


@dataclass(frozen=True)
class FileRunner:
    """A Runner. `root` is a tenant's work tree on the host."""

    files: Files
    root: Callable[[Tenant], Path]

    def run(self, task: Task, publish: Publish) -> Ran:
        """See Runner; a file that is not there is exit code 1."""
        begun = time.monotonic()
        operation, *given = [one for one in task.execution.argv[1:] if one != "--"] or [""]
        sent, exit_code, changed, truncated = 0, 0, "", False
        try:
            for data in self._work(task, operation, given):
                kept = data[: task.limits.output_bytes - sent]
                truncated = truncated or len(kept) < len(data)
                sent += len(kept)
                if kept:
                    publish("stdout", kept)
                if truncated:
                    break
            changed = _relative(task, given[-1]) if operation in CHANGING else ""
        except OrchestratorError as problem:
            told = f"{problem.message}\n".encode("utf-8", "replace")
            publish("stderr", told)
            sent, exit_code = sent + len(told), 1
        outcome = Outcome(
            CommandState.FINISHED,
            exit_code=exit_code,
            truncated=truncated,
            output_bytes=sent,
            duration_ms=int((time.monotonic() - begun) * 1000),
            changed_paths=(changed,) if changed else (),
        )
        return Ran(outcome)

    def cancel(self, tenant: Tenant, command_id: str) -> bool:
        """It is over before anybody could."""
        del tenant, command_id
        return False

    def _work(self, task: Task, operation: str, given: list[str]) -> Iterator[bytes]:
        root = self.root(task.tenant)
        if operation == "read" and len(given) == 1:
            yield from self._content(root, _relative(task, given[0]))
        elif operation == "list" and len(given) <= 1:
            path = _relative(task, given[0] if given else task.execution.cwd)
            yield from (f"{shown(one.path)}\n".encode() for one in self.files.entries(root, path).entries)
        elif operation == "glob" and len(given) == 1:
            yield from (f"{shown(one.path)}\n".encode() for one in self.files.glob(root, given[0]).entries)
        elif operation == "search" and len(given) in (1, 2):
            under = _relative(task, given[1] if len(given) == 2 else task.execution.cwd)
            for one in self.files.search(root, given[0], under=under).matches:
                yield f"{shown(one.path)}:{one.line}:{shown(one.text)}\n".encode()
        elif operation == "write" and len(given) == 1:
            content = task.stdin.encode("utf-8", "surrogatepass")
            self.files.write(root, _relative(task, given[0]), content, uid=task.tenant.uid)
        elif operation == "delete" and len(given) == 1:
            self.files.delete(root, _relative(task, given[0]))
        else:
            raise InvalidPath("`files` reads, lists, searches, globs, writes or deletes.", effect="Nothing was done.")

    def _content(self, root: Path, path: str) -> Iterator[bytes]:
        offset = 0
        while True:
            part = self.files.read(root, path, offset=offset, limit=READ_BYTES_MAX)
            yield part.content
            offset += len(part.content)
            if not part.content or offset >= part.size_bytes:
                return


def _relative(task: Task, argument: str) -> str:
    """A path below the workspace as the Files port wants it; it was decided on already, and is confined again there."""
    path = posixpath.join(task.execution.cwd, argument)
    if path != ROOT and not path.startswith(f"{ROOT}/"):
        raise InvalidPath("Only files of the workspace can be named.", effect="Nothing was done.")
    return path.removeprefix(ROOT).lstrip("/")
