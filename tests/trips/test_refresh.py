"""A short schedule refreshes tenants to a new snapshot while they are worked in and their hostnames answer 200."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest
import yaml
from sqlalchemy import Engine, update

from orchestrator.core.ports.servers import APP_DATABASE, READER_ROLE
from orchestrator.core.refresh import RefreshState
from orchestrator.core.snapshots import Snapshot
from orchestrator.core.tenants import RefreshPolicy, Tenant
from orchestrator.flows.snapshot import SnapshotBusy
from orchestrator.store import generations, refreshes
from orchestrator.store.session import tenant_lock
from orchestrator.store.tables.tenants import TENANTS
from orchestrator.wiring.services import Services
from tests.support.installation import Running
from tests.support.refreshing import Writers
from tests.trips.test_change import production

# The first test also pays for setting the installation up.
pytestmark = [pytest.mark.engine, pytest.mark.trip, pytest.mark.timeout(1200)]
WAIT_S = 240.0
NEWS = "Fresh from production"
CLERK = "UPDATE hotel.rooms SET notes = 'seen by ' || %(writer)s || ', ' || %(turn)s WHERE id %% 7 = %(writer)s"


def test_refreshes_from_the_command_line(installation: Running, launched: Callable[..., Tenant]) -> None:
    tenant = launched()
    done = _patiently(installation, "refresh", "run", tenant.name, "--reason", "by hand")
    assert (done["tenant"], done["state"], done["reason"]) == (tenant.name, "done", "by hand")
    undone = _patiently(installation, "refresh", "undo", tenant.name)
    assert (undone["kind"], undone["state"]) == ("undo", "done")
    (job,) = installation.json("refresh", "run", tenant.name, "--no-wait")
    finished = installation.json("job", "wait", job["id"], "--timeout", "300")
    assert finished["state"] == "done" and finished["result"]["generation_id"], finished
    history = installation.json("refresh", "history", tenant.name)
    assert [row["kind"] for row in history if row["state"] == "done"] == ["refresh", "undo", "refresh"]
    installation.run("refresh", "postpone", tenant.name, "--reason", "closing the books")
    row = _scheduled(installation, tenant)
    assert row["next_due_at"] is not None and row["data_as_of"] is not None and row["postponed_by"]


def _patiently(installation: Running, *arguments: str) -> dict[str, object]:
    """Busy is an answer: what reconciles or publishes the tenant at this moment is soon done."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            found: dict[str, object] = installation.json(*arguments)
            return found
        except AssertionError as error:
            if "conflict.tenant_busy" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(1)


def test_a_short_schedule_brings_new_data_while_the_app_answers(
    installation: Running, launched: Callable[..., Tenant]
) -> None:
    services = installation.services
    fleet = [launched() for _ in range(3)]
    with services.store.begin() as connection:
        connection.execute(
            update(TENANTS)
            .where(TENANTS.c.id.in_([one.id for one in fleet]))
            .values(refresh_policy=RefreshPolicy.DISCARD)
        )
    with _schedule(installation) as rewrite, _Visitors(installation, fleet) as visitors:
        production(
            installation, f"UPDATE hotel.reviews SET title = '{NEWS}' WHERE id = (SELECT min(id) FROM hotel.reviews)"
        )
        snapshot = _take_snapshot(installation)
        with ExitStack() as stack:
            clerks = [stack.enter_context(Writers(_as_tenant(installation, one), 2, CLERK)) for one in fleet]
            rewrite(fleet)
            _until(lambda: all(_done(services.store, one) >= 2 for one in fleet))
        # One more without anybody writing: what stands there now is the snapshot and nothing else.
        done = {one.id: _done(services.store, one) for one in fleet}
        _until(lambda: all(_done(services.store, one) > done[one.id] + 1 for one in fleet))
    assert visitors.wrong == []
    assert all(visitors.answers[one.name] > 0 for one in fleet)
    assert [clerk.failures for clerk in clerks] == [[], [], []]
    assert all(clerk.done > 0 for clerk in clerks)
    with services.refresh.generations.base(snapshot) as base:
        wanted = _contents(services, base.sockets)
    assert any(NEWS in text for text in wanted["hotel.reviews"])
    for one in fleet:
        with tenant_lock(services.store, one.id, patience_s=WAIT_S), services.store.connect() as connection:
            live = generations.live(connection, one.id)
            assert live is not None and live.snapshot_id == snapshot.id
            found = _contents(services, services.settings.places.database_sockets(one.id, live.id))
        assert [table for table in wanted if found[table] != wanted[table]] == [] and set(found) == set(wanted)


