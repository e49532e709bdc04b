"""The whole way of a change, as the people in it see it."""

from __future__ import annotations

from decimal import Decimal

import pytest

from orchestrator.core.changes import ChangeState
from orchestrator.core.ports.production import PromotionConflicted
from orchestrator.core.promotions import PromotionState
from orchestrator.store import changes, promotions
from tests.support.proposing import AGENT, RUTH, Company


def test_a_change_goes_from_the_sandbox_to_production_and_back(hotel: Company) -> None:
    hotel.work(
        "UPDATE rates SET price = 150 WHERE house = 'harbour' AND day = '2026-01-02'",
        "INSERT INTO bookings (house, guest) VALUES ('harbour', 'new guest')",
        "INSERT INTO lines (house, booking_id, amount) SELECT 'harbour', max(id), 42 FROM bookings",
    )
    hotel.meanwhile("INSERT INTO bookings (house, guest) VALUES ('hill', 'somebody else')")
    before = hotel.ask("SELECT id, price FROM rates ORDER BY id"), hotel.ask("SELECT * FROM bookings ORDER BY id")

    submitted = hotel.submitted()
    assert submitted.state is ChangeState.SUBMITTED
    assert submitted.blocking == 0, submitted.checks
    assert submitted.counts.total == 3, "the history row is production's own"
    approved = hotel.review.approve(submitted.id, actor=RUTH, digest=submitted.digest[:12])
    assert approved.state is ChangeState.APPROVED
    done = hotel.promote.run(approved.id, hotel.tenant, actor=RUTH, digest=approved.digest)

    assert done.state is PromotionState.COMMITTED
    assert hotel.ask("SELECT price FROM rates WHERE house = 'harbour' AND day = '2026-01-02'") == [(Decimal("150.00"),)]
    assert hotel.ask("SELECT b.total, l.amount FROM bookings b JOIN lines l ON l.booking_id = b.id") == [
        (Decimal("42.00"), Decimal("42.00"))
    ], "the trigger added the line once"
    assert hotel.ask("SELECT count(*) FROM history") == [(1,)], "production wrote its own history"
    with hotel.store.connect() as connection:
        assert changes.get(connection, approved.id).state is ChangeState.PROMOTED

    reverted = hotel.revert.run(approved.id, hotel.tenant, actor=RUTH, reason="wrong week")
    assert reverted.state is PromotionState.COMMITTED
    after = hotel.ask("SELECT id, price FROM rates ORDER BY id"), hotel.ask("SELECT * FROM bookings ORDER BY id")
    assert after == before
    assert [name for name in hotel.actions() if name.startswith("change.")] == [
        "change.drafted",
        "change.submitted",
        "change.approved",
        "change.promote",
        "change.promote",
        "change.revert",
        "change.revert",
    ]


def test_a_cell_production_changed_is_refused_with_both_values(hotel: Company) -> None:
    hotel.work("UPDATE rates SET price = 150 WHERE id = 1")
    approved = hotel.approved()
    hotel.meanwhile("UPDATE rates SET price = 120 WHERE id = 1")
    with pytest.raises(PromotionConflicted) as caught:
        hotel.promote.run(approved.id, hotel.tenant, actor=RUTH)
    (found,) = caught.value.findings
    assert (found.was, found.wanted, found.now) == ("100.00", "150.00", "120.00")
    assert hotel.ask("SELECT price FROM rates WHERE id = 1") == [(Decimal("120.00"),)]
    with hotel.store.connect() as connection:
        change = changes.get(connection, approved.id)
        (tried,) = promotions.of_change(connection, approved.id)
    assert change.state is ChangeState.CONFLICTED
    assert change.checks["promote"]["findings"][0]["now"] == "120.00"
    assert tried.state is PromotionState.FAILED


def test_another_cell_of_the_same_row_is_no_conflict(hotel: Company) -> None:
    hotel.work("UPDATE bookings SET guest = 'renamed' WHERE id = 1")
    approved = hotel.approved()
    hotel.meanwhile("UPDATE bookings SET total = 7 WHERE id = 1")
    hotel.promote.run(approved.id, hotel.tenant, actor=RUTH)
    assert hotel.ask("SELECT guest, total FROM bookings WHERE id = 1") == [("renamed", Decimal("7.00"))]


def test_a_change_production_has_already_writes_nothing(hotel: Company) -> None:
    hotel.work("UPDATE bookings SET guest = 'renamed' WHERE id = 1")
    approved = hotel.approved()
    hotel.meanwhile("UPDATE bookings SET guest = 'renamed' WHERE id = 1")
    done = hotel.promote.run(approved.id, hotel.tenant, actor=RUTH)
    assert (done.updated, done.unchanged) == (0, 1)


def test_a_stale_change_is_rebased_onto_the_newest_snapshot(hotel: Company, cluster: object) -> None:
    from contextlib import ExitStack

    hotel.work("UPDATE rates SET price = 150 WHERE id = 1", "UPDATE rates SET price = 160 WHERE id = 2")
    submitted = hotel.submitted()
    hotel.meanwhile("UPDATE rates SET price = 120 WHERE id = 1", "UPDATE bookings SET guest = 'x' WHERE id = 3")
    with ExitStack() as stack:
        hotel.take_snapshot(stack)
        rebased = hotel.changes.rebase(submitted.id, hotel.tenant, actor=AGENT)
        assert rebased.change.state is ChangeState.DRAFT
        assert rebased.change.base_snapshot_id == "s2"
        assert rebased.change.counts.total == 1
        (conflict,) = rebased.conflicts
        cell = next(cell for cell in conflict.cells if cell.column == "price")
        assert (cell.base, cell.proposed, cell.now) == ("100.00", "150.00", "120.00")
        again = hotel.changes.submit(submitted.id, hotel.tenant, actor=AGENT)
        hotel.review.approve(again.id, actor=RUTH)
        hotel.promote.run(again.id, hotel.tenant, actor=RUTH)
    prices = hotel.ask("SELECT price FROM rates WHERE id IN (1, 2) ORDER BY id")
    assert prices == [(Decimal("120.00"),), (Decimal("160.00"),)]
