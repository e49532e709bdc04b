"""The pool in front of a tenant's live generation: PgBouncer in a container of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from orchestrator.core.ports.engine import ContainerLimits
from orchestrator.core.tenants import PoolMode
from orchestrator.errors import OutsideFailure


class PoolFailed(OutsideFailure):
    code = "outside_failure.pool"


class PauseTimedOut(OutsideFailure):
    """The pool could not be paused within its bound; it has been resumed."""

    code = "outside_failure.pause_timed_out"


@dataclass(frozen=True)
class PoolSpec:
    """One pool: `--network none`, `databases` mounted at /databases, its socket in `sockets`.

    It follows the link `live` in `databases`: replacing that link while the pool is paused is the swap.
    """

    name: str  # the container's name
    tenant_id: str
    image: str
    uid: int
    limits: ContainerLimits
    mode: PoolMode
    databases: Path
    sockets: Path
    configuration: Path
    role: str  # the tenant's role, the one user who may connect
    database: str  # the application's database
    password_file: Path  # the role's password at the pool, 0600
    console_password_file: Path  # the console's password, 0600
    clients_max: int = 200
    connections_max: int = 20  # to the live generation; stays under its max_connections


@dataclass(frozen=True)
class PoolStatus:
    """What the pool's console says."""

    is_paused: bool
    clients: int
    waiting: int
    servers: int


@dataclass(frozen=True)
class Pause:
    """How a pause went. `ended_sessions` counts those that were ended because they held a transaction open."""

    waited_s: float
    ended_sessions: int


class Pools(Protocol):
    """Every call has a time limit. A pool that is not there raises PoolFailed, except in `stop` and `remove`."""

    def start(self, spec: PoolSpec, *, timeout_s: float = 20.0) -> None:
        """Write the configuration and passwords that are missing, start the container, wait for its socket.

        A pool that runs from an equal spec is left alone; changed limits or another mode are reloaded without
        cutting clients.
        """
        ...

    def stop(self, name: str) -> None: ...

    def remove(self, name: str) -> None: ...

    def is_answering(self, spec: PoolSpec) -> bool: ...

    def status(self, spec: PoolSpec) -> PoolStatus: ...

    def pause(self, spec: PoolSpec, *, live_dsn: str, patience_s: float = 2.0, grace_s: float = 3.0) -> Pause:
        """Hold clients back and let go of the live generation.

        In transaction mode running transactions get `patience_s` to finish, then the sessions that still hold one
        are ended on the server behind `live_dsn` (their clients see AdminShutdown). In session mode sessions are
        ended between transactions, and after `patience_s` everywhere. Raises PauseTimedOut after `grace_s` more,
        with the pool resumed.
        """
        ...

    def resume(self, spec: PoolSpec) -> None:
        """Let clients through again; a pool that was not paused is fine."""
        ...
