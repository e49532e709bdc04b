"""Faults while promoting: the records say what production holds, whatever died when."""

from __future__ import annotations

import threading
from collections.abc import Callable

import psycopg
import pytest

from orchestrator.core.changes import ChangeState, ChangeStateConflict
from orchestrator.core.ports.code import CodeCheck, CodeMerge
from orchestrator.core.ports.git import BranchMoved
from orchestrator.core.ports.production import (
    MigrationRefused,
    OutcomeUnknown,
    ProductionBusy,
    PromotionConflicted,
    TransactionState,
)
from orchestrator.core.promotion.order import Migration
from orchestrator.core.promotions import PromotionRunning, PromotionState
from orchestrator.drivers.postgres.apply import production as production_module
from orchestrator.drivers.postgres.apply.session import Session
from orchestrator.errors import OrchestratorError, OutsideFailure
from orchestrator.flows.promote import AgentMayNotPromote, NothingToDeclare
from orchestrator.parts import promoting as promoting_module
from orchestrator.store import changes, promotions
from tests.support.proposing import AGENT, MIA, RUTH, SAM, Company

RENAME = "UPDATE bookings SET guest = 'renamed' WHERE id = 1"


def guest(hotel: Company) -> str:
    return str(hotel.ask("SELECT guest FROM bookings WHERE id = 1")[0][0])


def state_of(hotel: Company, change_id: str) -> ChangeState:
    with hotel.store.connect() as connection:
        return changes.get(connection, change_id).state


def test_of_two_promotes_at_once_exactly_one_wins(hotel: Company) -> None:
    hotel.work(RENAME)
    approved = hotel.approved()
    outcomes: list[str] = []
    together = threading.Barrier(2)

    def run(actor: object) -> None:
        together.wait(60)
        try:
            hotel.promote.run(approved.id, hotel.tenant, actor=actor)  # type: ignore[arg-type]
            outcomes.append("won")
        except OrchestratorError as error:
            outcomes.append(error.code)

    threads = [threading.Thread(target=run, args=(actor,)) for actor in (RUTH, SAM)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert sorted(outcomes)[-1] == "won" and outcomes.count("won") == 1, outcomes
    assert set(outcomes) <= {"won", PromotionRunning.code, "conflict.change_state"}, outcomes
    with hotel.store.connect() as connection:
        committed = [p for p in promotions.of_change(connection, approved.id) if p.state is PromotionState.COMMITTED]
    assert len(committed) == 1


def test_production_gone_in_the_middle_writes_nothing(hotel: Company) -> None:
    hotel.work(RENAME)
    approved = hotel.approved()

    def cut(step: str) -> None:
        if step == "writing":
            with psycopg.connect(hotel.dsn, autocommit=True) as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND application_name = 'orchestrator promote'"
                )

    hotel.at = cut
    with pytest.raises(OutsideFailure):
        hotel.promote.run(approved.id, hotel.tenant, actor=RUTH)
    hotel.at = lambda _: None
    assert guest(hotel) == "guest 1"
    assert state_of(hotel, approved.id) is ChangeState.APPROVED
    hotel.promote.run(approved.id, hotel.tenant, actor=RUTH)
    assert guest(hotel) == "renamed"


@pytest.mark.parametrize("is_done", [True, False])
def test_a_lost_commit_reply_is_found_out(hotel: Company, monkeypatch: pytest.MonkeyPatch, is_done: bool) -> None:
    hotel.work(RENAME)
    approved = hotel.approved()
    execute = Session.execute

    def losing(self: Session, query: object, parameters: object = ()) -> int:
        if query != "COMMIT":
            return execute(self, query, parameters)  # type: ignore[arg-type]
        if is_done:
            execute(self, "COMMIT")
        self.connection.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(production_module.Session, "execute", losing)
    if is_done:
        done = hotel.promote.run(approved.id, hotel.tenant, actor=RUTH)
        assert done.updated == 1
        assert state_of(hotel, approved.id) is ChangeState.PROMOTED
        assert guest(hotel) == "renamed"
    else:
        with pytest.raises(OutsideFailure):
            hotel.promote.run(approved.id, hotel.tenant, actor=RUTH)
        assert state_of(hotel, approved.id) is ChangeState.APPROVED
        assert guest(hotel) == "guest 1"


