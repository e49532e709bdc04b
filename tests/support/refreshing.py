"""A data plane for tests and benchmarks: a snapshot, tenants with a live generation and a pool, a control database."""

from __future__ import annotations

import dataclasses
import itertools
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import Engine

from orchestrator.core.actors import system
from orchestrator.core.generations import DatabaseLimits, Generation, GenerationState
from orchestrator.core.names import new_id
from orchestrator.core.places import Places
from orchestrator.core.ports.drafts import CarriedDraft, SavedDraft
from orchestrator.core.ports.engine import ContainerLimits
from orchestrator.core.ports.engine import Engine as ContainerEngine
from orchestrator.core.ports.servers import APP_DATABASE, PREPARED_ROLE, ServerKind, ServerSpec
from orchestrator.core.ports.volume import Volume
from orchestrator.core.snapshots import Manifest
from orchestrator.core.tenants import PoolMode, RefreshPolicy, Tenant, TenantState
from orchestrator.drivers.audit.log import FileAuditLog
from orchestrator.drivers.pool.pools import PgBouncerPools
from orchestrator.drivers.postgres.roles import INFO_SCHEMA, PostgresRoles, close_to_public, prepare_roles
from orchestrator.drivers.postgres.server import PostgresServers
from orchestrator.drivers.postgres.tools import Binaries
from orchestrator.flows.refresh import RefreshFlow, RefreshRecovery
from orchestrator.parts.generation import SERVICE_UID, Generations, tree_size
from orchestrator.parts.pool import TenantPools
from orchestrator.store import generations as generation_store
from orchestrator.store import snapshots as snapshot_store
from orchestrator.store import tables
from orchestrator.store.metadata import METADATA
from orchestrator.store.session import connect

BUILDER_LIMITS = ContainerLimits(memory_bytes=1 << 30, cpus=2.0, pids=64)
ACTOR = system("tests")
_numbers = itertools.count(1)


@dataclass
class MemoryDrafts:
    """Drafts without a differ: what it was asked, and answers set by the test."""

    rows: int = 0
    failure: Exception | None = None
    carried: CarriedDraft = field(default_factory=lambda: CarriedDraft(True, 0, ""))
    saved: list[tuple[str, str | None]] = field(default_factory=list)

    def save(self, tenant: Tenant, generation: Generation, *, draft_id: str | None, reason: str) -> SavedDraft | None:
        self.saved.append((generation.id, draft_id))
        if self.failure is not None:
            raise self.failure
        return SavedDraft(draft_id or "c-draft", self.rows) if self.rows else None

    def carry(self, tenant: Tenant, draft_id: str) -> CarriedDraft:
        return self.carried


