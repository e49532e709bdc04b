"""PostgreSQL servers: every instance we run, started the same way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from orchestrator.core.ports.engine import ContainerLimits
from orchestrator.errors import OutsideFailure


class ServerFailed(OutsideFailure):
    code = "outside_failure.server"


@dataclass(frozen=True)
class ServerSpec:
    """One PostgreSQL container: `--network none`, Unix socket in `sockets`, data directory locked by its entrypoint."""

    name: str  # the container's name
    data: Path
    sockets: Path
    uid: int
    limits: ContainerLimits
    kind: str  # control, production, builder, base, generation
    tenant_id: str = ""
    generation_id: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    pool_uid: int | None = None  # generations: the pool's uid, mapped to the tenant's role by peer


class Servers(Protocol):
    def create(self, spec: ServerSpec) -> None:
        """initdb into `spec.data` when it is empty; nothing when it is already a data directory."""
        ...

    def start(self, spec: ServerSpec, *, timeout_s: float = 30.0) -> None:
        """Start and wait until it accepts connections. Raises ServerFailed with the end of its log."""
        ...

    def stop(self, name: str) -> None:
        """A fast shutdown (SIGINT)."""
        ...

    def remove(self, name: str) -> None: ...

    def is_ready(self, spec: ServerSpec) -> bool: ...

    def dsn(self, sockets: Path, *, user: str = "postgres", database: str = "postgres") -> str:
        """A libpq connection string over the socket directory; no secret in it (peer authentication)."""
        ...