@contextmanager
def _schedule(installation: Running) -> Iterator[Callable[[list[Tenant]], None]]:
    """Edits of the file the running scheduler reads at every tick: the tenants named are due every five seconds.

    Meanwhile no other snapshot comes due, whatever the hour.
    """
    path = installation.settings.file("schedule")
    before = path.read_text()

    def rewrite(fleet: list[Tenant]) -> None:
        document = yaml.safe_load(before)
        document["snapshot"]["enabled"] = False
        document["refresh"]["enabled"] = False
        document["tenants"] = {one.name: {"refresh": {"every": "5s"}} for one in fleet}
        fresh = path.with_name("schedule.new")
        fresh.write_text(yaml.safe_dump(document))
        fresh.replace(path)

    try:
        rewrite([])
        yield rewrite
    finally:
        path.write_text(before)


def _take_snapshot(installation: Running) -> Snapshot:
    services, deadline = installation.services, time.monotonic() + WAIT_S
    while True:
        try:
            profile = installation.settings.tenants.snapshot_profile
            return services.snapshots.take(services.source(), profile=profile, on_step=lambda *_: None)
        except SnapshotBusy:  # one that came due before
            assert time.monotonic() < deadline
            time.sleep(0.5)


def _as_tenant(installation: Running, tenant: Tenant) -> str:
    pools = installation.services.refresh.pools
    spec = pools.spec(tenant, installation.services.refresh.limits(tenant))
    return psycopg.conninfo.make_conninfo(
        host=str(spec.sockets), user=spec.role, dbname=spec.database, password=pools.password(tenant)
    )


def _contents(services: Services, sockets: Path) -> dict[str, list[str]]:
    """Every row of every table, as text, in order."""
    dsn = services.installation.drivers.servers.dsn(sockets, user=READER_ROLE, database=APP_DATABASE)
    with psycopg.connect(dsn, autocommit=True) as connection:
        tables = connection.execute(
            "SELECT c.oid::regclass::text FROM pg_class c WHERE relkind = 'r' AND relnamespace = 'hotel'::regnamespace"
        ).fetchall()
        return {
            table: [row[0] for row in connection.execute(f"SELECT t::text FROM {table} AS t ORDER BY 1".encode())]
            for (table,) in tables
        }


def _scheduled(installation: Running, tenant: Tenant) -> dict[str, object]:
    rows: list[dict[str, object]] = installation.json("refresh", "schedule")
    return next(row for row in rows if row["tenant"] == tenant.name)


def _done(store: Engine, tenant: Tenant) -> int:
    found = refreshes.history(store, tenant_id=tenant.id)
    assert not any(one.state is RefreshState.FAILED for one in found), [one.error for one in found]
    return sum(one.state is RefreshState.DONE for one in found)


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline, "the schedule was not followed"
        time.sleep(0.5)


class _Visitors:
    """A person at each tenant's hostname, asking again and again."""

    def __init__(self, installation: Running, fleet: list[Tenant]) -> None:
        self.answers = {one.name: 0 for one in fleet}
        self.wrong: list[str] = []
        self._installation = installation
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._visit, args=(one.name,), daemon=True) for one in fleet]

    def __enter__(self) -> _Visitors:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(120)

    def _visit(self, name: str) -> None:
        browser = self._installation.browser("admin")
        while not self._stop.is_set():
            answer = browser.get(self._installation.address(name))
            self.answers[name] += 1
            if answer.status != 200:
                self.wrong.append(f"{name}: {answer.status} {answer.text[:200]}")
            self._stop.wait(0.1)
