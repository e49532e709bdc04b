"""A short schedule refreshes tenants to a new snapshot while their hostnames answer 200 throughout."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
import yaml
from sqlalchemy import update

from orchestrator.core.refresh import RefreshState
from orchestrator.core.tenants import RefreshPolicy, Tenant
from orchestrator.store import generations, refreshes
from orchestrator.store.tables.tenants import TENANTS
from tests.support.installation import Running

# The first test also pays for setting the installation up.
pytestmark = [pytest.mark.engine, pytest.mark.trip, pytest.mark.timeout(1200)]
WAIT_S = 240.0


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
    snapshot = services.snapshots.take(
        services.source(), profile=installation.settings.tenants.snapshot_profile, on_step=lambda *_: None
    )
    with _Visitors(installation, fleet) as visitors, _short_schedule(installation, fleet):
        _until(lambda: all(_done(services.store, one) >= 2 for one in fleet))
    assert visitors.wrong == []
    assert all(visitors.answers[one.name] > 0 for one in fleet)
    for one in fleet:
        with services.store.connect() as connection:
            live = generations.live(connection, one.id)
        assert live is not None and live.snapshot_id == snapshot.id
        assert _guests(installation, one) == snapshot.manifest.tables["hotel.guests"].kept_rows  # type: ignore[union-attr]


@contextmanager
def _short_schedule(installation: Running, fleet: list[Tenant]) -> Iterator[None]:
    """An edit of the file the running scheduler reads at every tick: these tenants every five seconds."""
    path = installation.settings.file("schedule")
    before = path.read_text()
    document = yaml.safe_load(before)
    document["tenants"] = {one.name: {"refresh": {"every": "5s"}} for one in fleet}
    try:
        path.write_text(yaml.safe_dump(document))
        yield
    finally:
        path.write_text(before)


def _scheduled(installation: Running, tenant: Tenant) -> dict[str, object]:
    rows: list[dict[str, object]] = installation.json("refresh", "schedule")
    return next(row for row in rows if row["tenant"] == tenant.name)


def _done(store: object, tenant: Tenant) -> int:
    found = refreshes.history(store, tenant_id=tenant.id)  # type: ignore[arg-type]
    assert not any(one.state is RefreshState.FAILED for one in found), [one.error for one in found]
    return sum(one.state is RefreshState.DONE for one in found)


def _guests(installation: Running, tenant: Tenant) -> int:
    pools = installation.services.refresh.pools
    limits = installation.services.refresh.limits(tenant)
    spec = pools.spec(tenant, limits)
    with psycopg.connect(
        host=str(spec.sockets), user=spec.role, dbname=spec.database, password=pools.password(tenant), autocommit=True
    ) as connection:
        row = connection.execute("SELECT count(*) FROM hotel.guests").fetchone()
        return int(row[0]) if row else -1


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
