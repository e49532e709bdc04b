"""One write to production under a journal: what it did is known, or found out, whenever the process dies."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, Engine

from orchestrator import logs
from orchestrator.core.actors import Actor
from orchestrator.core.audit import AuditEvent, Phase, Result
from orchestrator.core.changes import Change
from orchestrator.core.ports.audit import AuditLog
from orchestrator.core.ports.code import CodeCheck, CodeMerge, CodeSide
from orchestrator.core.ports.production import (
    Applied,
    OutcomeUnknown,
    Production,
    PromotionConflicted,
    TransactionState,
)
from orchestrator.core.promotion.findings import Finding
from orchestrator.core.promotion.order import CellName, PromotionOrder
from orchestrator.core.promotions import Promotion, PromotionKind, PromotionRunning, PromotionState, PromotionStep
from orchestrator.errors import OrchestratorError, OutsideFailure
from orchestrator.store import changes, promotions
from orchestrator.store.session import advisory_lock

LOG = logs.get("promote")
ADJUSTMENTS_MAX = 4
OUTCOME_TRIES = 20
OUTCOME_PAUSE_S = 0.5
_CLOCKS = ("timestamp", "date", "time")

Settle = Callable[[Connection, Promotion], None]


@dataclass(frozen=True)
class Work:
    """What one promotion does. `order` None: code alone. `settle` moves the change, in the journal's transaction."""

    change: Change
    kind: PromotionKind
    order: PromotionOrder | None
    actor: Actor
    approvers: Sequence[str]
    code: CodeCheck | None
    settle: Settle


