"""The arrangement of docker-compose.yml on this machine, beside any other: made, brought up, and deleted whole."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from orchestrator import config
from orchestrator.config import PROJECT, Settings
from orchestrator.setup.packages import compose_command
from tests.support.installation import Browser, configured, delete, free_slot, setup

COMPOSE_PATIENCE_S = 900  # the demo from nothing, on a machine that is busy


@dataclass(frozen=True)
class Composed:
    """One running arrangement; `settings` are those of its configuration files."""

    root: Path
    settings: Settings
    program: tuple[str, ...]

    def compose(self, *arguments: str, expect: int = 0) -> str:
        """`docker compose …`; standard output. Its words are shown when the exit code is not `expect`."""
        named = ("--project-directory", str(self.root), "--file", str(PROJECT / "docker-compose.yml"))
        done = subprocess.run(
            [*self.program, *named, *arguments],
            env={name: value for name, value in os.environ.items() if not name.startswith(config.PREFIX)},
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMPOSE_PATIENCE_S,
        )
        shown = f"{' '.join(arguments)}: exit {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        assert done.returncode == expect, f"{shown}\n{self._logs()}"
        return done.stdout

    def run(self, *arguments: str, expect: int = 0) -> str:
        """The command line inside the arrangement."""
        return self.compose("exec", "-T", "orchestrator", "orchestrator", *arguments, expect=expect)

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "-o", "json"))

    def up(self) -> None:
        self.compose("up", "--detach")

    def down(self) -> None:
        self.compose("down", "--timeout", "40")

    def browser(self) -> Browser:
        return Browser(self.settings.proxy.port)

    def restarts(self) -> dict[str, int]:
        """How often the engine had to start each service of ours again."""
        found = {}
        for service in ("control", "orchestrator", "scheduler"):
            (container,) = self.compose("ps", "-q", service).split()
            argv = ["docker", "inspect", "--format", "{{.RestartCount}}", container]
            found[service] = int(subprocess.check_output(argv, text=True, timeout=60))
        return found

    def _logs(self) -> str:
        named = ("--project-directory", str(self.root), "--file", str(PROJECT / "docker-compose.yml"))
        argv = [*self.program, *named, "logs", "--no-color", "--tail=40"]
        return subprocess.run(argv, cwd=self.root, capture_output=True, text=True, timeout=60, check=False).stdout


@contextmanager
def composed() -> Iterator[Composed]:
    """Set it up and bring it up; delete everything of it at the end, whatever happens."""
    with free_slot("compose") as slot:
        root = Path(f"/tmp/orchestrator-compose-{slot}")  # short: socket paths must stay under 108 bytes
        program = compose_command()
        assert program is not None, "docker compose is not installed"
        _delete(root, program)
        root.mkdir(parents=True)
        directory = configured(root, f"compose{slot}", plan=f"10.{200 + slot}.0.0/16")
        # What the journey wants is done when it asks.
        schedule = root / "cron" / "schedule.yaml"
        document = yaml.safe_load(schedule.read_text())
        for what in ("snapshot", "refresh", "publish"):
            document[what]["enabled"] = False
        schedule.write_text(yaml.safe_dump(document))
        try:
            setup(directory, "--compose")
            made = Composed(root, config.load(directory, environment={}), tuple(program))
            made.up()
            yield made
        finally:
            _delete(root, program)


def _delete(root: Path, program: list[str]) -> None:
    """Also what a run that was killed has left."""
    if (root / ".env").exists():
        named = ("--project-directory", str(root), "--file", str(PROJECT / "docker-compose.yml"))
        argv = [*program, *named, "down", "--volumes", "--timeout", "5"]
        subprocess.run(argv, cwd=root, capture_output=True, timeout=300, check=False)
    delete(root)
