"""A snapshot is masked down to its files, complete, frozen; whatever goes wrong, the last good one stays in force."""

from __future__ import annotations

import copy
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from orchestrator.core.masking.plan import Unclassified
from orchestrator.core.names import new_id
from orchestrator.core.places import Places
from orchestrator.core.ports.engine import Mount
from orchestrator.core.ports.servers import ServerFailed
from orchestrator.core.ports.snapshots import (
    ClearTextLeft,
    DumpDamaged,
    ReferencesBroken,
    Source,
    SourceRefused,
    SourceUnfit,
    SourceUnreachable,
)
from orchestrator.core.ports.volume import DiskFull
from orchestrator.core.snapshots import Snapshot, SnapshotState, SnapshotStep
from orchestrator.drivers.postgres.tools import Binaries, ToolRun, run_tool
from orchestrator.drivers.volume.trees import LocalVolume
from orchestrator.errors import OrchestratorError
from orchestrator.flows.snapshot import SnapshotBusy
from orchestrator.store import generations as generation_store
from orchestrator.store import snapshots as snapshot_store
from orchestrator.store.session import advisory_lock
from tests.support.engine import SessionImages
from tests.support.snapshot import MASKING, SnapshotRig

pytestmark = pytest.mark.engine
CLEAR_TEXT = ("Secretname", "SECRETNAME", "private.example", "Confidential finding", "Hidden diagnosis",
              "PATIENT-CODE", "PORTRAIT", "Secret reason", "+49 151")  # fmt: skip


def holding(root: Path, text: str) -> list[str]:
    """Files below `root` that hold `text`."""
    found = subprocess.run(["grep", "-rlaF", "--", text, "."], cwd=root, capture_output=True, text=True, check=False)
    assert found.returncode in (0, 1), found.stderr
    return found.stdout.split()


def assert_nothing_left(rig: SnapshotRig, snapshot_id: str) -> None:
    assert [one.name for one in rig.engine.containers() if snapshot_id in one.name] == []
    assert not rig.places.building(snapshot_id).exists()
    assert not rig.places.server_sockets(f"k-{snapshot_id}").exists()


def take_failing(rig: SnapshotRig, error: type[OrchestratorError], step: SnapshotStep, **values: Any) -> Any:
    """Take a snapshot that must fail with `error` at `step`, leaving nothing but its record; returns the error."""
    before = rig.flow.newest("full")
    source = values.pop("source", rig.source)
    with pytest.raises(error) as caught:
        rig.flow.take(source, **values)
    record = rig.flow.listed()[0]
    assert (record.state, record.step, record.error_code) == (SnapshotState.FAILED, step, caught.value.code)
    assert record.error_message and record.finished_at
    assert_nothing_left(rig, record.id)
    assert not rig.places.snapshot(record.id).exists()
    assert rig.flow.newest("full") == before
    return caught.value


@contextmanager
def production(rig: SnapshotRig, before: str, after: str) -> Iterator[None]:
    """Run `before` on production, and `after` at the end."""
    with rig.production() as connection:
        connection.execute(before.encode())
    try:
        yield
    finally:
        with rig.production() as connection:
            connection.execute(after.encode())


@contextmanager
def masking(rig: SnapshotRig, table: str, **rules: Any) -> Iterator[None]:
    rig.masking = copy.deepcopy(MASKING)
    rig.masking["tables"][table] = rules
    try:
        yield
    finally:
        rig.masking = MASKING


@pytest.fixture(scope="module")
def dump(clinic_rig: SnapshotRig, images: SessionImages) -> Path:
    """The clinic as a custom-format dump file; beside it the same as a directory."""
    rig = clinic_rig
    folder = rig.places.var / "given"
    folder.mkdir()
    folder.chmod(0o777)
    for form, name in (("custom", "clinic.dump"), ("directory", "clinic.directory")):
        run_tool(
            rig.engine,
            Binaries(images.postgres),
            ToolRun(
                name=f"{rig.flow.instance}-given",
                program="pg_dump",
                arguments=(
                    f"--format={form}",
                    f"--file=/given/{name}",
                    "--dbname=host=/s user=mirror_reader dbname=clinic",
                ),
                uid=rig.mirror.uid,
                mounts=(Mount(folder, "/given"), Mount(rig.mirror.sockets, "/s")),
                environment={"PGPASSWORD": "mirror:secret\\with colon"},
            ),
        )
    return folder / "clinic.dump"