@dataclass(frozen=True)
class Promoting:
    """The only place that opens production for writing: `production` is called here, when it is needed.

    `at` is told every boundary after it is journaled: where tests kill.
    """

    store: Engine
    audit: AuditLog
    production: Callable[[], Production]
    code: CodeSide | None = None
    at: Callable[[str], None] = field(default=lambda _: None)
    outcome_pause_s: float = OUTCOME_PAUSE_S

    def run(self, work: Work) -> Promotion:
        """Write, merge, commit, record. Exactly one of two at once gets past the first line.

        Raises PromotionRunning, PromotionConflicted, MigrationRefused, ProductionBusy, OutcomeUnknown, or what git
        refused; the journal then says what is and what is not in production.
        """
        with advisory_lock(self.store, "promotion", work.change.id) as taken:
            if not taken:
                raise PromotionRunning(
                    f"Change {work.change.id} is being promoted or reverted right now.", effect="This one did nothing."
                )
            promotion = promotions.begin(self.store, work.change, work.kind, actor=work.actor, approvers=work.approvers)
            return self._journaled(promotion, work)

    def _journaled(self, promotion: Promotion, work: Work) -> Promotion:
        started = time.monotonic()
        try:
            self._record(promotion, work, Phase.BEFORE)
            self.at(PromotionStep.PLANNED)
            applied = self._apply(promotion, work)
        except OutcomeUnknown as error:
            applied = self._resolve(promotion, work, error)
        except Exception as error:
            self._fail(promotion, work, error)
            raise
        self.at("committed")
        try:
            return self._finish(promotion, work.settle, applied, time.monotonic() - started)
        finally:
            self._record(promotion, work, Phase.AFTER, Result.OK, _counts(applied))

    def _apply(self, promotion: Promotion, work: Work) -> Applied | None:
        if work.order is None:
            self._merge(promotion, work)
            promotions.take(self.store, promotion.id, PromotionStep.COMMITTING)
            self.at(PromotionStep.COMMITTING)
            return None
        order = replace(work.order, id=promotion.id)

        def opened(transaction_id: str) -> None:
            promotions.take(self.store, promotion.id, PromotionStep.WRITING, transaction_id=transaction_id)
            self.at(PromotionStep.WRITING)

        def written(applied: Applied) -> None:
            self._merge(promotion, work)
            promotions.keep_inverse(
                self.store,
                promotion.id,
                applied.inverse,
                migrations=[
                    {"path": item.path, "digest": item.digest()}
                    for item in sorted(order.migrations, key=lambda m: m.path)
                ],
                **_counts(applied),
                report=_report(applied),
            )
            self.at(PromotionStep.COMMITTING)

        production = self.production()
        for _ in range(ADJUSTMENTS_MAX):
            try:
                return production.apply(order, on_transaction=opened, before_commit=written)
            except PromotionConflicted as conflict:
                adjusted = _leave_to_triggers(order, conflict.findings)
                if adjusted is None:
                    raise
                order = adjusted
        return production.apply(order, on_transaction=opened, before_commit=written)

    def _merge(self, promotion: Promotion, work: Work) -> None:
        if work.code is None or self.code is None:
            return

        def about_to(merge: CodeMerge) -> None:
            places = {"code_before": merge.before, "code_after": merge.after}
            promotions.take(self.store, promotion.id, PromotionStep.MERGING, **places)
            self.at(PromotionStep.MERGING)

        merge = self.code.merge(
            work.change.tenant_name,
            work.code.head,
            expected=work.code.production,
            message=f"{work.change.title}\n\nChange: {work.change.id}\nPromoted-by: {work.actor.name}",
            author=work.change.author.name,
            about_to=about_to,
        )
        places = {"code_before": merge.before, "code_after": merge.after}
        promotions.take(self.store, promotion.id, PromotionStep.MERGING, **places)
        self.at("merged")

    def _finish(self, promotion: Promotion, settle: Settle, applied: Applied | None, duration_s: float) -> Promotion:
        with self.store.begin() as connection:
            values = _counts(applied) | {"duration_s": duration_s}
            done = promotions.set_state(connection, promotion.id, PromotionState.COMMITTED, **values)
            settle(connection, done)
        LOG.info("promote.committed", promotion=done.id, change=done.change_id, kind=done.kind.value)
        return done

    def _resolve(self, promotion: Promotion, work: Work, error: OutcomeUnknown) -> Applied | None:
        """Ask production what became of the transaction whose commit was not answered."""
        with self.store.begin() as connection:
            promotions.set_state(
                connection, promotion.id, PromotionState.UNKNOWN, finished=False, error_code=error.code
            )
        for _ in range(OUTCOME_TRIES):
            state = self._state_of(error.transaction_id)
            if state is TransactionState.COMMITTED:
                return None
            if state is TransactionState.ABORTED:
                self._fail(promotion, work, error)
                raise _not_written(error) from error
            time.sleep(self.outcome_pause_s)
        raise error

    def _state_of(self, transaction_id: str) -> TransactionState:
        try:
            return self.production().transaction_state(transaction_id)
        except OrchestratorError:  # away, or nobody has said any more where it is
            return TransactionState.UNKNOWN

    def _fail(self, promotion: Promotion, work: Work | None, error: Exception, *, undone: str | None = None) -> None:
        with self.store.connect() as connection:
            found = promotions.get(connection, promotion.id)
        said = str(error) if isinstance(error, OrchestratorError) else type(error).__name__
        said = " ".join(filter(None, [said, self._undo_or_say(found) if undone is None else undone]))
        code = error.code if isinstance(error, OrchestratorError) else "error"
        with self.store.begin() as connection:
            promotions.set_state(connection, promotion.id, PromotionState.FAILED, error_code=code, error=said[:4000])
            if not isinstance(error, PromotionConflicted):  # that is told as what it makes of the change
                change, kind = changes.get(connection, promotion.change_id), f"change.{promotion.kind.value}_failed"
                changes.event(connection, change, kind, promotion.actor, promotion=promotion.id, reason=code)
        LOG.warning("promote.failed", promotion=promotion.id, change=promotion.change_id, code=code)
        if work is not None:
            self._record(promotion, work, Phase.AFTER, Result.FAILED, {"code": code, "error": said[:1000]})

    def _undo_code(self, promotion: Promotion) -> str:
        """Move the production branch back when its rows were not written. Where it was to go stands in the journal
        before it goes there, so this is right wherever the process died. Raises what git says."""
        if self.code is None or promotion.code_before is None or promotion.code_after is None:
            return ""
        is_undone = self.code.undo(CodeMerge(promotion.code_before, promotion.code_after))
        return "The merged code was moved back." if is_undone else ""

    def _undo_or_say(self, promotion: Promotion) -> str:
        try:
            return self._undo_code(promotion)
        except OrchestratorError as error:
            return (
                f"Its code ({(promotion.code_after or '')[:12]}) could not be moved back: {error.message} "
                "No row was written. Promote again to write the rows, or revert the merge by hand."
            )

    def _record(
        self,
        promotion: Promotion,
        work: Work,
        phase: Phase,
        result: Result | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        self.audit.append(
            AuditEvent(
                work.actor,
                f"change.{work.kind.value}",
                target=work.change.id,
                tenant=work.change.tenant_name,
                phase=phase,
                approver=", ".join(work.approvers),
                result=result,
                details={"promotion": promotion.id, "digest": work.change.digest, **(details or {})},
            )
        )

    def recover(self, promotion: Promotion, settle: Settle) -> PromotionState:
        """Find out what a promotion that nobody runs any more did, and write it down.

        A running one (its lock is held) and one production cannot tell about yet are left as they are.
        """
        with advisory_lock(self.store, "promotion", promotion.change_id) as taken:
            if not taken:
                return promotion.state
            with self.store.connect() as connection:
                promotion = promotions.get(connection, promotion.id)
            if not promotion.is_open:
                return promotion.state
            state = self._end_of(promotion)
            if state is TransactionState.COMMITTED:
                self._finish_recovered(promotion, settle)
                return PromotionState.COMMITTED
            if state is not TransactionState.ABORTED:
                return promotion.state
            try:
                undone = self._undo_code(promotion)
            except OutsideFailure as error:  # the repository is away: its part is set right by a later round
                LOG.warning("promote.code_waits", promotion=promotion.id, code=error.code)
                return promotion.state
            except OrchestratorError:
                undone = None
            stopped = Interrupted("The control plane stopped while promoting; nothing was written.")
            self._fail(promotion, None, stopped, undone=undone)
            return PromotionState.FAILED

    def _end_of(self, promotion: Promotion) -> TransactionState:
        """COMMIT is sent only once COMMITTING is journaled, so an earlier step cannot have written anything."""
        if promotion.transaction_id is None:
            is_merged = promotion.step is PromotionStep.COMMITTING  # code alone: the branch had moved
            return TransactionState.COMMITTED if is_merged else TransactionState.ABORTED
        state = self._state_of(promotion.transaction_id)
        if state is TransactionState.UNKNOWN and promotion.step is not PromotionStep.COMMITTING:
            return TransactionState.ABORTED
        return state

    def declare(self, promotion: Promotion, settle: Settle, *, is_written: bool) -> None:
        """End a promotion production cannot tell about any more, by the word of somebody who has looked.

        Raises PromotionRunning while it is under way.
        """
        with advisory_lock(self.store, "promotion", promotion.change_id) as taken:
            if not taken:
                raise PromotionRunning("It is under way right now.", effect="Nothing was declared.")
            if is_written:
                self._finish_recovered(promotion, settle)
            else:
                self._fail(promotion, None, Interrupted("Declared as not written by a person who looked."))

    def _finish_recovered(self, promotion: Promotion, settle: Settle) -> None:
        with self.store.begin() as connection:
            done = promotions.set_state(connection, promotion.id, PromotionState.COMMITTED)
            settle(connection, done)
        LOG.info("promote.recovered", promotion=promotion.id, change=promotion.change_id)


class Interrupted(OutsideFailure):
    code = "outside_failure.interrupted"


class NotWritten(OutsideFailure):
    """The connection was lost at the commit, and production says that it was not done."""

    code = "outside_failure.not_written"


def _not_written(error: OutcomeUnknown) -> NotWritten:
    return NotWritten(
        "The connection to production was lost at the commit, and production rolled it back.",
        effect="Nothing was written.",
        next_step="Promote again.",
        transaction_id=error.transaction_id,
    )


def _counts(applied: Applied | None) -> dict[str, Any]:
    if applied is None:
        return {}
    return {
        "inserted": applied.inserted,
        "updated": applied.updated,
        "deleted": applied.deleted,
        "unchanged": applied.unchanged,
    }


def _report(applied: Applied) -> dict[str, Any]:
    return {
        "assigned": {place: dict(values) for place, values in applied.assigned.items()},
        "side_effects": {name: dict(counts) for name, counts in applied.side_effects.items()},
        "findings": [finding.document() for finding in applied.findings[:200]],
        "migrations": list(applied.migrations),
        "duration_s": round(applied.duration_s, 3),
    }


def _leave_to_triggers(order: PromotionOrder, findings: Sequence[Finding]) -> PromotionOrder | None:
    """Cells a trigger wrote itself are left to it: they must come out as proposed, or be a time it stamps.

    Nothing has been written when this is asked; None when something else stands in the way.
    """
    if not findings or any(finding.code != "trigger_override" for finding in findings):
        return None
    tables = {row.id(): row.table for row in order.changeset.rows}
    derived, decided = set(order.derived), set(order.decided)
    for finding in findings:
        cell = CellName(finding.row, finding.column)
        if cell.row not in tables:
            return None
        if cell not in derived:
            derived.add(cell)
        elif order.changeset.shapes[tables[cell.row]].column(cell.column).base.startswith(_CLOCKS):
            derived.discard(cell)
            decided.add(cell)
        else:
            return None
    return replace(order, derived=frozenset(derived), decided=frozenset(decided))
