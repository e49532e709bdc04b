"""Who may decide about a change, about exactly what, and for how long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.core.actors import system
from orchestrator.core.changes import (
    ApprovalExpired,
    ApprovalRefused,
    ChangeState,
    ChangeStateConflict,
    DigestMismatch,
)
from orchestrator.flows.promote import AgentMayNotPromote
from orchestrator.flows.review import EmptyComment, NotYours
from orchestrator.store import changes
from tests.support.proposing import AGENT, MIA, RUTH, SAM, Company

PRICE = "UPDATE rates SET price = price + 1 WHERE house = 'harbour' AND day < '2026-01-03'"


def test_neither_the_agent_nor_the_person_behind_it_nor_a_program_approves(hotel: Company) -> None:
    hotel.work(PRICE)
    submitted = hotel.submitted()
    for actor in (AGENT, MIA, system("scheduler")):
        with pytest.raises(ApprovalRefused):
            hotel.review.approve(submitted.id, actor=actor)
    assert hotel.review.approve(submitted.id, actor=RUTH).state is ChangeState.APPROVED
    with pytest.raises(AgentMayNotPromote):
        hotel.promote.run(submitted.id, hotel.tenant, actor=AGENT)
    with pytest.raises(NotYours):
        hotel.review.reject(submitted.id, actor=AGENT, reason="no")


def test_whoever_proposes_a_draft_the_product_saved_becomes_its_author(hotel: Company) -> None:
    hotel.work(PRICE)
    draft = hotel.changes.draft(hotel.tenant, actor=system("refresh"), title="Saved before the data was refreshed")
    submitted = hotel.changes.submit(draft.id, hotel.tenant, actor=RUTH)
    assert submitted.author == RUTH
    with pytest.raises(ApprovalRefused):
        hotel.review.approve(submitted.id, actor=RUTH)
    assert hotel.review.approve(submitted.id, actor=SAM).state is ChangeState.APPROVED


def test_above_the_cap_two_different_people_must_approve(hotel: Company) -> None:
    hotel.rules["approvals"] = {"second_above_rows": 1}
    hotel.work(PRICE)
    submitted = hotel.submitted()
    assert submitted.approvals_needed == 2
    assert hotel.review.approve(submitted.id, actor=RUTH).state is ChangeState.SUBMITTED
    with pytest.raises(ApprovalRefused):
        hotel.review.approve(submitted.id, actor=RUTH)
    with pytest.raises(ChangeStateConflict):
        hotel.promote.run(submitted.id, hotel.tenant, actor=RUTH)
    assert hotel.review.approve(submitted.id, actor=SAM).state is ChangeState.APPROVED


def test_a_risk_may_ask_for_more_people(hotel: Company) -> None:
    hotel.rules["approvals"] = {"risks": {"money": 3}}
    hotel.work(PRICE)
    assert hotel.submitted().approvals_needed == 3


def test_an_approval_is_bound_to_what_was_seen(hotel: Company) -> None:
    hotel.work(PRICE)
    submitted = hotel.submitted()
    with pytest.raises(DigestMismatch):
        hotel.review.approve(submitted.id, actor=RUTH, digest="0" * 64)
    hotel.review.approve(submitted.id, actor=RUTH, digest=submitted.digest)
    with pytest.raises(DigestMismatch):
        hotel.promote.run(submitted.id, hotel.tenant, actor=RUTH, digest="f" * 64)


def test_an_edit_voids_every_approval(hotel: Company) -> None:
    hotel.work(PRICE)
    approved = hotel.approved()
    returned = hotel.review.request_changes(approved.id, actor=RUTH, reason="one row only")
    assert returned.state is ChangeState.DRAFT
    with hotel.store.connect() as connection:
        first = changes.changeset(connection, approved.id).rows[0]
    edited = hotel.changes.choose(approved.id, actor=AGENT, rows=[first.id()])
    assert edited.digest != approved.digest
    again = hotel.changes.submit(approved.id, hotel.tenant, actor=AGENT)
    assert again.counts.total == 1
    with pytest.raises(ChangeStateConflict):
        hotel.promote.run(again.id, hotel.tenant, actor=RUTH)
    with hotel.store.connect() as connection:
        assert all(item.is_void for item in changes.approvals(connection, again.id))


def test_an_approval_nobody_used_lapses(hotel: Company) -> None:
    hotel.work(PRICE)
    approved = hotel.approved()
    hotel.now = lambda: datetime.now(UTC) + timedelta(days=4)
    with pytest.raises(ApprovalExpired):
        hotel.promote.run(approved.id, hotel.tenant, actor=RUTH)
    with hotel.store.connect() as connection:
        assert changes.get(connection, approved.id).state is ChangeState.SUBMITTED
    assert hotel.ask("SELECT count(*) FROM history") == [(0,)]


def test_the_clock_withdraws_what_nobody_decided(hotel: Company) -> None:
    hotel.work(PRICE)
    submitted = hotel.submitted()
    hotel.now = lambda: datetime.now(UTC) + timedelta(days=15)
    assert [item.state for item in hotel.review.expire() if item.id == submitted.id] == [ChangeState.WITHDRAWN]
    assert submitted.id not in [item.id for item in hotel.review.expire()]


def test_only_the_author_withdraws_and_only_what_is_open(hotel: Company) -> None:
    hotel.work(PRICE)
    submitted = hotel.submitted()
    with pytest.raises(NotYours):
        hotel.review.withdraw(submitted.id, actor=SAM)
    assert hotel.review.withdraw(submitted.id, actor=MIA).state is ChangeState.WITHDRAWN
    for verb in (hotel.review.approve, hotel.review.withdraw):
        with pytest.raises(ChangeStateConflict):
            verb(submitted.id, actor=RUTH if verb == hotel.review.approve else MIA)


def test_comments_need_words_and_stay_with_their_row(hotel: Company) -> None:
    hotel.work(PRICE)
    submitted = hotel.submitted()
    with pytest.raises(EmptyComment):
        hotel.review.comment(submitted.id, actor=RUTH, text="  ")
    hotel.review.comment(submitted.id, actor=RUTH, text="Why so much?", row="abc")
    with hotel.store.connect() as connection:
        (said,) = changes.comments(connection, submitted.id)
    assert (said.author.name, said.text, said.row) == ("ruth", "Why so much?", "abc")


def test_small_safe_changes_pass_alone_only_when_switched_on(hotel: Company) -> None:
    hotel.work("UPDATE bookings SET guest = 'Renamed' WHERE id = 2")
    assert hotel.submitted().state is ChangeState.SUBMITTED
    hotel.rules["auto_approval"] = {"enabled": True, "tables": ["bookings"]}
    passed = hotel.submitted()
    assert passed.state is ChangeState.APPROVED
    hotel.promote.run(passed.id, hotel.tenant, actor=RUTH)
    assert hotel.ask("SELECT guest FROM bookings WHERE id = 2") == [("Renamed",)]
