"""A production and a control database of the company's own: told apart by what is wrong, before anything fails."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from psycopg import conninfo, sql

from orchestrator import config
from orchestrator.config import PROJECT, InvalidConfiguration, Settings
from orchestrator.core.ports.production import ProductionRefuses, ProductionUnreachable
from orchestrator.demo import hotels
from orchestrator.drivers.postgres.apply.production import PostgresProduction
from orchestrator.setup.steps import CheckResult
from orchestrator.store.opening import ControlDatabaseRefused, ControlDatabaseUnreachable, migrate_when_ready
from orchestrator.store.session import connect
from orchestrator.wiring.databases import control_results, mirror_results
from orchestrator.wiring.demo import ProductionIsReal, refuse_real
from orchestrator.wiring.probing import targets
from tests.support.cluster import Cluster, free_port, running_cluster

pytestmark = pytest.mark.server
PASSWORD = "hush: 'quoted' @%/"
ROLES = PROJECT / "configs/production-roles.sql"


@pytest.fixture(scope="module")
def company() -> Iterator[Cluster]:
    """A server that asks for passwords on TCP, with the demo's rows as the company's own."""
    port = free_port()
    with running_cluster(listen_addresses="127.0.0.1", port=str(port)) as running:
        hotels.generate(running.dsn("postgres"), reader_password=PASSWORD, promoter_password=PASSWORD)
        access = running.directory / "d/pg_hba.conf"
        access.write_text("local all all trust\nhost all all all scram-sha-256\n")
        with psycopg.connect(running.dsn("postgres"), autocommit=True) as connection:
            connection.execute("SELECT pg_reload_conf()")
            connection.execute("CREATE DATABASE control")
            connection.execute("CREATE DATABASE bare")
            for name in ("keeper", "guest"):
                connection.execute(
                    sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(name), sql.Literal("pass"))
                )
            connection.execute("ALTER DATABASE control OWNER TO keeper")
        _until_passwords_are_asked_for(port)
        yield running


def _until_passwords_are_asked_for(port: int) -> None:
    for _ in range(600):
        try:
            psycopg.connect(f"host=127.0.0.1 port={port} user=keeper password=wrong dbname=control").close()
        except psycopg.OperationalError:
            return
        time.sleep(0.05)
    raise AssertionError("the server never asked for a password")


def settings(tmp_path: Path, environment: dict[str, str] | None = None, **sections: Any) -> Settings:
    directory = tmp_path / "configs"
    shutil.copytree(PROJECT / "configs", directory, dirs_exist_ok=True)
    shutil.copytree(PROJECT / "cron", tmp_path / "cron", dirs_exist_ok=True)
    (directory / "orchestrator.yaml").write_text(yaml.safe_dump(sections))
    return config.load(directory, environment=environment or {})


def mirrored(tmp_path: Path, company: Cluster, **mirror: str) -> Settings:
    file = tmp_path / "mirror.password"
    file.write_text(PASSWORD + "\n")
    dsn = f"host=127.0.0.1 port={company.port} user=mirror_reader dbname=hotels"
    return settings(tmp_path, production={"mirror": {"dsn": dsn, "password_file": str(file), **mirror}})


def only(results: list[CheckResult]) -> CheckResult:
    assert len(results) == 1, results
    return results[0]


def test_doctor_finds_a_mirror_in_order(tmp_path: Path, company: Cluster) -> None:
    found = only(mirror_results(mirrored(tmp_path, company)))
    assert found.ok and "17 tables" in found.note


def test_the_password_may_come_from_the_environment(tmp_path: Path, company: Cluster) -> None:
    made = settings(
        tmp_path,
        {"ORCHESTRATOR_PRODUCTION__MIRROR__PASSWORD": PASSWORD},
        production={"mirror": {"dsn": f"host=127.0.0.1 port={company.port} user=mirror_reader dbname=hotels"}},
    )
    assert only(mirror_results(made)).ok
    assert PASSWORD not in repr(made) and PASSWORD not in made.model_dump_json()


@pytest.mark.parametrize("key", ["mirror", "primary"])
def test_no_password_stands_in_the_file(tmp_path: Path, key: str) -> None:
    for section in ({"password": "hush"}, {"dsn": "host=db password=hush"}, {"dsn": "postgresql://a:hush@db/x"}):
        with pytest.raises(InvalidConfiguration, match="password_file") as refused:
            settings(tmp_path, production={key: section})
        assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "cause", "cure"),
    [
        ({"dbname": "elsewhere"}, "no such database", "dbname"),
        ({"user": "guest"}, "refuses the read-only credential", "password_file"),
        ({"port": "1"}, "does not answer", "address"),
    ],
)
def test_doctor_says_what_is_wrong_with_a_mirror(
    tmp_path: Path, company: Cluster, change: dict[str, str], cause: str, cure: str
) -> None:
    asked = {"host": "127.0.0.1", "port": str(company.port), "user": "mirror_reader", "dbname": "hotels", **change}
    found = only(mirror_results(mirrored(tmp_path, company, dsn=conninfo.make_conninfo("", **asked))))
    assert not found.ok and cause in found.cause and cure in found.cure
    assert "hush" not in str(found)


def test_doctor_says_what_a_mirror_lacks_and_what_it_has_too_much(tmp_path: Path, company: Cluster) -> None:
    with psycopg.connect(company.dsn("hotels"), autocommit=True) as connection:
        connection.execute("CREATE TABLE hotel.fresh (id int PRIMARY KEY, secret text)")
        try:
            unreadable = only(mirror_results(mirrored(tmp_path, company)))
            assert "may not read 1 table(s): hotel.fresh" in unreadable.cause and "GRANT" in unreadable.cure
            connection.execute("GRANT SELECT, INSERT ON hotel.fresh TO mirror_reader")
            unclassified = only(mirror_results(mirrored(tmp_path, company)))
            assert "hotel.fresh.secret" in unclassified.cause and "masking.yaml" in unclassified.cure
        finally:
            connection.execute("DROP TABLE hotel.fresh")
        connection.execute("GRANT INSERT ON hotel.reviews TO mirror_reader")
        found = mirror_results(mirrored(tmp_path, company))
        connection.execute("REVOKE INSERT ON hotel.reviews FROM mirror_reader")
    assert [one.ok for one in found] == [True, True] and "it can write hotel.reviews" in found[1].note


def test_the_roles_we_advise_are_enough(tmp_path: Path, company: Cluster) -> None:
    """Read as psql reads them, on a schema of its own."""
    text = ROLES.read_text().replace(':"schema"', "shop").replace(':"database"', "bare")
    statements = "\n".join(line for line in text.splitlines() if not line.startswith("--"))
    with psycopg.connect(company.dsn("bare"), autocommit=True) as connection:
        connection.execute("CREATE SCHEMA shop; CREATE TABLE shop.orders (id serial PRIMARY KEY, note text)")
        for statement in statements.replace("\\gexec", ";").split(";"):
            if statement.strip():
                for (wanted,) in connection.execute(statement.encode()) if "SELECT '" in statement else ():
                    connection.execute(wanted)
                if "SELECT '" not in statement:
                    connection.execute(statement.encode())
        connection.execute("CREATE TABLE shop.later (id int PRIMARY KEY)")
    masking = {"tables": {"shop.orders": {"keep": ["id", "note"]}, "shop.later": {"keep": ["id"]}}}
    made = mirrored(tmp_path, company, dsn=f"host=127.0.0.1 port={company.port} user=mirror_reader dbname=bare")
    made.file("masking").write_text(yaml.safe_dump(masking))
    found = only(mirror_results(made))
    assert found.ok and "2 tables" in found.note


@pytest.mark.parametrize(
    ("account", "database", "cause"),
    [
        ("keeper:wrong", "control", "password is wrong"),
        ("keeper:pass", "nowhere", "no such database"),
        ("guest:pass", "bare", "may not make tables"),
    ],
)
def test_a_control_database_that_refuses_us_says_why(
    tmp_path: Path, company: Cluster, account: str, database: str, cause: str
) -> None:
    made = settings(tmp_path, control={"dsn": f"postgresql://{account}@127.0.0.1:{company.port}/{database}"})
    found = only(control_results(made))
    assert not found.ok and cause in found.cause and found.cure
    store = connect(made.control_url())
    with pytest.raises(ControlDatabaseRefused, match=cause):
        migrate_when_ready(store, patience_s=0.0)
    store.dispose()


@pytest.mark.parametrize(
    ("dsn", "failure", "why"),
    [
        ("user=guest dbname=hotels password=wrong", ProductionRefuses, "password is wrong"),
        ("user=guest dbname=nowhere password=pass", ProductionRefuses, "no such database"),
        ("user=guest dbname=hotels port=1", ProductionUnreachable, "does not answer"),
    ],
)
def test_a_production_that_refuses_the_promote_credential_says_why(
    company: Cluster, dsn: str, failure: type[ProductionUnreachable], why: str
) -> None:
    port = "" if "port=" in dsn else f"port={company.port}"
    at = f"host=127.0.0.1 {port} {dsn}"
    with pytest.raises(failure, match=why) as refused:
        PostgresProduction(at).check_credential([])
    assert type(refused.value) is failure and "guest" not in str(refused.value) and refused.value.next_step


def test_a_control_database_that_is_away_and_one_in_order(tmp_path: Path, company: Cluster) -> None:
    away = connect(settings(tmp_path, control={"dsn": "postgresql://keeper@127.0.0.1:1/control"}).control_url())
    with pytest.raises(ControlDatabaseUnreachable, match="does not answer"):
        migrate_when_ready(away, patience_s=0.0)
    away.dispose()
    ours = settings(tmp_path, control={"dsn": f"postgresql://keeper:pass@127.0.0.1:{company.port}/control"})
    assert only(control_results(ours)).ok
    store = connect(ours.control_url())
    migrate_when_ready(store, patience_s=0.0)
    store.dispose()
    assert control_results(settings(tmp_path)) == [] and mirror_results(settings(tmp_path)) == []


def test_the_demo_is_not_mixed_with_a_real_production(tmp_path: Path, company: Cluster) -> None:
    refuse_real(settings(tmp_path))
    with pytest.raises(ProductionIsReal) as refused:
        refuse_real(mirrored(tmp_path, company))
    assert "tenant launch" in refused.value.next_step


def test_probes_seek_a_loopback_server_where_this_host_might_answer(tmp_path: Path) -> None:
    """Inside a sandbox 127.0.0.1 is the sandbox itself: nothing answering there would prove nothing."""
    made = settings(
        tmp_path,
        production={"mirror": {"dsn": "host=localhost port=7001 user=r"}, "primary": {"dsn": "host=/run/pg user=p"}},
        control={"dsn": "postgresql://c@db.example/control"},
    )
    found = targets(made)
    assert (made.networks.edge_gateway, 7001) in found.production
    assert not [host for host, _ in found.production if host.startswith("127.0.0.") or host == "localhost"]
    assert "/run/pg" in found.production_paths
    assert found.control == (("db.example", 5432),)
