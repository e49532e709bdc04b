"""Reading a mirror over the network, by password; and errors that never quote rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from orchestrator.core.ports.engine import ContainerLimits, NetworkSpec
from orchestrator.core.ports.servers import ServerKind, ServerSpec
from orchestrator.core.ports.snapshots import Source, SourceRefused, SourceUnreachable
from orchestrator.drivers.docker.engine import DockerEngine
from orchestrator.drivers.postgres.snapshot_facts import told, without_values
from orchestrator.drivers.postgres.snapshot_source import SourceReader, dump_path
from orchestrator.drivers.postgres.tools import Binaries
from orchestrator.parts.generation import SERVICE_UID
from tests.support.cluster import Cluster, running_cluster
from tests.support.engine import SessionImages

SUBNET, GATEWAY, OURS = "10.209.77.0/28", "10.209.77.1", "10.209.77.5"


@pytest.fixture
def network(engine: DockerEngine) -> Iterator[NetworkSpec]:
    made = NetworkSpec(name=f"{engine.instance}-source", subnet=SUBNET, gateway=GATEWAY, internal=False)
    engine.ensure_network(made)
    yield made
    engine.remove_network(made.name)


@pytest.fixture
def mirror(network: NetworkSpec) -> Iterator[Cluster]:
    """A server on this host's address in the network, which wants a password."""
    with running_cluster(listen_addresses=GATEWAY, password_encryption="scram-sha-256") as running:
        with (running.directory / "d/pg_hba.conf").open("a") as access:
            access.write("host all all 0.0.0.0/0 scram-sha-256\n")
        with psycopg.connect(running.dsn("postgres"), autocommit=True) as connection:
            connection.execute(
                "CREATE ROLE far LOGIN PASSWORD 'a:b'; CREATE TABLE public.t AS SELECT generate_series(1, 50) AS n;"
                'GRANT SELECT ON public.t TO far; ALTER DATABASE postgres SET search_path = public, "Odd one";'
                "ALTER DATABASE postgres SET app.token = 'secret'; SELECT pg_reload_conf()"
            )
        yield running


@pytest.mark.engine
def test_a_mirror_is_read_over_the_network(
    engine: DockerEngine, images: SessionImages, network: NetworkSpec, mirror: Cluster, volume_dir: Path
) -> None:
    spec = ServerSpec(
        name=f"{engine.instance}-far",
        data=volume_dir / "b/data",
        sockets=volume_dir / "s",
        uid=SERVICE_UID,
        limits=ContainerLimits(memory_bytes=256 << 20, cpus=1.0, pids=32),
        kind=ServerKind.BUILDER,
    )
    reader = SourceReader(engine, Binaries(images.postgres), network=network, network_address=OURS)
    source = Source("far", dsn=f"host={GATEWAY} port={mirror.port} user=far dbname=postgres", password="a:b")
    facts = reader.inspect(spec, source)
    assert facts.settings == (("search_path", 'public, "Odd one"'),)
    dumped = reader.dump(spec, source, facts, lambda *_: None)
    assert dumped.rows == {"public.t": 50}
    assert (dump_path(spec) / "d/toc.dat").is_file()
    assert not (spec.data.parent / "source.pgpass").exists()
    with pytest.raises(SourceRefused):
        reader.inspect(spec, replace(source, password="wrong"))
    with pytest.raises(SourceUnreachable):
        reader.inspect(spec, replace(source, dsn=f"host={GATEWAY} port=1 user=far dbname=postgres"))
    unconfigured = SourceReader(engine, Binaries(images.postgres))
    with pytest.raises(SourceUnreachable, match="no network"):
        unconfigured.dump(spec, source, facts, lambda *_: None)


def test_errors_are_told_without_the_rows_they_quote(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE people (email text PRIMARY KEY); INSERT INTO people VALUES ('anna@clear.example')"
        )
        statements = (
            "INSERT INTO people VALUES ('anna@clear.example')",
            "SELECT 'anna@clear.example'::int",
            "SELECT email::date FROM people",
        )
        for statement in statements:
            with pytest.raises(psycopg.Error) as caught:
                connection.execute(statement.encode())
            assert "anna" in str(caught.value) and "anna" not in told(caught.value)
    assert without_values('ERROR: bad\nCONTEXT:  COPY people, line 1: "anna"\nDETAIL:  anna') == "ERROR: bad"
