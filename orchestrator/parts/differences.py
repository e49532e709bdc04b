"""What differs between a tenant's database and its snapshot: both sides found, started and compared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy import Engine

from orchestrator.core.changeset.shape import TableName
from orchestrator.core.generations import Generation, GenerationMissing
from orchestrator.core.ports.differ import Differ, DiffLimits, DiffResult, DiffSides
from orchestrator.core.ports.servers import APP_DATABASE, READER_ROLE, Servers
from orchestrator.core.snapshots import Snapshot
from orchestrator.core.tenants import Tenant
from orchestrator.parts.generation import Generations
from orchestrator.store import generations as generation_store
from orchestrator.store import snapshots as snapshot_store


@dataclass(frozen=True)
class Differences:
    store: Engine
    servers: Servers
    generations: Generations
    differ: Differ
    limits: DiffLimits = field(default_factory=DiffLimits)

    def of(self, tenant: Tenant, generation: Generation) -> DiffResult:
        """Compare a running generation with its base. Raises DiffFailed, DatabaseBusy, TooManyChanges."""
        with self.store.connect() as connection:
            snapshot = snapshot_store.get(connection, generation.snapshot_id)
        sockets = self.generations.places.database_sockets(tenant.id, generation.id)
        with self.generations.base(snapshot) as base:
            sides = DiffSides(
                snapshot_id=snapshot.id,
                live_reader=self.servers.dsn(sockets, user=READER_ROLE, database=APP_DATABASE),
                base_reader=self.servers.dsn(base.sockets, user=READER_ROLE, database=APP_DATABASE),
                live_admin=self.servers.dsn(sockets, database=APP_DATABASE),
                origin_lsn=snapshot.manifest.origin_lsn if snapshot.manifest else None,
            )
            return self.differ.compare(sides, self.limits)

    def live(self, tenant: Tenant) -> Generation:
        """The tenant's live generation. Raises GenerationMissing."""
        with self.store.connect() as connection:
            found = generation_store.live(connection, tenant.id)
        if found is None:
            raise GenerationMissing(
                f"{tenant.name} has no database yet.", next_step="Launch or refresh the tenant, then try again."
            )
        return found

    @contextmanager
    def base(self, snapshot: Snapshot) -> Iterator[str]:
        """A connection string to the read-only base of `snapshot`, as its reader."""
        with self.generations.base(snapshot) as spec:
            yield self.servers.dsn(spec.sockets, user=READER_ROLE, database=APP_DATABASE)

    def snapshot(self, snapshot_id: str) -> Snapshot:
        """Raises SnapshotMissing."""
        with self.store.connect() as connection:
            return snapshot_store.get(connection, snapshot_id)

    def newest(self, profile: str) -> Snapshot | None:
        with self.store.connect() as connection:
            return snapshot_store.newest(connection, profile)

    def masked(self, snapshot_id: str) -> frozenset[tuple[TableName, str]]:
        """The columns whose true values the sandbox never had."""
        manifest = self.snapshot(snapshot_id).manifest
        return frozenset(_column(name) for name in manifest.masked) if manifest else frozenset()


def _column(name: str) -> tuple[TableName, str]:
    schema, table, column = name.split(".", 2)
    return TableName(schema, table), column
