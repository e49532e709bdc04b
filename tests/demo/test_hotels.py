"""Harbour Hotels is the same everywhere, uses what real schemas use, and is masked by the file we ship."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
import yaml

from orchestrator.core.changeset.shape import TableName
from orchestrator.core.masking.plan import plan
from orchestrator.core.masking.rules import parse
from orchestrator.core.ports.snapshots import Source
from orchestrator.core.promotion.rules import parse_rules
from orchestrator.demo import hotels
from orchestrator.drivers.postgres.apply.production import PostgresProduction
from orchestrator.drivers.postgres.snapshot_facts import columns
from tests.support.cluster import Cluster, free_port, running_cluster
from tests.support.snapshot import SnapshotRig

pytestmark = pytest.mark.engine
MASKING = Path(__file__).parents[2] / "configs/masking.yaml"
PROMOTION = MASKING.with_name("promotion.yaml")


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    with running_cluster(listen_addresses="127.0.0.1", port=str(free_port())) as running:
        hotels.generate(running.dsn("postgres"), reader_password="r", promoter_password="p")
        yield running


def test_it_is_large_and_the_same_every_time(server: Cluster) -> None:
    assert hotels.is_present(server.dsn("postgres"))
    with psycopg.connect(server.dsn(hotels.DATABASE)) as connection:
        connection.execute("ANALYZE; SET TimeZone = 'UTC'")
        tables, rows = connection.execute(
            "SELECT count(*) FILTER (WHERE NOT relispartition), sum(reltuples) FILTER (WHERE relkind = 'r')"
            " FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'hotel'::regnamespace"
        ).fetchone() or (0, 0)
        assert tables >= 12 and rows >= 300_000
        digest = connection.execute(
            "SELECT md5(string_agg(r::text, '' ORDER BY id)) FROM hotel.reservations r WHERE id % 500 = 0"
        ).fetchone()
    assert digest == ("00a10159250352c08d3cd47f55185dd3",)


# What real schemas use, each as a question to the catalog about the schema `hotel`.
FEATURES = {
    "identity key": "SELECT 1 FROM a WHERE attidentity IN ('a', 'd')",
    "serial key": "SELECT 1 FROM pg_attrdef WHERE adrelid::regclass::text ~ '^hotel'"
    " AND pg_get_expr(adbin, adrelid) ~ 'nextval'",
    "composite key": "SELECT 1 FROM c WHERE contype = 'p' AND cardinality(conkey) > 1",
    "composite reference": "SELECT 1 FROM c WHERE contype = 'f' AND cardinality(conkey) > 1",
    "self-reference": "SELECT 1 FROM c WHERE contype = 'f' AND confrelid = conrelid",
    "enum": "SELECT 1 FROM pg_type WHERE typtype = 'e' AND typnamespace = 'hotel'::regnamespace",
    "domain": "SELECT 1 FROM pg_type WHERE typtype = 'd' AND typnamespace = 'hotel'::regnamespace",
    "check": "SELECT 1 FROM c WHERE contype = 'c'",
    "numeric money": "SELECT 1 FROM a WHERE atttypid = 'numeric'::regtype AND atttypmod > 0",
    "timestamptz": "SELECT 1 FROM a WHERE atttypid = 'timestamptz'::regtype",
    "jsonb": "SELECT 1 FROM a WHERE atttypid = 'jsonb'::regtype",
    "array": "SELECT 1 FROM a WHERE atttypid IN ('text[]'::regtype, 'smallint[]'::regtype)",
    "bytea": "SELECT 1 FROM a WHERE atttypid = 'bytea'::regtype",
    "generated column": "SELECT 1 FROM a WHERE attgenerated = 's'",
    "partitions": "SELECT 1 FROM pg_class WHERE relispartition AND relnamespace = 'hotel'::regnamespace",
    "view": "SELECT 1 FROM pg_class WHERE relkind = 'v' AND relnamespace = 'hotel'::regnamespace",
    "trigger": "SELECT 1 FROM pg_trigger WHERE NOT tgisinternal AND tgrelid::regclass::text ~ '^hotel'",
    "partial unique index": "SELECT 1 FROM pg_index WHERE indisunique AND indpred IS NOT NULL"
    " AND indrelid::regclass::text ~ '^hotel'",
    "exclusion on a range": "SELECT 1 FROM c WHERE contype = 'x'",
    "deferrable reference": "SELECT 1 FROM c WHERE contype = 'f' AND condeferrable AND condeferred",
}


@pytest.mark.parametrize("feature", FEATURES)
def test_it_uses_what_real_schemas_use(server: Cluster, feature: str) -> None:
    common = (
        "WITH c AS (SELECT * FROM pg_constraint WHERE connamespace = 'hotel'::regnamespace),"
        " a AS (SELECT pg_attribute.* FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid"
        " WHERE relnamespace = 'hotel'::regnamespace AND relkind IN ('r', 'p') AND attnum > 0) "
    )
    with psycopg.connect(server.dsn(hotels.DATABASE)) as connection:
        assert connection.execute((common + FEATURES[feature]).encode()).fetchone() == (1,)


def test_it_refuses_a_double_booking_and_keeps_history(server: Cluster) -> None:
    with psycopg.connect(server.dsn(hotels.DATABASE)) as connection:
        with pytest.raises(psycopg.errors.ExclusionViolation), connection.transaction():
            connection.execute(
                "INSERT INTO hotel.reservations"
                " (property_id, guest_id, room_id, status, arrival, departure, total_amount)"
                " SELECT property_id, guest_id, room_id, 'confirmed', arrival, departure, 1 FROM hotel.reservations"
                " WHERE status = 'confirmed' ORDER BY id LIMIT 1"
            )
        before = connection.execute("SELECT count(*) FROM hotel.reservation_history").fetchone()
        connection.execute(
            "UPDATE hotel.reservations SET status = 'cancelled'"
            " WHERE id = (SELECT min(id) FROM hotel.reservations WHERE status = 'confirmed')"
        )
        after = connection.execute("SELECT count(*) FROM hotel.reservation_history").fetchone()
        connection.rollback()
    assert before and after and after[0] == before[0] + 1


def test_two_credentials_apart(server: Cluster) -> None:
    with psycopg.connect(server.dsn(hotels.DATABASE, hotels.READER)) as connection:
        assert connection.execute("SELECT count(*) FROM hotel.properties").fetchone() == (3,)
        with pytest.raises(psycopg.Error):
            connection.execute("DELETE FROM hotel.reviews")
    with psycopg.connect(server.dsn(hotels.DATABASE, hotels.PROMOTER)) as connection:
        connection.execute("UPDATE hotel.reservations SET notes = 'x' WHERE id = 1")
        connection.execute("SELECT nextval('hotel.guests_id_seq')")
        for statement in ("DROP TABLE hotel.reviews", "DELETE FROM hotel.properties", "TRUNCATE hotel.reviews"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
                connection.execute(statement.encode())
        connection.rollback()
        connection.execute("SET LOCAL ROLE migrator")
        connection.execute("ALTER TABLE hotel.reviews ADD COLUMN answer text")
        connection.execute("CREATE TABLE hotel.answers (id int PRIMARY KEY)")
        connection.execute("SET LOCAL ROLE NONE")
        assert connection.execute("SELECT answer FROM hotel.reviews, hotel.answers").fetchall() == []
        connection.rollback()


def test_doctor_has_nothing_to_remark_about_the_promote_credential(server: Cluster) -> None:
    promotable = parse_rules(yaml.safe_load(PROMOTION.read_text())).promotable
    production = PostgresProduction(server.dsn(hotels.DATABASE, hotels.PROMOTER))
    assert len(promotable) >= 10
    assert [one.message for one in production.check_credential(promotable)] == []


def test_a_reference_is_indexed_by_what_leaves_out_nothing_but_nulls(server: Cluster) -> None:
    production = PostgresProduction(server.dsn(hotels.DATABASE, hotels.PROMOTER))
    guests = [TableName("hotel", "guests")]

    def remarks(predicate: str) -> list[str]:
        with psycopg.connect(server.dsn(hotels.DATABASE)) as connection:
            connection.execute("DROP INDEX hotel.guests_referred_by")
            connection.execute(f"CREATE INDEX guests_referred_by ON hotel.guests (referred_by) {predicate}".encode())
        return [one.code for one in production.check_credential(guests) if one.code == "unindexed"]

    assert remarks("WHERE vip") == ["unindexed"]
    assert remarks("") == []
    assert remarks("WHERE referred_by IS NOT NULL") == []


def test_the_shipped_masking_file_classifies_every_column_and_hides_people(server: Cluster) -> None:
    with psycopg.connect(server.dsn(hotels.DATABASE)) as connection:
        facts = columns(connection)
    made = plan(parse(yaml.safe_load(MASKING.read_text())), "full", facts)
    assert made.notes == ()
    assert {"hotel.guests.email", "hotel.guests.passport_number", "hotel.staff.salary"} <= set(made.methods)


def test_one_house_alone_is_a_snapshot(clinic_rig: SnapshotRig, server: Cluster) -> None:
    shipped = parse(yaml.safe_load(MASKING.read_text()))
    flow = replace(clinic_rig.flow, masking=lambda: shipped)
    # On this host's loopback, where no container gets to by itself.
    dsn = f"host=127.0.0.1 port={server.port} user={hotels.READER} dbname={hotels.DATABASE}"
    source = Source("the demo", dsn=dsn)
    taken = flow.take(source, profile="harbour")
    assert taken.manifest is not None
    kept = {name: report.kept_rows for name, report in taken.manifest.tables.items()}
    assert (kept["hotel.properties"], kept["hotel.rooms"]) == (1, 150)
    assert 30_000 < kept["hotel.reservations"] < 40_000
    with flow.generations.base(taken) as base, clinic_rig.reader(base) as connection:
        assert connection.execute("SELECT DISTINCT property_id FROM hotel.payments").fetchall() == [("harbour",)]
        assert connection.execute("SELECT DISTINCT property_id FROM hotel.monthly_revenue").fetchall() == [("harbour",)]
        emails = connection.execute(
            "SELECT count(*) FROM hotel.guests WHERE email NOT LIKE '%@masked.example'"
        ).fetchone()
    assert emails == (0,)
    flow.generations.remove_base(taken.id)
