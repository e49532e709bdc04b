"""For a user who is not root: every command that needs the installation runs as root in a container.

`up` and `demo` start the two processes of the control plane as containers too; `down` ends them first.
"""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from orchestrator.cli import session
from orchestrator.cli.output import say
from orchestrator.core.ports.engine import NoSuchContainer
from orchestrator.drivers.docker.connection import Connection, translated
from orchestrator.errors import OutsideFailure
from orchestrator.setup import deputy
from orchestrator.setup.options import from_settings
from orchestrator.setup.plan import engine_ready

HERE = ("config",)  # nouns that read files and nothing else
HELP = ("--help", "-h")
STOP_TIMEOUT_S = 40
ENGINE_REFUSED = 125  # docker's own exit status when it could not start the container


class ContainerNotStarted(OutsideFailure):
    code = "outside_failure.deputy"


def is_meant(arguments: Sequence[str]) -> bool:
    """Whether these arguments need more than a user who is not root has."""
    _, rest = split(arguments)
    verbs = [one for one in rest if not one.startswith("-")]
    return bool(verbs) and verbs[0] not in HERE and not any(one in HELP for one in rest[: _end(rest)])


def split(arguments: Sequence[str]) -> tuple[Path | None, list[str]]:
    """What `--configs` names, where it stands before the noun, and the arguments without it."""
    found, rest = None, list(arguments)
    for place, word in enumerate(rest):
        if not word.startswith("-"):
            break
        if word.startswith("--configs="):
            found = Path(word.removeprefix("--configs="))
            del rest[place]
            break
        if word == "--configs" and place + 1 < len(rest):
            found = Path(rest[place + 1])
            del rest[place : place + 2]
            break
    return found, rest


def run(arguments: Sequence[str]) -> int:
    """Run a command of ours as root in a container; returns its exit code. Raises OrchestratorError."""
    configs, rest = split(arguments)
    if configs is not None:
        os.environ["ORCHESTRATOR_CONFIGS"] = str(configs.resolve())
    settings = session.settings()
    engine_ready(from_settings(settings))
    acting = deputy.of(settings, user=getpass.getuser())
    verb = next(one for one in rest if not one.startswith("-"))
    if verb in ("up", "demo", "down"):
        say(deputy.SENTENCE)
    if verb in ("up", "demo"):
        prepared = _contained(acting, ["prepare"])
        if prepared:
            return prepared
        for name in deputy.SERVICES:
            if _start(acting, name):
                say(f"  started: {name}")
    if verb == "down":
        for name in reversed(deputy.SERVICES):
            if _end_service(acting, name):
                say(f"  ended: {name}")
    return _contained(acting, rest)


def _contained(acting: deputy.Deputy, arguments: Sequence[str]) -> int:
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    code = _docker(acting.command(arguments, is_terminal=is_terminal)).returncode
    if code == ENGINE_REFUSED:
        raise ContainerNotStarted(
            "The engine could not start the container this runs in; its reason is above.",
            effect="Nothing was done.",
            next_step="`make setup` makes what is missing; `make setup CHECK=1` only says what.",
        )
    return code


def _start(acting: deputy.Deputy, name: str) -> bool:
    """Start a process of the control plane as a container; False when the same one runs already."""
    connection = Connection()
    try:
        with translated(f"{name} could not be looked up"):
            listed = connection.api.containers(filters={"name": f"^/{acting.service_name(name)}$"})
        if any((one.get("Labels") or {}).get(deputy.LABEL) == acting.digest() for one in listed):
            return False
    finally:
        connection.close()
    _end_service(acting, name)
    done = _docker(acting.service(name), is_quiet=True)
    if done.returncode:
        raise ContainerNotStarted(
            f"`orchestrator {name}` could not be started as a container.",
            effect=done.stderr.strip()[-1500:],
            next_step="`make setup` makes what is missing; then `make up`.",
        )
    return True


def _end_service(acting: deputy.Deputy, name: str) -> bool:
    """Stop it and delete its container; False when there is none."""
    container = acting.service_name(name)
    connection = Connection(timeout_s=STOP_TIMEOUT_S + 20)
    try:
        with translated(f"{container} could not be ended"):
            connection.api.stop(container, timeout=STOP_TIMEOUT_S)
            connection.api.remove_container(container, force=True)
    except NoSuchContainer:
        return False
    finally:
        connection.close()
    return True


def _docker(argv: Sequence[str], *, is_quiet: bool = False) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(list(argv), check=False, text=True, capture_output=is_quiet)
    except FileNotFoundError as failure:
        raise ContainerNotStarted(
            "The program docker is not installed.", next_step="As root: apt-get install docker.io"
        ) from failure


def _end(arguments: Sequence[str]) -> int:
    """Where our own options end: what follows `--` belongs to a tenant's command."""
    return arguments.index("--") if "--" in arguments else len(arguments)
