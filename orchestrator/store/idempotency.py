"""Idempotency keys: claimed before the work, answered after it, kept for a day."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from orchestrator.errors import Conflict, InvalidInput
from orchestrator.store.tables.idempotency import IDEMPOTENCY

KEPT_S = 86_400.0
# A claim without an answer is from a process that died, once it is older than any request may take.
ABANDONED_S = 900.0


class KeyReused(InvalidInput):
    """The key came with another request before."""

    code = "invalid.idempotency_key_reused"


class KeyBusy(Conflict):
    """The first request with this key is still under way."""

    code = "conflict.idempotency_key_busy"


@dataclass(frozen=True)
class Answer:
    """What the first request with the key was answered."""

    status: int
    body: Any


def claim(engine: Engine, owner: str, key: str, request_digest: bytes) -> Answer | None:
    """None: the key is ours now, do the work. An Answer: it was done before. Raises KeyReused or KeyBusy."""
    age = func.now() - IDEMPOTENCY.c.created_at
    is_over = (age > _span(KEPT_S)) | ((age > _span(ABANDONED_S)) & IDEMPOTENCY.c.status.is_(None))
    with engine.begin() as connection:
        connection.execute(delete(IDEMPOTENCY).where(is_over))
        is_ours = connection.execute(
            upsert(IDEMPOTENCY)
            .values(owner=owner, key=key, request_digest=request_digest)
            .on_conflict_do_nothing()
            .returning(IDEMPOTENCY.c.key)
        ).one_or_none()
        if is_ours is not None:
            return None
        known = connection.execute(
            select(IDEMPOTENCY).where(IDEMPOTENCY.c.owner == owner, IDEMPOTENCY.c.key == key)
        ).one()
    if bytes(known.request_digest) != request_digest:
        raise KeyReused(
            "This idempotency key was used for another request.",
            effect="Nothing was done.",
            next_step="Use a new key for every new request.",
        )
    if known.status is None:
        raise KeyBusy("The first request with this idempotency key is still under way.", next_step="Ask again soon.")
    return Answer(known.status, known.body)


def answer(engine: Engine, owner: str, key: str, status: int, body: Any) -> None:
    with engine.begin() as connection:
        connection.execute(
            update(IDEMPOTENCY)
            .where(IDEMPOTENCY.c.owner == owner, IDEMPOTENCY.c.key == key)
            .values(status=status, body=body)
        )


def forget(engine: Engine, owner: str, key: str) -> None:
    """The request failed: the key may be used again."""
    with engine.begin() as connection:
        connection.execute(delete(IDEMPOTENCY).where(IDEMPOTENCY.c.owner == owner, IDEMPOTENCY.c.key == key))


def _span(seconds: float) -> Any:
    return func.make_interval(0, 0, 0, 0, 0, 0, seconds)