def test_a_snapshot_holds_every_row_and_says_what_it_is(clinic_rig: SnapshotRig, clinic_snapshot: Snapshot) -> None:
    manifest = clinic_snapshot.manifest
    assert manifest is not None and clinic_snapshot.state is SnapshotState.READY
    assert {name: report.kept_rows for name, report in manifest.tables.items()} == {
        "clinic.letters": 500,
        "clinic.patients": 3000,
        "clinic.sites": 2,
        "clinic.visits": 3000,
    }
    assert all(report.source_rows == report.kept_rows for report in manifest.tables.values())
    assert manifest.masked["clinic.patients.email"] == "email" and "clinic.patients.id" not in manifest.masked
    assert manifest.canaries > 100 and manifest.checksummed_blocks > 1000 and manifest.major == 18
    assert clinic_rig.flow.newest("full") == clinic_snapshot
    assert_nothing_left(clinic_rig, clinic_snapshot.id)


def test_no_clear_text_is_left_in_any_file(clinic_rig: SnapshotRig, clinic_snapshot: Snapshot) -> None:
    root = clinic_rig.places.snapshot(clinic_snapshot.id)
    assert [text for text in CLEAR_TEXT if holding(root, text)] == []
    assert holding(root, "North clinic"), "the search must be able to find what is kept"


def test_its_wal_is_one_short_segment(clinic_rig: SnapshotRig, clinic_snapshot: Snapshot) -> None:
    wal = clinic_rig.places.snapshot(clinic_snapshot.id) / "data/pg_wal"
    assert len([path for path in wal.iterdir() if path.is_file()]) == 1


def test_it_cannot_be_changed_any_more(clinic_rig: SnapshotRig, clinic_snapshot: Snapshot) -> None:
    for name in ("data/PG_VERSION", "manifest.json"):
        with pytest.raises(PermissionError):
            (clinic_rig.places.snapshot(clinic_snapshot.id) / name).write_text("x")


@pytest.mark.parametrize("name", ["clinic.dump", "clinic.directory"])
def test_a_dump_and_a_profile_give_a_filtered_snapshot(clinic_rig: SnapshotRig, dump: Path, name: str) -> None:
    taken = clinic_rig.flow.take(Source("a dump", dump=dump.with_name(name)), profile="north")
    assert taken.manifest is not None
    rows = {name: (report.restored_rows, report.kept_rows) for name, report in taken.manifest.tables.items()}
    assert rows == {
        "clinic.letters": (500, 334),
        "clinic.patients": (3000, 2000),
        "clinic.sites": (2, 1),
        "clinic.visits": (3000, 2000),
    }
    root = clinic_rig.places.snapshot(taken.id)
    assert [text for text in (*CLEAR_TEXT, "South clinic") if holding(root, text)] == []
    assert clinic_rig.flow.newest("north") == taken
    with clinic_rig.flow.generations.base(taken) as base, clinic_rig.reader(base) as connection:
        orphans = connection.execute(
            "SELECT count(*) FROM clinic.patients p WHERE referred_by IS NOT NULL"
            " AND NOT EXISTS (SELECT FROM clinic.patients r WHERE r.id = p.referred_by)"
        ).fetchone()
        joined = connection.execute(
            "SELECT count(*) FROM clinic.letters JOIN clinic.patients ON code = patient_code"
        ).fetchone()
    assert (orphans, joined) == ((0,), (334,))
    assert clinic_rig.flow.generations.remove_base(taken.id)