@dataclass
class DataPlane:
    """Everything a refresh touches, real. Close it with `clean_up`."""

    engine: ContainerEngine
    store: Engine
    volume: Volume
    places: Places
    instance: str
    servers: PostgresServers
    generations: Generations
    pools: TenantPools
    limits: DatabaseLimits
    drafts: MemoryDrafts = field(default_factory=MemoryDrafts)
    tenants: dict[str, Tenant] = field(default_factory=dict)

    def flow(self, at: Callable[[str], None] = lambda _: None) -> RefreshFlow:
        return RefreshFlow(
            store=self.store,
            audit=FileAuditLog(self.places.audit, self.places.secrets / "audit.key"),
            generations=self.generations,
            pools=self.pools,
            drafts=self.drafts,
            reload=self.tenants.__getitem__,
            limits=lambda _: self.limits,
            at=at,
        )

    def recovery(self) -> RefreshRecovery:
        return RefreshRecovery(
            store=self.store,
            generations=self.generations,
            pools=self.pools,
            drafts=self.drafts,
            reload=self.tenants.__getitem__,
            limits=lambda _: self.limits,
        )

    def change(self, tenant: Tenant, **values: Any) -> Tenant:
        self.tenants[tenant.id] = dataclasses.replace(tenant, **values)
        return self.tenants[tenant.id]

    def take_snapshot(self, *statements: str, profile: str = "full", load: Callable[[str], None] | None = None) -> str:
        """A snapshot whose database `app` was made by `statements`, run as a superuser, then owned by the tenant."""
        snapshot_id = new_id("s")
        builder = self._builder(snapshot_id, ServerKind.BUILDER)
        self.servers.create(builder)
        self.servers.start(builder, timeout_s=60)
        with self._superuser(builder, "postgres") as connection:
            prepare_roles(connection)
            connection.execute(f"CREATE DATABASE {APP_DATABASE}")
        with self._superuser(builder, APP_DATABASE) as connection:
            close_to_public(connection)
            for statement in statements:
                connection.execute(statement.encode())
        if load is not None:
            load(self.servers.dsn(builder.sockets, database=APP_DATABASE))
        with self._superuser(builder, APP_DATABASE) as connection:
            self._finish(connection, snapshot_id)
        self.servers.stop(builder.name)
        self.servers.remove(builder.name)
        sealed = self._builder(snapshot_id, ServerKind.SEAL)
        self.servers.start(sealed, timeout_s=60)
        self.servers.stop(sealed.name)
        self.servers.remove(sealed.name)
        for name in ("postmaster.opts", "postmaster.pid"):
            (sealed.data / name).unlink(missing_ok=True)
        files, size_bytes = tree_size(sealed.data)
        self._record(snapshot_id, profile, files, size_bytes)
        return snapshot_id

    def launch(self, snapshot_id: str, **values: Any) -> Tenant:
        """A running tenant: a live generation of `snapshot_id`, the link, a pool."""
        number = next(_numbers)
        tenant = Tenant(
            id=new_id("t"),
            name=f"tenant-{number}",
            number=number,
            profile="standard",
            image="",
            state=TenantState.RUNNING,
            scope=None,
            snapshot_profile="full",
            refresh_policy=RefreshPolicy.DISCARD,
            pool_mode=PoolMode.TRANSACTION,
            created_at=datetime.now(UTC),
        )
        tenant = dataclasses.replace(tenant, **values)
        self.tenants[tenant.id] = tenant
        generation_id = new_id("g")
        now = datetime.now(UTC)
        with self.store.begin() as connection:
            snapshot = snapshot_store.get(connection, snapshot_id)
            generation_store.add(connection, generation_id, tenant.id, snapshot_id, now=now)
        self.generations.create(tenant, snapshot, generation_id, self.limits)
        self.pools.point(tenant.id, generation_id)
        self.pools.start(tenant, self.limits)
        with self.store.begin() as connection:
            generation_store.set_state(connection, generation_id, GenerationState.LIVE, now=now)
        return tenant

    def dsn(self, tenant: Tenant) -> str:
        """How the tenant's sandbox reaches its database."""
        return psycopg.conninfo.make_conninfo(
            host=str(self.places.pool_sockets(tenant.id)),
            user=self.pools.spec(tenant, self.limits).role,
            dbname=APP_DATABASE,
            password=self.pools.password(tenant),
            connect_timeout=30,
        )

    def live(self, tenant: Tenant) -> Generation:
        with self.store.connect() as connection:
            found = generation_store.live(connection, tenant.id)
        assert found is not None
        return found

    def present(self, tenant: Tenant) -> dict[str, str]:
        """Generations with files, by id: their state."""
        with self.store.connect() as connection:
            return {one.id: one.state.value for one in generation_store.listed(connection, tenant_id=tenant.id)}

    def databases(self, tenant: Tenant) -> dict[str, bool]:
        """The tenant's database containers by generation: whether each runs."""
        found = self.engine.containers(tenant_id=tenant.id)
        return {one.generation_id: one.running for one in found if one.role == "database"}

    def clean_up(self) -> None:
        for container in self.engine.containers():
            if container.name.startswith(f"{self.instance}-"):
                self.engine.remove(container.name)
        self.store.dispose()

    def _builder(self, snapshot_id: str, kind: str) -> ServerSpec:
        return ServerSpec(
            name=f"{self.instance}-build-{snapshot_id}",
            data=self.places.snapshot(snapshot_id) / "data",
            sockets=self.places.server_sockets(f"b{snapshot_id}"),
            uid=SERVICE_UID,
            limits=BUILDER_LIMITS,
            kind=kind,
        )

    @contextmanager
    def _superuser(self, spec: ServerSpec, database: str) -> Iterator[psycopg.Connection[Any]]:
        with psycopg.connect(self.servers.dsn(spec.sockets, database=database), autocommit=True) as connection:
            yield connection

    def _finish(self, connection: psycopg.Connection[Any], snapshot_id: str) -> None:
        connection.execute(f"CREATE SCHEMA {INFO_SCHEMA}".encode())
        connection.execute(f"CREATE TABLE {INFO_SCHEMA}.info (snapshot_id text)".encode())
        connection.execute(f"INSERT INTO {INFO_SCHEMA}.info VALUES (%s)".encode(), (snapshot_id,))
        connection.execute(f"ALTER SCHEMA public OWNER TO {PREPARED_ROLE}")
        for kind, name in connection.execute(
            "SELECT CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, relname FROM pg_class"
            " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'S')"
            " AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = pg_class.oid AND d.deptype IN ('a', 'i'))"
        ).fetchall():
            connection.execute(
                sql.SQL("ALTER {} {} OWNER TO {}").format(
                    sql.SQL(kind), sql.Identifier("public", name), sql.Identifier(PREPARED_ROLE)
                )
            )
        connection.execute("VACUUM (FREEZE, ANALYZE)")
        connection.execute("CHECKPOINT")

    def _record(self, snapshot_id: str, profile: str, files: int, size_bytes: int) -> None:
        now = datetime.now(UTC)
        manifest = Manifest(
            snapshot_id=snapshot_id,
            profile=profile,
            source="test data",
            taken_at=now,
            server_version="18",
            major=18,
            encoding="UTF8",
            collation="C.UTF-8",
            origin_lsn="0/0",
            system_id="0",
            files=files,
            size_bytes=size_bytes,
            tables={},
            masked={},
            canaries=0,
            checksummed_blocks=0,
        )
        with self.store.begin() as connection:
            snapshot_store.add(connection, snapshot_id, profile=profile, source="test data", image="", now=now)
            snapshot_store.set_ready(connection, snapshot_id, manifest, now=now)


