"""A supervisor that runs git on the host instead of in a container: real git, real files, no kernel gate.

For tests of flows whose subject is git's state, not the container; the same flows run against real containers in
tests/trips.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.core.ports.sandboxd import CommandEvent, CommandExited, CommandOutput, CommandStarted, SandboxCommand


@dataclass
class LocalSandboxd:
    """Only `run`; `before` is called with every command and may raise, to die at a chosen step."""

    tree: Path
    git: Path
    before: Callable[[SandboxCommand], None] = lambda command: None
    ran: list[tuple[str, ...]] = field(default_factory=list)

    def run(self, command: SandboxCommand) -> Iterator[CommandEvent]:
        self.before(command)
        self.ran.append(command.argv)
        environment = {**command.environment, "PATH": os.environ["PATH"]}
        environment |= {"GIT_DIR": str(self.git), "GIT_WORK_TREE": str(self.tree)}
        safe = ("git", "-c", "safe.directory=*", *command.argv[1:])
        done = subprocess.run(safe, cwd=self.tree, env=environment, input=command.stdin, capture_output=True)
        yield CommandStarted(1)
        for stream, data in (("stdout", done.stdout), ("stderr", done.stderr)):
            if data:
                yield CommandOutput(stream, data)
        yield CommandExited(done.returncode, None, None, None, False, 0, 0, 0, len(done.stdout), 0, (), True)
