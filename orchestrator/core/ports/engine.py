"""The container engine: containers and networks, and nothing that is not ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from orchestrator.errors import OutsideFailure


class EngineFailed(OutsideFailure):
    code = "outside_failure.engine"


class EngineUnreachable(EngineFailed):
    """The engine does not answer at all; nothing may be concluded about containers."""

    code = "outside_failure.engine_unreachable"


class NotOurs(EngineFailed):
    """A container or network of that name exists and belongs to somebody else; it was not touched."""

    code = "outside_failure.engine_not_ours"


class NoSuchContainer(EngineFailed):
    code = "outside_failure.no_such_container"


class ImageMissing(OutsideFailure):
    code = "outside_failure.image_missing"


@dataclass(frozen=True)
class Mount:
    source: Path
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class ContainerLimits:
    memory_bytes: int
    cpus: float
    pids: int


@dataclass(frozen=True)
class Attachment:
    """Membership of a network under a static address (a stopped container loses a dynamic one)."""

    network: str
    address: str


@dataclass(frozen=True)
class ContainerSpec:
    """A hardened container: read-only root, every capability dropped, no-new-privileges, restart policy `no`.

    Those hold for every container and are not fields. `networks=()` means `--network none`; then `loopback=False`
    leaves even the loopback interface down, and the container starts in half the time.
    """

    name: str
    image: str
    argv: tuple[str, ...]  # the program and its arguments; empty: the image's own entry point and command
    uid: int
    gid: int
    limits: ContainerLimits
    role: str  # sandbox, database, pool, proxy, control, …: becomes a label
    tenant_id: str = ""
    generation_id: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    tmpfs: Mapping[str, str] = field(default_factory=dict)
    networks: tuple[Attachment, ...] = ()
    loopback: bool = True
    published: tuple[tuple[str, int, int], ...] = ()  # host address, host port, container port
    stop_signal: str = "SIGTERM"
    seccomp_profile: Path | None = None
    shm_bytes: int | None = None
    init: bool = False
    supplementary_groups: tuple[int, ...] = ()
    working_directory: str = "/"
    name_servers: tuple[str, ...] = ()  # none: names outside the container's networks do not resolve


@dataclass(frozen=True)
class Container:
    """What the engine says of one of ours. A listing leaves `started_at` None and `pid` 0; observing fills them."""

    id: str
    name: str
    role: str
    tenant_id: str
    generation_id: str
    running: bool
    exit_code: int | None
    started_at: datetime | None
    spec_digest: str
    pid: int
    image: str = ""
    networks: tuple[str, ...] = ()


@dataclass(frozen=True)
class ContainerStats:
    memory_bytes: int
    memory_limit_bytes: int
    cpu_seconds: float
    pids: int


@dataclass(frozen=True)
class NetworkSpec:
    """A network with one /28 or more of ours. Without `gateway` the host has no address on it; the edge needs one."""

    name: str
    subnet: str
    tenant_id: str = ""
    gateway: str | None = None
    internal: bool = True


class Engine(Protocol):
    """Every call has a time limit; every failure is an EngineFailed or ImageMissing with the cause kept.

    A failed listing raises; it is never an empty list.
    """

    def start(self, spec: ContainerSpec) -> Container:
        """Make sure the container exists exactly as in `spec` and runs; one made from another spec is replaced."""
        ...

    def observe(self, name: str) -> Container | None: ...

    def containers(self, *, tenant_id: str | None = None) -> list[Container]: ...

    def stop(self, name: str, *, timeout_s: int = 10) -> None:
        """Send the stop signal, and SIGKILL after `timeout_s`; a container that is stopped or gone is fine."""
        ...

    def kill(self, name: str, *, signal: str = "SIGKILL") -> None:
        """Send a signal to its first process; raises NoSuchContainer, and nothing when it is not running."""
        ...

    def remove(self, name: str) -> None:
        """Stop by force and delete; a container that is not there is fine, one that is not ours is refused."""
        ...

    def logs(self, name: str, *, lines: int = 200) -> str: ...

    def stats(self, name: str) -> ContainerStats: ...

    def ensure_network(self, spec: NetworkSpec) -> None:
        """Make sure the network exists exactly as in `spec`; one of ours that differs and is empty is replaced."""
        ...

    def networks(self, *, tenant_id: str | None = None) -> list[str]:
        """The names of our networks."""
        ...

    def attach(self, network: str, container: str, address: str) -> None:
        """Make the container a member under `address`; nothing when it is one already under that address."""
        ...

    def detach(self, network: str, container: str) -> None:
        """End a membership; nothing when there is none."""
        ...

    def remove_network(self, name: str) -> None:
        """Detach every member (running or stopped) first: a container whose network vanished cannot start again."""
        ...
