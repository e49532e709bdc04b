"""The way back on a running installation: an agent's rows reach production through another person, and return."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import psycopg
import pytest

from orchestrator.core.actors import Actor, ActorKind, system
from orchestrator.core.changes import Change, ChangeState
from orchestrator.core.ports.audit import AuditQuery
from orchestrator.core.ports.production import PromotionConflicted
from orchestrator.core.ports.servers import APP_DATABASE
from orchestrator.core.promotions import PromotionState
from orchestrator.core.tenants import Tenant
from orchestrator.demo import hotels
from orchestrator.store import changes, generations, outbox
from orchestrator.wiring import servers
from tests.support.installation import Running

ROUNDS_MAX = 400
pytestmark = [pytest.mark.engine, pytest.mark.trip]
AGENT = Actor(ActorKind.AGENT, "token-agent", "manager/agent", on_behalf_of="user-manager")
REVIEWER = Actor(ActorKind.PERSON, "user-reviewer", "reviewer")


def work(installation: Running, tenant: Tenant, *statements: str) -> None:
    """What the agent does in the sandbox's database."""
    services = installation.services
    with services.store.connect() as connection:
        live = generations.live(connection, tenant.id)
    assert live is not None
    sockets = services.settings.places.database_sockets(tenant.id, live.id)
    dsn = services.installation.drivers.servers.dsn(sockets, database=APP_DATABASE)
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def production(installation: Running, query: str) -> list[tuple[object, ...]]:
    """Production as it is now; a statement counts too."""
    services = installation.services
    sockets = servers.production(services.settings).sockets
    dsn = services.installation.drivers.servers.dsn(sockets, database=hotels.DATABASE)
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(query.encode())
        return cursor.fetchall() if cursor.description else []


def why(change: Change) -> str:
    """Every finding of every check, for the assertion that fails."""
    return json.dumps({name: check.get("findings") for name, check in change.checks.items()}, indent=1)


def submitted(installation: Running, tenant: Tenant, title: str) -> Change:
    flow = installation.services.changes.changes
    made = flow.draft(tenant, actor=AGENT, title=title, code=False)
    change = flow.submit(made.id, tenant, actor=AGENT)
    assert change.blocking == 0, why(change)
    return change


def test_an_agents_rows_reach_production_through_another_person_and_return(
    installation: Running, launched: Callable[..., Tenant]
) -> None:
    services = installation.services.changes
    tenant = launched(scope="harbour")
    rate = "property_id = 'harbour' AND type_code = 'STE' AND starts_on = (SELECT max(starts_on) FROM hotel.rates)"
    booking = "id = (SELECT max(id) FROM hotel.reservations WHERE property_id = 'harbour' AND status = 'tentative')"
    ((price,),) = production(installation, f"SELECT price FROM hotel.rates WHERE {rate}")
    ((booking_id,),) = production(installation, f"SELECT id FROM hotel.reservations WHERE {booking}")
    history = f"SELECT count(*) FROM hotel.reservation_history WHERE reservation_id = {booking_id}"
    ((before,),) = production(installation, history)

    work(
        installation,
        tenant,
        f"UPDATE hotel.rates SET price = price + 7 WHERE {rate}",
        f"UPDATE hotel.reservations SET status = 'cancelled' WHERE id = {booking_id}",
        "INSERT INTO hotel.housekeeping_tasks (property_id, room_id, due_on) VALUES ('harbour', 1, '2031-01-01')",
    )
    change = submitted(installation, tenant, "Suite price")
    assert change.counts.total == 3, "the history is production's own"
    assert change.checks["rehearsal"]["where"].startswith("a copy of snapshot")
    approved = services.review.approve(change.id, actor=REVIEWER, digest=change.digest)
    done = services.promote.run(approved.id, tenant, actor=REVIEWER, digest=approved.digest)
    assert (done.state, done.inserted, done.updated) == (PromotionState.COMMITTED, 1, 2)

    assert production(installation, f"SELECT price FROM hotel.rates WHERE {rate}") == [(price + 7,)]  # type: ignore[operator]
    assert production(installation, history) == [(before + 1,)]  # type: ignore[operator]
    tasks = "SELECT status FROM hotel.housekeeping_tasks WHERE due_on = '2031-01-01'"
    assert production(installation, tasks) == [("open",)]

    saved = installation.services.refresh.run(tenant, actor=system("tests")).draft_id
    with installation.services.store.connect() as connection:
        unproposed = set() if saved is None else set(changes.get(connection, saved).tables)
    assert unproposed <= {"hotel.reservation_history"}, "what production has is no work to save"

    reverted = services.revert.run(change.id, tenant, actor=REVIEWER, reason="tried out")
    assert reverted.state is PromotionState.COMMITTED
    assert production(installation, f"SELECT price FROM hotel.rates WHERE {rate}") == [(price,)]
    status = f"SELECT status FROM hotel.reservations WHERE id = {booking_id}"
    assert production(installation, status) == [("tentative",)]
    assert production(installation, tasks) == []
    trail = installation.services.audit.search(AuditQuery(tenant=tenant.name, action="change."))
    assert {record.text("action") for record in trail} >= {
        "change.drafted",
        "change.submitted",
        "change.approved",
        "change.promote",
        "change.revert",
    }
    shown = installation.json("change", "show", change.id)
    assert shown["state"] == "promoted" and shown["reverted_at"] is not None
    _until_told(installation)


def _until_told(installation: Running) -> None:
    """The scheduler empties the outbox within a tick or two, also where nobody wants to be told."""
    for _ in range(ROUNDS_MAX):
        with installation.services.store.connect() as connection:
            if not outbox.waiting(connection, limit=1):
                return
            connection.rollback()
        threading.Event().wait(0.5)
    raise AssertionError("notices are left in the outbox")


def test_a_row_production_changed_meanwhile_is_refused_with_both_values(
    installation: Running, launched: Callable[..., Tenant]
) -> None:
    services = installation.services.changes
    tenant = launched(scope="harbour")
    row = "property_id = 'harbour' AND type_code = 'SGL' AND starts_on = (SELECT max(starts_on) FROM hotel.rates)"
    ((price,),) = production(installation, f"SELECT price FROM hotel.rates WHERE {row}")
    work(installation, tenant, f"UPDATE hotel.rates SET price = 70 WHERE {row}")
    change = submitted(installation, tenant, "Single price")
    services.review.approve(change.id, actor=REVIEWER)
    production(installation, f"UPDATE hotel.rates SET price = 90 WHERE {row}")
    try:
        with pytest.raises(PromotionConflicted) as caught:
            services.promote.run(change.id, tenant, actor=REVIEWER)
        (found,) = caught.value.findings
        assert (found.was, found.wanted, found.now) == (str(price), "70.00", "90.00")
        assert production(installation, f"SELECT price::text FROM hotel.rates WHERE {row}") == [("90.00",)]
        with installation.services.store.connect() as connection:
            assert changes.get(connection, change.id).state is ChangeState.CONFLICTED
    finally:
        production(installation, f"UPDATE hotel.rates SET price = {price} WHERE {row}")


def test_the_promote_credential_can_do_what_it_must(installation: Running) -> None:
    found = installation.services.changes.credential.run()
    assert [finding.message for finding in found if finding.fatal] == []