def data_plane(
    engine: ContainerEngine,
    volume: Volume,
    *,
    store_url: str,
    directory: Path,
    postgres_image: str,
    pool_image: str,
    limits: DatabaseLimits | None = None,
    instance: str = "",
) -> DataPlane:
    """With `instance` it is the data plane somebody made before: the same tables, directory and container names."""
    store = connect(store_url)
    assert tables  # every one of them is in the metadata
    if not instance:
        METADATA.create_all(store)
    places = Places(directory)
    instance = instance or f"r{secrets.token_hex(3)}"
    servers = PostgresServers(engine, Binaries(postgres_image))
    return DataPlane(
        engine=engine,
        store=store,
        volume=volume,
        places=places,
        instance=instance,
        servers=servers,
        generations=Generations(servers, PostgresRoles(servers), volume, places, instance),
        # Patient: on a busy machine a short transaction may take long, and none may be ended for that.
        pools=TenantPools(PgBouncerPools(engine), servers, places, instance, pool_image, patience_s=60.0),
        limits=limits or DatabaseLimits(),
    )


@dataclass
class Writers:
    """Clients that write through a tenant's pool until stopped, and what became of every transaction."""

    dsn: str
    count: int
    statement: str
    done: int = 0
    waits_s: list[tuple[float, float]] = field(default_factory=list)  # when it ended, how long it took
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Writers:
        self._threads = [threading.Thread(target=self._write, args=(n,), daemon=True) for n in range(self.count)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(120)

    def _write(self, number: int) -> None:
        waits: list[tuple[float, float]] = []
        done = 0
        try:
            with psycopg.connect(self.dsn, autocommit=True) as connection:
                while not self._stop.is_set():
                    began = time.monotonic()
                    connection.execute(self.statement.encode(), {"writer": number, "turn": done})
                    ended = time.monotonic()
                    waits.append((ended, ended - began))
                    done += 1
                    with self._lock:
                        self.done += 1
        except psycopg.Error as error:
            with self._lock:
                self.failures.append(f"{type(error).__name__}: {error}")
        with self._lock:
            self.waits_s += waits
