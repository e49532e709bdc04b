"""A small production, and everything that takes snapshots of it: real servers in containers on the reflink volume."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import Engine

from orchestrator.core.generations import DatabaseLimits
from orchestrator.core.masking.rules import Masking, parse
from orchestrator.core.names import new_id
from orchestrator.core.places import Places
from orchestrator.core.ports.engine import ContainerLimits
from orchestrator.core.ports.servers import ServerKind, ServerSpec
from orchestrator.core.ports.snapshots import Source
from orchestrator.core.tenants import PoolMode, RefreshPolicy, Tenant, TenantState
from orchestrator.drivers.audit.log import FileAuditLog
from orchestrator.drivers.docker.engine import DockerEngine
from orchestrator.drivers.postgres.roles import PostgresRoles
from orchestrator.drivers.postgres.server import PostgresServers
from orchestrator.drivers.postgres.tools import Binaries
from orchestrator.drivers.postgres.workshop import PostgresWorkshop
from orchestrator.drivers.volume.trees import LocalVolume
from orchestrator.flows.snapshot import Snapshots
from orchestrator.parts.generation import SERVICE_UID, Generations
from orchestrator.store.metadata import METADATA
from orchestrator.store.session import connect
from tests.support.cluster import Cluster
from tests.support.engine import directory_on

PASSWORD = "mirror:secret\\with colon"
CLINIC = Path(__file__).parent / "clinic.sql"
MASKING: dict[str, Any] = {
    "tables": {
        "clinic.sites": {"keep": ["id", "name"]},
        "clinic.patients": {
            "keep": ["id", "site_id", "referred_by", "born_on"],
            "mask": {
                "name": {"method": "full_name", "by": "id"},
                "email": "email",
                "phone": "phone",
                "notes": "redact",
                "history": {"method": "json", "keys": ["allergies"]},
                "photo": "hash",
                "code": "hash",
            },
        },
        "clinic.visits": {
            "keep": ["id", "site_id", "patient_id", "kind", "seen_at"],
            "mask": {"fee": {"method": "noise", "percent": 10}, "reason": "redact", "left_at": "null"},
        },
        "clinic.letters": {"keep": ["id", "patient_code"], "mask": {"patient_code": "hash"}},
    },
    "profiles": {"north": {"filters": {"clinic.sites": "id = 'north'"}}},
}
MASKING["tables"]["clinic.letters"]["keep"].remove("patient_code")


@dataclass
class SnapshotRig:
    """A mirror, a control database and the flow. `masking` may be changed by a test; it is read at every run."""

    engine: DockerEngine
    volume: LocalVolume
    control: Engine
    places: Places
    servers: PostgresServers
    mirror: ServerSpec
    flow: Snapshots
    masking: dict[str, Any] = field(default_factory=dict)

    def parsed_masking(self) -> Masking:
        return parse(self.masking)

    @property
    def source(self) -> Source:
        dsn = psycopg.conninfo.make_conninfo(host=str(self.mirror.sockets), user="mirror_reader", dbname="clinic")
        return Source("the clinic's mirror", dsn=dsn, password=PASSWORD)

    def production(self) -> psycopg.Connection[Any]:
        """As superuser, autocommit."""
        return psycopg.connect(self.servers.dsn(self.mirror.sockets, database="clinic"), autocommit=True)

    def reader(self, spec: ServerSpec) -> psycopg.Connection[Any]:
        """The reader's read-only connection to a generation or base."""
        return psycopg.connect(self.servers.dsn(spec.sockets, user="reader", database="app"), autocommit=True)


def tenant(name: str, number: int, **values: Any) -> Tenant:
    """A tenant record for tests that need no launch."""
    made: dict[str, Any] = {
        "id": new_id("t"),
        "name": name,
        "number": number,
        "profile": "standard",
        "image": "",
        "state": TenantState.RUNNING,
        "scope": None,
        "snapshot_profile": "full",
        "refresh_policy": RefreshPolicy.SAVE,
        "pool_mode": PoolMode.TRANSACTION,
        "created_at": datetime.now(UTC),
        **values,
    }
    return Tenant(**made)


LIMITS = DatabaseLimits(memory_bytes=256 << 20, pids=40, connections=8)


@contextmanager
def snapshot_rig(
    engine: DockerEngine, postgres_image: str, volume: LocalVolume, cluster: Cluster
) -> Iterator[SnapshotRig]:
    """Start the mirror, fill it, and put the flow together; everything is removed afterwards."""
    with directory_on(volume) as var, cluster.database() as database:
        places = Places(var)
        control = connect(cluster.url(database))
        METADATA.create_all(control)
        binaries = Binaries(postgres_image)
        servers = PostgresServers(engine, binaries)
        instance = f"data{secrets.token_hex(3)}"
        mirror = ServerSpec(
            name=f"{instance}-mirror",
            data=places.server_data("mirror"),
            sockets=places.server_sockets("m"),
            uid=SERVICE_UID,
            limits=ContainerLimits(memory_bytes=512 << 20, cpus=2.0, pids=64),
            kind=ServerKind.PRODUCTION,
        )
        generations = Generations(servers, PostgresRoles(servers), volume, places, instance)
        rig = SnapshotRig(engine, volume, control, places, servers, mirror, None, dict(MASKING))  # type: ignore[arg-type]
        rig.flow = Snapshots(
            control=control,
            audit=FileAuditLog(places.audit, places.secrets / "audit.key"),
            workshop=PostgresWorkshop(engine, servers, binaries),
            volume=volume,
            places=places,
            generations=generations,
            instance=instance,
            masking=rig.parsed_masking,
            key=lambda: b"a key of the tests",
        )
        try:
            servers.create(mirror)
            servers.start(mirror, timeout_s=60)
            _fill(rig)
            yield rig
        finally:
            for container in engine.containers():
                if container.name.startswith(instance):
                    engine.remove(container.name)
            control.dispose()


def _fill(rig: SnapshotRig) -> None:
    with psycopg.connect(rig.servers.dsn(rig.mirror.sockets), autocommit=True) as connection:
        connection.execute("CREATE DATABASE clinic TEMPLATE template0")
    with rig.production() as connection:
        connection.execute(CLINIC.read_bytes())
        connection.execute("ALTER DATABASE clinic SET search_path = clinic, public")
        connection.execute(
            sql.SQL(
                "CREATE ROLE mirror_reader LOGIN PASSWORD {}; GRANT USAGE ON SCHEMA clinic TO mirror_reader;"
                "GRANT SELECT ON ALL TABLES IN SCHEMA clinic TO mirror_reader;"
                "GRANT SELECT ON ALL SEQUENCES IN SCHEMA clinic TO mirror_reader;"
                "ALTER DEFAULT PRIVILEGES IN SCHEMA clinic GRANT SELECT ON TABLES TO mirror_reader"
            ).format(sql.Literal(PASSWORD))
        )


@contextmanager
def acting_as(uid: int) -> Iterator[None]:
    """Connect as another user, as the pool's container does."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


def as_tenant(rig: SnapshotRig, spec: ServerSpec, *, uid: int | None = None, **values: Any) -> psycopg.Connection[Any]:
    arguments = {"user": spec.pool_role, "database": "app", **values}
    with acting_as(spec.pool_uid or 0 if uid is None else uid):
        return psycopg.connect(rig.servers.dsn(spec.sockets, **arguments), autocommit=True)
