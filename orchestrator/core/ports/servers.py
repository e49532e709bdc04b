"""PostgreSQL servers: every instance we run, started the same way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from orchestrator.core.ports.engine import ContainerLimits
from orchestrator.errors import OutsideFailure

# The names inside every tenant database and every snapshot.
APP_DATABASE = "app"
PREPARED_ROLE = "prepared"  # owns the application's objects in a snapshot; renamed to the tenant's role
READER_ROLE = "reader"  # BYPASSRLS and pg_read_all_data, never superuser: reads what the tenant may have changed
WATCHDOG_ROLE = "watchdog"  # sees and ends sessions; the tenant cannot become it
SUPERUSER = "postgres"


class ServerFailed(OutsideFailure):
    code = "outside_failure.server"


class DataDirectoryLocked(ServerFailed):
    """Another container already runs on this data directory."""

    code = "outside_failure.server_locked"


class OtherVersion(ServerFailed):
    """The data directory was made by another major version than the image has."""

    code = "outside_failure.server_version"


class SocketPathTooLong(ServerFailed):
    code = "outside_failure.server_socket_path"


class ServerKind(StrEnum):
    CONTROL = "control"
    PRODUCTION = "production"
    BUILDER = "builder"  # a snapshot being restored and masked; not crash safe on purpose
    SEAL = "seal"  # the builder's second, durable start, which trims the WAL
    BASE = "base"  # a read-only instance of a snapshot, for diffs
    GENERATION = "generation"


@dataclass(frozen=True)
class ServerSpec:
    """One PostgreSQL container: `--network none`, Unix socket in `sockets`, data directory locked by its entrypoint.

    Who may connect: the orchestrator's own uid as postgres, reader or watchdog, by peer; `pool_uid` as
    `pool_role`, by peer; on a production server every other role by password. Nobody else.
    """

    name: str  # the container's name
    data: Path
    sockets: Path
    uid: int
    limits: ContainerLimits
    kind: str  # a ServerKind
    tenant_id: str = ""
    generation_id: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)  # on top of the kind's own
    pool_uid: int | None = None  # generations: the pool's uid …
    pool_role: str = ""  # … and the tenant's role it becomes by peer
    image: str = ""  # another PostgreSQL image than the installation's


@dataclass(frozen=True)
class RoleLimits:
    """What a tenant's role gets. The tenant can reset `statement_timeout_s`; the watchdog enforces it again."""

    connections: int
    temp_file_bytes: int
    statement_timeout_s: float


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

    def dsn(self, sockets: Path, *, user: str = SUPERUSER, database: str = "postgres") -> str:
        """A libpq connection string over the socket directory; no secret in it (peer authentication)."""
        ...


class Roles(Protocol):
    """The roles inside a tenant's database."""

    def hand_over(self, spec: ServerSpec, *, role: str, limits: RoleLimits) -> None:
        """Turn the snapshot's prepared role into the tenant's own; running it again changes only the limits.

        Raises ServerFailed.
        """
        ...

    def snapshot_id(self, spec: ServerSpec) -> str:
        """Which snapshot the database behind `spec` says it was made from, read as the reader. Raises ServerFailed."""
        ...

    def warm(self, spec: ServerSpec) -> None:
        """Read what every first query reads, before anybody waits for one; never fails, never takes long.

        Only for a fresh copy of a snapshot: nothing in it is the tenant's yet.
        """
        ...

    def rights(self, spec: ServerSpec, role: str) -> Mapping[str, bool]:
        """What a tenant's role must not have, and whether it has it: `superuser`, `read server files` …

        Read as the reader, from the catalog alone. Raises ServerFailed.
        """
        ...


@dataclass(frozen=True)
class WatchLimits:
    """What the watchdog enforces. `size_bytes=None`: the file system already does."""

    statement_timeout_s: float
    size_bytes: int | None


@dataclass(frozen=True)
class EndedSession:
    """A statement or session the watchdog ended, and why."""

    pid: int
    why: str  # too_long, too_large
    ran_s: float
    was_terminated: bool  # False: only its statement was cancelled


@dataclass(frozen=True)
class Looked:
    """What was ended, and for how long nothing can be over a limit: looking again sooner finds nothing."""

    ended: tuple[EndedSession, ...]
    quiet_s: float


class Watchdog(Protocol):
    """Looks at a tenant's database with a role of its own: the tenant's settings do not bind it."""

    def look(self, spec: ServerSpec, limits: WatchLimits) -> Looked:
        """End what is over a limit. Raises ServerFailed when the database does not answer."""
        ...