def test_a_dump_cut_off_half_way_is_refused(clinic_rig: SnapshotRig, clinic_snapshot: Snapshot, dump: Path) -> None:
    cut = dump.with_name("cut.dump")
    cut.write_bytes(dump.read_bytes()[: dump.stat().st_size // 2])
    take_failing(clinic_rig, DumpDamaged, SnapshotStep.RESTORE, source=Source("half a dump", dump=cut))


@pytest.mark.parametrize(
    ("name", "content"), [("noise.dump", b"PGDMP" + os.urandom(500)), ("plain.sql", b"CREATE TABLE t (i int);")]
)
def test_a_file_that_is_no_dump_is_refused(
    clinic_rig: SnapshotRig, clinic_snapshot: Snapshot, dump: Path, name: str, content: bytes
) -> None:
    path = dump.with_name(name)
    path.write_bytes(content)
    take_failing(clinic_rig, DumpDamaged, SnapshotStep.INSPECT, source=Source("noise", dump=path))


def test_a_new_column_or_table_without_a_rule_stops_it_before_anything_is_read(
    clinic_rig: SnapshotRig, clinic_snapshot: Snapshot
) -> None:
    with production(
        clinic_rig,
        "ALTER TABLE clinic.sites ADD COLUMN door_code text",
        "ALTER TABLE clinic.sites DROP COLUMN door_code",
    ):
        error = take_failing(clinic_rig, Unclassified, SnapshotStep.INSPECT)
    assert error.fields["columns"] == ["clinic.sites.door_code"]
    with production(clinic_rig, "CREATE TABLE clinic.fines (id integer, due text)", "DROP TABLE clinic.fines"):
        error = take_failing(clinic_rig, Unclassified, SnapshotStep.INSPECT)
    assert set(error.fields["columns"]) == {"clinic.fines.id", "clinic.fines.due"}


def test_a_mirror_that_is_down_is_told_apart_from_a_refused_credential(
    clinic_rig: SnapshotRig, clinic_snapshot: Snapshot
) -> None:
    down = replace(clinic_rig.source, dsn="host=/nonexistent user=mirror_reader dbname=clinic")
    take_failing(clinic_rig, SourceUnreachable, SnapshotStep.INSPECT, source=down)
    with production(
        clinic_rig,
        "ALTER ROLE mirror_reader VALID UNTIL '2020-01-01'",
        "ALTER ROLE mirror_reader VALID UNTIL 'infinity'",
    ):
        take_failing(clinic_rig, SourceRefused, SnapshotStep.INSPECT)


def test_a_credential_that_may_not_read_a_table_is_refused_by_the_tables_name(
    clinic_rig: SnapshotRig, clinic_snapshot: Snapshot
) -> None:
    with production(
        clinic_rig,
        "REVOKE SELECT ON clinic.letters FROM mirror_reader",
        "GRANT SELECT ON clinic.letters TO mirror_reader",
    ):
        assert "clinic.letters" in str(take_failing(clinic_rig, SourceRefused, SnapshotStep.INSPECT))


def test_an_extension_the_image_lacks_is_named(clinic_rig: SnapshotRig, clinic_snapshot: Snapshot) -> None:
    allow = "SET allow_system_table_mods = on;"
    with production(
        clinic_rig,
        allow + "INSERT INTO pg_extension SELECT 99999, 'postgis', extowner, extnamespace, true, '3.5', NULL, NULL"
        " FROM pg_extension",
        allow + "DELETE FROM pg_extension WHERE extname = 'postgis'",
    ):
        error = take_failing(clinic_rig, SourceUnfit, SnapshotStep.INSPECT)
    assert error.fields["lacks"] == ["the extension postgis"]


def test_a_reference_masked_at_one_end_only_is_refused(clinic_rig: SnapshotRig, clinic_snapshot: Snapshot) -> None:
    with masking(clinic_rig, "clinic.letters", keep=["id", "patient_code"]):
        error = take_failing(clinic_rig, ReferencesBroken, SnapshotStep.MASK)
    assert "500 row(s) of clinic.letters" in str(error)


def test_a_kept_column_that_repeats_masked_text_is_found_in_the_files(
    clinic_rig: SnapshotRig, clinic_snapshot: Snapshot
) -> None:
    with (
        production(
            clinic_rig,
            "ALTER TABLE clinic.sites ADD COLUMN alias text; UPDATE clinic.sites SET alias = name",
            "ALTER TABLE clinic.sites DROP COLUMN alias",
        ),
        masking(clinic_rig, "clinic.sites", keep=["id", "alias"], mask={"name": "hash"}),
    ):
        error = take_failing(clinic_rig, ClearTextLeft, SnapshotStep.SEARCH)
    assert error.fields["files"]
    assert "North clinic" not in str(error)


def test_a_disk_that_fills_up_while_restoring_is_said_and_cleaned_up(
    clinic_rig: SnapshotRig, clinic_snapshot: Snapshot
) -> None:
    var = Path("/tmp") / f"full-{new_id('d')}"
    var.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m,mode=0755", "tmpfs", var], check=True)
    try:
        places = Places(var)
        places.disk.mkdir()
        volume = LocalVolume(places.disk)
        flow = replace(clinic_rig.flow, volume=volume, places=places)

        def fill(step: SnapshotStep, share: float, text: str) -> None:
            if step is SnapshotStep.RESTORE and share == 0.0 and not (var / "filler").exists():
                (var / "filler").write_bytes(bytes(max(0, volume.free_bytes() - (1 << 20))))

        take_failing(replace(clinic_rig, flow=flow, places=places), DiskFull, SnapshotStep.RESTORE, on_step=fill)
    finally:
        subprocess.run(["umount", "-l", var], check=True)
        var.rmdir()


def test_one_is_taken_at_a_time(clinic_rig: SnapshotRig, clinic_snapshot: Snapshot) -> None:
    with advisory_lock(clinic_rig.control, "snapshot") as taken:
        assert taken
        with pytest.raises(SnapshotBusy):
            clinic_rig.flow.take(clinic_rig.source)
        with pytest.raises(SnapshotBusy):
            clinic_rig.flow.prune()
        assert clinic_rig.flow.recover() == []


def test_what_a_killed_process_left_is_removed_and_its_record_closed(
    clinic_rig: SnapshotRig, clinic_snapshot: Snapshot
) -> None:
    rig, left = clinic_rig, new_id("s")
    with rig.control.begin() as connection:
        snapshot_store.add(connection, left, profile="full", source="x", image="", now=rig.flow.now())
    rig.flow.workshop.open(rig.flow.spec(left))
    assert rig.flow.recover() == [left]
    assert rig.flow.get(left).error_code == "outside_failure.interrupted"
    assert_nothing_left(rig, left)
    with pytest.raises(ServerFailed):
        rig.servers.start(rig.flow.spec(left))


def test_one_published_just_before_the_process_was_killed_counts(
    clinic_rig: SnapshotRig, clinic_snapshot: Snapshot
) -> None:
    rig, published = clinic_rig, new_id("s")
    with rig.control.begin() as connection:
        snapshot_store.add(connection, published, profile="odd", source="x", image="", now=rig.flow.now())
    folder = rig.places.snapshot(published)
    folder.mkdir()
    (folder / "manifest.json").write_text((rig.places.snapshot(clinic_snapshot.id) / "manifest.json").read_text())
    assert rig.flow.recover() == [published]
    assert rig.flow.get(published).state is SnapshotState.READY
    assert rig.flow.newest("odd") is not None


def test_directories_of_failed_and_removed_ones_go_and_unknown_ones_stay(
    clinic_rig: SnapshotRig, clinic_snapshot: Snapshot
) -> None:
    rig, failed, unknown = clinic_rig, new_id("s"), new_id("s")
    with rig.control.begin() as connection:
        snapshot_store.add(connection, failed, profile="odd", source="x", image="", now=rig.flow.now())
        snapshot_store.set_failed(connection, failed, code="c", message="m", now=rig.flow.now())
    for folder in (rig.places.building(failed), rig.places.snapshot(failed), rig.places.snapshot(unknown)):
        folder.mkdir(parents=True)
    assert rig.flow.recover() == [failed]
    assert not rig.places.building(failed).exists() and not rig.places.snapshot(failed).exists()
    assert rig.places.snapshot(unknown).exists()
    assert rig.flow.recover() == []


def test_pruning_keeps_the_newest_and_whatever_is_referred_to(
    clinic_rig: SnapshotRig, clinic_snapshot: Snapshot
) -> None:
    rig = clinic_rig
    assert clinic_snapshot.manifest is not None
    ids = [new_id("s") for _ in range(5)]
    for snapshot_id in ids:
        with rig.control.begin() as connection:
            snapshot_store.add(connection, snapshot_id, profile="many", source="x", image="", now=rig.flow.now())
            manifest = replace(clinic_snapshot.manifest, taken_at=rig.flow.now())
            snapshot_store.set_ready(connection, snapshot_id, manifest, now=rig.flow.now())
        rig.places.snapshot(snapshot_id).mkdir()
    with rig.control.begin() as connection:
        generation_store.add(connection, "g-holds", "t-holds", ids[0], now=rig.flow.now())
    flow = replace(rig.flow, references=(lambda _: {ids[1]},))
    assert flow.prune(keep=2) == [ids[2]]
    assert [rig.places.snapshot(one).exists() for one in ids] == [True, True, False, True, True]
    assert rig.flow.get(ids[2]).state is SnapshotState.REMOVED
    with rig.control.begin() as connection:
        connection.exec_driver_sql("DELETE FROM generations WHERE id = 'g-holds'")


def test_another_encoding_arrives_as_it_is(clinic_rig: SnapshotRig, clinic_snapshot: Snapshot) -> None:
    rig = clinic_rig
    with rig.production() as connection:
        connection.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    latin = rig.servers.dsn(rig.mirror.sockets, database="latin")
    with psycopg.connect(latin, autocommit=True) as connection:
        connection.execute("SET client_encoding = 'UTF8'")
        connection.execute(
            "CREATE TABLE people (name text, town text); INSERT INTO people VALUES ('Jürgen Müßiggänger', 'Köln');"
            "GRANT SELECT ON people TO mirror_reader"
        )
    rig.masking = {"tables": {"public.people": {"keep": ["town"], "mask": {"name": "full_name"}}}}
    try:
        source = replace(rig.source, dsn=f"host={rig.mirror.sockets} user=mirror_reader dbname=latin")
        taken = rig.flow.take(source)
    finally:
        rig.masking = MASKING
        with rig.production() as connection:
            connection.execute("DROP DATABASE latin WITH (FORCE)")
    assert taken.manifest is not None and (taken.manifest.encoding, taken.manifest.canaries) == ("LATIN1", 1)
    root = rig.places.snapshot(taken.id)
    found = subprocess.run(["grep", "-rlaF", "-f", "-", "."], cwd=root, input="Müßiggänger".encode("latin-1"),
                           capture_output=True, check=False, env={"LC_ALL": "C"})  # fmt: skip
    assert found.returncode == 1
    with rig.control.begin() as connection:  # the session's snapshot is the one in force again
        snapshot_store.set_removed(connection, taken.id)
    rig.flow.recover()
    assert not root.exists()
