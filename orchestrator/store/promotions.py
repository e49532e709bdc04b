"""Remembering promotes and reverts: the intent first, the transaction's id before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import Connection, Engine, Row, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from orchestrator.core.actors import Actor
from orchestrator.core.changes import Change, ChangeStateConflict
from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.names import new_id
from orchestrator.core.promotions import (
    Promotion,
    PromotionKind,
    PromotionMissing,
    PromotionRunning,
    PromotionState,
    PromotionStep,
)
from orchestrator.store.changes import actor_document, actor_of, packed, unpacked
from orchestrator.store.changes import get as get_change
from orchestrator.store.tables.promotions import PROMOTIONS

NOW = func.clock_timestamp()
_COLUMNS = [PROMOTIONS.c[field.name] for field in fields(Promotion)]


def _promotion(row: Row[Any]) -> Promotion:
    values = dict(row._mapping)
    values["kind"] = PromotionKind(values["kind"])
    values["state"] = PromotionState(values["state"])
    values["step"] = PromotionStep(values["step"])
    values["actor"] = actor_of(values["actor"])
    values["approvers"] = tuple(values["approvers"])
    values["migrations"] = tuple(values["migrations"])
    return Promotion(**values)


def begin(engine: Engine, seen: Change, kind: PromotionKind, *, actor: Actor, approvers: Sequence[str]) -> Promotion:
    """Record the intent, for the change as it was seen.

    Raises PromotionRunning when one is open or was committed (exactly one may win), ChangeStateConflict when the
    change is another one by now.
    """
    change_id = seen.id
    try:
        with engine.begin() as connection:
            now = get_change(connection, change_id, for_update=True)
            if (now.version, now.digest, now.state) != (seen.version, seen.digest, seen.state):
                raise ChangeStateConflict(
                    f"Change {change_id} is {now.state.value} and was changed meanwhile.",
                    effect="Production was not touched.",
                    next_step="Look at it again.",
                )
            row = connection.execute(
                insert(PROMOTIONS)
                .values(
                    id=new_id("p"),
                    change_id=change_id,
                    kind=kind,
                    state=PromotionState.RUNNING,
                    step=PromotionStep.PLANNED,
                    digest=seen.digest,
                    actor=actor_document(actor),
                    approvers=list(approvers),
                )
                .returning(*_COLUMNS)
            ).one()
    except IntegrityError as error:
        if "uq_promotions_open" not in str(error.orig):
            raise
        raise PromotionRunning(
            f"A {kind.value} of change {change_id} is under way or done already.",
            effect="This one did nothing.",
            next_step=f"`orchestrator change show {change_id}` tells how it ended.",
        ) from error
    return _promotion(row)


def take(engine: Engine, promotion_id: str, step: PromotionStep, **values: Any) -> None:
    """`step` is about to be taken; `values` are columns known by now."""
    with engine.begin() as connection:
        connection.execute(update(PROMOTIONS).where(PROMOTIONS.c.id == promotion_id).values(step=step, **values))


def set_state(
    connection: Connection,
    promotion_id: str,
    state: PromotionState,
    *,
    inverse: Changeset | None = None,
    finished: bool = True,
    **values: Any,
) -> Promotion:
    if inverse is not None:
        values["inverse"] = packed(inverse)
    if finished:
        values["finished_at"] = NOW
    row = connection.execute(
        update(PROMOTIONS).where(PROMOTIONS.c.id == promotion_id).values(state=state, **values).returning(*_COLUMNS)
    ).one()
    return _promotion(row)


def keep_inverse(engine: Engine, promotion_id: str, inverse: Changeset, **values: Any) -> None:
    """Written before the commit, so that a promote whose answer is lost can still be reverted."""
    with engine.begin() as connection:
        connection.execute(
            update(PROMOTIONS)
            .where(PROMOTIONS.c.id == promotion_id)
            .values(step=PromotionStep.COMMITTING, inverse=packed(inverse), **values)
        )


def get(connection: Connection, promotion_id: str) -> Promotion:
    """Raises PromotionMissing."""
    row = connection.execute(select(*_COLUMNS).where(PROMOTIONS.c.id == promotion_id)).one_or_none()
    if row is None:
        raise PromotionMissing(f"There is no promotion {ascii(promotion_id)[:60]}.")
    return _promotion(row)


def inverse(connection: Connection, promotion_id: str) -> Changeset | None:
    content = connection.scalar(select(PROMOTIONS.c.inverse).where(PROMOTIONS.c.id == promotion_id))
    return None if content is None else unpacked(content)


def of_change(connection: Connection, change_id: str) -> list[Promotion]:
    """Every try, the newest first."""
    query = select(*_COLUMNS).where(PROMOTIONS.c.change_id == change_id).order_by(PROMOTIONS.c.started_at.desc())
    return [_promotion(row) for row in connection.execute(query)]


def open_ones(connection: Connection) -> list[Promotion]:
    """Those whose end is not known: under way, or left behind by a process that died."""
    states = (PromotionState.RUNNING, PromotionState.UNKNOWN)
    query = select(*_COLUMNS).where(PROMOTIONS.c.state.in_(states)).order_by(PROMOTIONS.c.started_at)
    return [_promotion(row) for row in connection.execute(query)]


def migrations_run(connection: Connection) -> dict[str, str]:
    """Path → digest of every migration that a committed promote has run."""
    query = select(PROMOTIONS.c.migrations).where(
        PROMOTIONS.c.state == PromotionState.COMMITTED, PROMOTIONS.c.kind == PromotionKind.PROMOTE
    )
    found: dict[str, str] = {}
    for (items,) in connection.execute(query.order_by(PROMOTIONS.c.finished_at)):
        found |= {item["path"]: item["digest"] for item in _documents(items)}
    return found


def _documents(items: Any) -> Sequence[Mapping[str, str]]:
    return list(items or ())