def test_a_commit_nobody_can_tell_about_waits_for_a_persons_word(
    hotel: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    hotel.work(RENAME)
    approved = hotel.approved()
    execute = Session.execute

    def losing(self: Session, query: object, parameters: object = ()) -> int:
        if query != "COMMIT":
            return execute(self, query, parameters)  # type: ignore[arg-type]
        self.connection.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(production_module.Session, "execute", losing)
    monkeypatch.setattr(promoting_module, "OUTCOME_TRIES", 1)
    forgotten = lambda self, transaction_id: TransactionState.UNKNOWN  # noqa: E731
    monkeypatch.setattr(production_module.PostgresProduction, "transaction_state", forgotten)
    with pytest.raises(OutcomeUnknown):
        hotel.promote.run(approved.id, hotel.tenant, actor=RUTH)
    assert set(hotel.promote.recover().values()) == {PromotionState.UNKNOWN}
    with pytest.raises(ChangeStateConflict):
        hotel.review.withdraw(approved.id, actor=MIA)
    with pytest.raises(AgentMayNotPromote):
        hotel.promote.declare(approved.id, actor=AGENT, is_written=True, reason="trust me")
    hotel.promote.declare(approved.id, actor=RUTH, is_written=False, reason="looked at the row")
    with pytest.raises(NothingToDeclare):
        hotel.promote.declare(approved.id, actor=RUTH, is_written=True, reason="again")
    monkeypatch.undo()
    assert hotel.promote.run(approved.id, hotel.tenant, actor=RUTH).state is PromotionState.COMMITTED


def test_locked_rows_end_in_a_clear_error_and_production_is_never_kept_waiting(hotel: Company) -> None:
    hotel.work(RENAME)
    approved = hotel.approved()
    with psycopg.connect(hotel.dsn) as holder:
        holder.execute("SELECT FROM bookings WHERE id = 1 FOR UPDATE")
        with pytest.raises(ProductionBusy) as caught:
            hotel.promote.run(approved.id, hotel.tenant, actor=RUTH)
    assert "Nothing was written" in str(caught.value)
    hotel.promote.run(approved.id, hotel.tenant, actor=RUTH)
    assert guest(hotel) == "renamed"


@pytest.mark.parametrize("times", [1, 99])
def test_a_deadlock_is_tried_again_and_then_a_clear_error(own_hotel: Company, times: int) -> None:
    hotel = own_hotel
    hotel.meanwhile(
        "CREATE SEQUENCE meetings",
        "CREATE FUNCTION meet() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF nextval('meetings') <= {times} THEN RAISE 'each waited for the other' USING ERRCODE = '40P01'; END IF; "
        "RETURN NEW; END $$",
        "CREATE TRIGGER meet BEFORE UPDATE ON bookings FOR EACH ROW EXECUTE FUNCTION meet()",
    )
    hotel.work(RENAME)
    approved = hotel.approved()
    if times == 1:
        hotel.promote.run(approved.id, hotel.tenant, actor=RUTH)
        assert guest(hotel) == "renamed"
        return
    with pytest.raises(ProductionBusy) as caught:
        hotel.promote.run(approved.id, hotel.tenant, actor=RUTH)
    assert "Nothing was written" in str(caught.value)
    assert (guest(hotel), state_of(hotel, approved.id)) == ("guest 1", ChangeState.APPROVED)
    with hotel.store.connect() as connection:
        last = changes.events(connection, change_id=approved.id)[-1]
    assert (last.kind, last.data["reason"]) == ("change.promote_failed", ProductionBusy.code)


class Branch:
    """The code half, in memory: what it is told, and failures set by the test."""

    def __init__(self, migrations: tuple[Migration, ...] = ()) -> None:
        self.at = "a" * 40
        self.migrations = migrations
        self.refuse_undo = False
        self.refuse_merge = False

    def head(self, tenant_name: str) -> str:
        return "b" * 40

    def is_in_production(self, commit: str) -> bool:
        return commit == self.at

    def check(self, tenant_name: str, commit: str) -> CodeCheck:
        return CodeCheck(commit, self.at, "0" * 40, migrations=self.migrations)

    def merge(
        self,
        tenant_name: str,
        commit: str,
        *,
        expected: str,
        message: str,
        author: str,
        about_to: Callable[[CodeMerge], None],
    ) -> CodeMerge:
        if self.refuse_merge:
            raise BranchMoved("main moved.")
        merge = CodeMerge(self.at, "c" * 40)
        about_to(merge)
        self.at = merge.after
        return merge

    def undo(self, merge: CodeMerge) -> bool:
        if self.refuse_undo:
            raise BranchMoved("main moved on.")
        self.at = merge.before
        return True


def test_rows_and_code_go_together(hotel: Company) -> None:
    hotel.code = branch = Branch()
    hotel.work(RENAME)
    done = hotel.promoted()
    assert (done.code_before, done.code_after) == ("a" * 40, "c" * 40)
    assert (branch.at, guest(hotel)) == ("c" * 40, "renamed")


def test_rows_stay_out_when_the_branch_refuses(hotel: Company) -> None:
    hotel.code = branch = Branch()
    hotel.work(RENAME)
    approved = hotel.approved()
    branch.refuse_merge = True
    with pytest.raises(BranchMoved):
        hotel.promote.run(approved.id, hotel.tenant, actor=RUTH)
    assert guest(hotel) == "guest 1"


@pytest.mark.parametrize("refuse_undo", [False, True])
def test_code_moves_back_when_the_commit_fails_or_the_record_says_so(
    hotel: Company, monkeypatch: pytest.MonkeyPatch, refuse_undo: bool
) -> None:
    hotel.code = branch = Branch()
    hotel.work(RENAME)
    approved = hotel.approved()
    branch.refuse_undo = refuse_undo
    execute = Session.execute

    def failing(self: Session, query: object, parameters: object = ()) -> int:
        if query == "COMMIT":
            raise psycopg.errors.CheckViolation("a deferred check")
        return execute(self, query, parameters)  # type: ignore[arg-type]

    monkeypatch.setattr(production_module.Session, "execute", failing)
    with pytest.raises(PromotionConflicted):
        hotel.promote.run(approved.id, hotel.tenant, actor=RUTH)
    with hotel.store.connect() as connection:
        (promotion,) = promotions.of_change(connection, approved.id)
    assert guest(hotel) == "guest 1"
    if refuse_undo:
        assert branch.at == "c" * 40
        assert "could not be moved back" in (promotion.error or "")
    else:
        assert branch.at == "a" * 40


def test_code_alone_is_promoted_too(hotel: Company) -> None:
    hotel.code = branch = Branch()
    done = hotel.promoted()
    assert done.state is PromotionState.COMMITTED
    assert branch.at == "c" * 40


def test_migrations_run_first_in_the_same_transaction_and_only_once(own_hotel: Company) -> None:
    hotel = own_hotel
    add = Migration("migrations/002_add.sql", "ALTER TABLE bookings ADD COLUMN floor int DEFAULT 0; -- ;\n")
    fill = Migration("migrations/003_fill.sql", "UPDATE bookings SET floor = 3 WHERE id = 2;")
    hotel.code = Branch((fill, add))
    hotel.rules["approvals"] = {"migrations": 1}
    hotel.work(RENAME)
    done = hotel.promoted()
    assert [item["path"] for item in done.migrations] == [add.path, fill.path]
    assert hotel.ask("SELECT guest, floor FROM bookings WHERE id < 3 ORDER BY id") == [("renamed", 0), ("guest 2", 3)]
    hotel.work("ALTER TABLE bookings ADD COLUMN floor int DEFAULT 0")
    hotel.code = Branch((fill, add, Migration("migrations/004_more.sql", "UPDATE bookings SET floor = floor + 1")))
    again = hotel.changes.draft(hotel.tenant, actor=RUTH, title="More", rows=["none"])
    submitted = hotel.changes.submit(again.id, hotel.tenant, actor=RUTH)
    hotel.review.approve(submitted.id, actor=SAM)
    done = hotel.promote.run(submitted.id, hotel.tenant, actor=SAM)
    assert [item["path"] for item in done.migrations] == ["migrations/004_more.sql"]


def test_a_migration_that_cannot_run_in_a_transaction_is_refused_by_name(hotel: Company) -> None:
    hotel.code = branch = Branch()
    hotel.work(RENAME)
    approved = hotel.approved()
    branch.migrations = (Migration("migrations/9.sql", "CREATE INDEX CONCURRENTLY i ON bookings (guest)"),)
    with pytest.raises(OrchestratorError, match="does not hold what was approved"):
        hotel.promote.run(approved.id, hotel.tenant, actor=RUTH)
    checked = hotel.changes.check(approved.id, hotel.tenant, actor=RUTH)
    found = checked.checks["rehearsal"]["findings"]
    assert found[0]["code"] == "migration" and "CONCURRENTLY" in found[0]["message"], found
    assert MigrationRefused.code == "invalid.migration"
