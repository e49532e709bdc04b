"""What can never reach production, whatever the sandbox holds."""

from __future__ import annotations

import dataclasses

import pytest

from orchestrator.core.changes import ChangeBlocked, ChangeState, EmptyChange
from orchestrator.core.ports.production import PromotionConflicted
from orchestrator.store import changes
from tests.support.proposing import AGENT, RUTH, Company, findings


def blocked(hotel: Company) -> set[str]:
    """Submit and return every code found in the way."""
    draft = hotel.drafted()
    with pytest.raises(ChangeBlocked) as caught:
        hotel.changes.submit(draft.id, hotel.tenant, actor=AGENT)
    with hotel.store.connect() as connection:
        kept = changes.get(connection, draft.id)
    assert kept.state is ChangeState.DRAFT
    assert kept.blocking > 0
    found = caught.value.fields["findings"]
    assert isinstance(found, list)
    return {str(item["code"]) for item in found}


def test_nothing_to_propose_is_said_so(hotel: Company) -> None:
    with pytest.raises(EmptyChange):
        hotel.drafted()


def test_every_violation_is_listed_at_once(hotel: Company) -> None:
    hotel.work(
        "UPDATE rates SET price = 1 WHERE house = 'hill' AND day = '2026-01-01'",  # another tenant's
        "UPDATE rates SET house = 'hill', day = '2030-01-01' WHERE id = 1",  # moved out
        "UPDATE houses SET name = 'Mine' WHERE id = 'hill'",  # a closed table
        "UPDATE people SET email = 'a@example.com' WHERE id = 1",  # masked
        "INSERT INTO people VALUES (2, 'harbour', 'x', 1)",  # inserts are closed
    )
    assert blocked(hotel) >= {
        "foreign_scope",
        "scope_moved",
        "table_closed",
        "masked_cell",
        "operation_closed",
        "column_closed",
    }


def test_with_no_table_named_nothing_may_be_promoted(hotel: Company) -> None:
    hotel.rules.clear()
    hotel.work("UPDATE bookings SET guest = 'x' WHERE id = 1")
    assert "table_closed" in blocked(hotel)


def test_a_tenant_without_a_scope_promotes_nothing_guarded(hotel: Company) -> None:
    hotel.tenant = dataclasses.replace(hotel.tenant, scope=None)
    hotel.work("UPDATE bookings SET guest = 'x' WHERE id = 1")
    assert "no_scope" in blocked(hotel)


def test_caps_hold(hotel: Company) -> None:
    hotel.rules["caps"] = {"update": 1}
    hotel.work("UPDATE bookings SET guest = 'x'")
    assert blocked(hotel) == {"over_cap"}


def test_production_is_compared_before_anybody_reviews(hotel: Company) -> None:
    hotel.work(
        "INSERT INTO rates (house, day, price) VALUES ('harbour', '2026-02-01', 5)",
        "UPDATE rates SET price = 7 WHERE id = 1",
        "UPDATE bookings SET guest = 'x' WHERE id = 1",
        "DELETE FROM bookings WHERE id = 2",
    )
    hotel.meanwhile(
        "INSERT INTO rates (house, day, price) VALUES ('harbour', '2026-02-01', 6)",
        "UPDATE rates SET price = 8 WHERE id = 1",
        "DELETE FROM bookings WHERE id = 1",
        "INSERT INTO lines (house, booking_id, amount) VALUES ('harbour', 3, 1)",
    )
    assert blocked(hotel) == {"unique_clash", "cell_conflict", "row_gone"}


def test_children_the_sandbox_never_saw_are_not_cascaded_away(own_hotel: Company) -> None:
    hotel = own_hotel
    hotel.work("DELETE FROM bookings WHERE id = 2")
    hotel.meanwhile("ALTER TABLE lines DISABLE TRIGGER add_up")
    hotel.meanwhile("INSERT INTO lines (house, booking_id, amount) VALUES ('harbour', 2, 1)")
    assert blocked(hotel) == {"unseen_children"}
    assert hotel.ask("SELECT count(*) FROM lines") == [(1,)]


def test_schema_drift_is_refused_with_the_table_named(own_hotel: Company) -> None:
    hotel = own_hotel
    hotel.work("UPDATE bookings SET guest = 'x' WHERE id = 1")
    approved = hotel.approved()
    hotel.meanwhile("ALTER TABLE bookings RENAME COLUMN guest TO visitor")
    with pytest.raises(PromotionConflicted) as caught:
        hotel.promote.run(approved.id, hotel.tenant, actor=RUTH)
    (found,) = caught.value.findings
    assert (found.code, found.table) == ("schema_drift", "public.bookings")
    assert "guest" in found.message


def test_rules_of_today_count_not_those_of_the_submission(hotel: Company) -> None:
    hotel.work("UPDATE bookings SET guest = 'x' WHERE id = 1")
    approved = hotel.approved()
    hotel.rules = {**hotel.rules, "tables": {}}
    with pytest.raises(ChangeBlocked):
        hotel.promote.run(approved.id, hotel.tenant, actor=RUTH)
    assert hotel.ask("SELECT guest FROM bookings WHERE id = 1") == [("guest 1",)]


def test_the_rehearsal_lists_every_constraint_on_a_copy(own_hotel: Company) -> None:
    hotel = own_hotel
    hotel.work(
        "ALTER TABLE rates DROP CONSTRAINT rates_price_check",
        "UPDATE rates SET price = -1 WHERE id IN (1, 2, 3)",
    )
    draft = hotel.drafted()
    with pytest.raises(ChangeBlocked):
        hotel.changes.submit(draft.id, hotel.tenant, actor=AGENT)
    with hotel.store.connect() as connection:
        checks = changes.get(connection, draft.id).checks
    refused = [item for item in checks["rehearsal"]["findings"] if item["column"] == "rates_price_check"]
    assert len({item["row"] for item in refused}) == 3, checks["rehearsal"]
    assert checks["production"]["blocking"] == 0, findings(checks["production"])
    assert hotel.ask("SELECT count(*) FROM rates WHERE price < 0") == [(0,)]


def test_rehearsing_on_production_leaves_no_trace(hotel: Company) -> None:
    hotel.work("UPDATE rates SET price = 99 WHERE id = 1")
    approved = hotel.approved()
    from orchestrator.flows.rehearse import Stage

    for stage in Stage:
        document = hotel.rehearse.run(approved.id, hotel.tenant, actor=RUTH, stage=stage)
        assert document["blocking"] == 0, document["findings"]
        assert document["written"] == 1
    assert hotel.ask("SELECT count(*) FROM history") == [(0,)]
    assert hotel.ask("SELECT price FROM rates WHERE id = 1")[0][0] == 100
