"""Remembering changes: every write states which version it saw."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from orchestrator.core.actors import Actor, ActorKind
from orchestrator.core.changes import (
    Change,
    ChangeApproval,
    ChangeEvent,
    ChangeMissing,
    ChangeState,
    ChangeStateConflict,
    Comment,
    Counts,
)
from orchestrator.core.changeset import json_form
from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.names import new_id
from orchestrator.store import outbox
from orchestrator.store.tables.changes import CHANGE_APPROVALS, CHANGE_COMMENTS, CHANGE_EVENTS, CHANGES
from orchestrator.store.tables.promotions import PROMOTIONS

NOW = func.clock_timestamp()
LIST_MAX = 500
_COUNTS = ("inserted", "updated", "deleted")
_COLUMNS = [CHANGES.c[field.name] for field in fields(Change) if field.name != "counts"] + [
    CHANGES.c[name] for name in _COUNTS
]


def actor_document(actor: Actor) -> dict[str, str]:
    return {"kind": actor.kind.value, "id": actor.id, "name": actor.name, "on_behalf_of": actor.on_behalf_of}


def actor_of(document: Mapping[str, str]) -> Actor:
    return Actor(ActorKind(document["kind"]), document["id"], document["name"], document.get("on_behalf_of", ""))


def packed(changeset: Changeset) -> bytes:
    return zlib.compress(json_form.dump(changeset).encode(), 6)


def unpacked(content: bytes) -> Changeset:
    """Raises InvalidChangeset when what was stored does not match its own digest."""
    return json_form.load(zlib.decompress(content))


def _change(row: Row[Any]) -> Change:
    values = dict(row._mapping)
    counts = Counts(*(values.pop(name) for name in _COUNTS))
    values["state"] = ChangeState(values["state"])
    values["author"] = actor_of(values["author"])
    values["tables"] = tuple(values["tables"])
    values["risks"] = tuple(values["risks"])
    return Change(**values, counts=counts)


def add(
    connection: Connection,
    *,
    tenant_id: str,
    tenant_name: str,
    title: str,
    description: str,
    author: Actor,
    generation_id: str | None,
    changeset: Changeset,
    digest: str,
    code_head: str | None,
) -> Change:
    """A new draft."""
    row = connection.execute(
        insert(CHANGES)
        .values(
            id=new_id("c"),
            tenant_id=tenant_id,
            tenant_name=tenant_name,
            title=title,
            description=description,
            state=ChangeState.DRAFT,
            author=actor_document(author),
            generation_id=generation_id,
            code_head=code_head,
            digest=digest,
            **_content(changeset),
        )
        .returning(*_COLUMNS)
    ).one()
    return _change(row)


def _content(changeset: Changeset) -> dict[str, Any]:
    counts = changeset.counts()
    return {
        "base_snapshot_id": changeset.base_snapshot_id,
        "rows_digest": changeset.digest(),
        "inserted": counts["insert"],  # type: ignore[index]
        "updated": counts["update"],  # type: ignore[index]
        "deleted": counts["delete"],  # type: ignore[index]
        "tables": [str(shape.table) for shape in changeset.tables],
        "changeset": packed(changeset),
    }


def get(connection: Connection, change_id: str, *, for_update: bool = False) -> Change:
    """Raises ChangeMissing."""
    query = select(*_COLUMNS).where(CHANGES.c.id == change_id)
    row = connection.execute(query.with_for_update() if for_update else query).one_or_none()
    if row is None:
        raise ChangeMissing(
            f"There is no change {ascii(change_id)[:60]}.", next_step="`orchestrator change list` names them."
        )
    return _change(row)


def changeset(connection: Connection, change_id: str) -> Changeset:
    """The rows of a change. Raises ChangeMissing."""
    content = connection.scalar(select(CHANGES.c.changeset).where(CHANGES.c.id == change_id))
    if content is None:
        raise ChangeMissing(f"There is no change {ascii(change_id)[:60]}.")
    return unpacked(content)


def listed(
    connection: Connection,
    *,
    tenant_id: str | None = None,
    states: Sequence[ChangeState] = (),
    before: datetime | None = None,
    limit: int = 50,
) -> list[Change]:
    """The newest first."""
    query = select(*_COLUMNS).order_by(CHANGES.c.created_at.desc(), CHANGES.c.id.desc()).limit(min(limit, LIST_MAX))
    if tenant_id is not None:
        query = query.where(CHANGES.c.tenant_id == tenant_id)
    if states:
        query = query.where(CHANGES.c.state.in_(states))
    if before is not None:
        query = query.where(CHANGES.c.created_at < before)
    return [_change(row) for row in connection.execute(query)]


def counted(connection: Connection) -> dict[str, int]:
    """How many changes there are in each state."""
    rows = connection.execute(select(CHANGES.c.state, func.count()).group_by(CHANGES.c.state))
    return {state: int(number) for state, number in rows}


def save(connection: Connection, seen: Change, **values: Any) -> Change:
    """Write `values` if the change is still the version that was seen and nobody is promoting it.

    Raises ChangeStateConflict.
    """
    promoting = select(PROMOTIONS.c.id).where(
        PROMOTIONS.c.change_id == seen.id, PROMOTIONS.c.state.in_(("running", "unknown"))
    )
    row = connection.execute(
        update(CHANGES)
        .where(CHANGES.c.id == seen.id, CHANGES.c.version == seen.version, ~promoting.exists())
        .values(version=CHANGES.c.version + 1, updated_at=NOW, **values)
        .returning(*_COLUMNS)
    ).one_or_none()
    if row is None:
        raise ChangeStateConflict(
            f"Change {seen.id} was changed by somebody else meanwhile, or is being promoted.",
            effect="Nothing was done.",
            next_step="Look at it again and repeat if it still applies.",
        )
    return _change(row)


def save_rows(connection: Connection, seen: Change, changeset: Changeset, **values: Any) -> Change:
    """Replace the rows: whatever was agreed to about the old ones is void. Raises ChangeStateConflict."""
    void_approvals(connection, seen.id, "the change was edited")
    return save(connection, seen, **_content(changeset), **values)


def comment(connection: Connection, change_id: str, author: Actor, text: str, *, row: str = "") -> Comment:
    found = connection.execute(
        insert(CHANGE_COMMENTS)
        .values(id=new_id("m"), change_id=change_id, author=actor_document(author), text=text, row=row)
        .returning(*CHANGE_COMMENTS.c)
    ).one()
    return _comment(found)


def _comment(row: Row[Any]) -> Comment:
    values = dict(row._mapping)
    values["author"] = actor_of(values["author"])
    return Comment(**values)


def comments(connection: Connection, change_id: str) -> list[Comment]:
    query = select(CHANGE_COMMENTS).where(CHANGE_COMMENTS.c.change_id == change_id).order_by(CHANGE_COMMENTS.c.at)
    return [_comment(row) for row in connection.execute(query.limit(LIST_MAX))]


def approve(connection: Connection, change: Change, actor: Actor, *, expires_at: datetime) -> ChangeApproval:
    row = connection.execute(
        insert(CHANGE_APPROVALS)
        .values(
            id=new_id("v"),
            change_id=change.id,
            actor=actor_document(actor),
            digest=change.digest,
            expires_at=expires_at,
        )
        .returning(*CHANGE_APPROVALS.c)
    ).one()
    return _approval(row)


def _approval(row: Row[Any]) -> ChangeApproval:
    values = dict(row._mapping)
    values["actor"] = actor_of(values["actor"])
    return ChangeApproval(**values)


def approvals(connection: Connection, change_id: str) -> list[ChangeApproval]:
    query = select(CHANGE_APPROVALS).where(CHANGE_APPROVALS.c.change_id == change_id).order_by(CHANGE_APPROVALS.c.at)
    return [_approval(row) for row in connection.execute(query)]


def void_approvals(connection: Connection, change_id: str, reason: str) -> int:
    return connection.execute(
        update(CHANGE_APPROVALS)
        .where(CHANGE_APPROVALS.c.change_id == change_id, CHANGE_APPROVALS.c.void_reason == "")
        .values(void_reason=reason)
    ).rowcount


def event(connection: Connection, change: Change, kind: str, actor: Actor, **data: Any) -> ChangeEvent:
    """Record what happened, and what webhooks are told of it, in the transaction in which it happens."""
    row = connection.execute(
        insert(CHANGE_EVENTS)
        .values(change_id=change.id, tenant_id=change.tenant_id, kind=kind, actor=actor_document(actor), data=data)
        .returning(CHANGE_EVENTS.c.number, CHANGE_EVENTS.c.at)
    ).one()
    told = {"title": change.title, "state": change.state.value, **data}
    outbox.put(connection, kind, subject=change.id, actor=actor.name, tenant_id=change.tenant_id, data=told)
    return ChangeEvent(row.number, change.id, kind, actor, row.at, data)


def events(
    connection: Connection, *, change_id: str | None = None, after: int = 0, limit: int = 200
) -> list[ChangeEvent]:
    """In order, after number `after`."""
    query = (select(CHANGE_EVENTS).where(CHANGE_EVENTS.c.number > after).order_by(CHANGE_EVENTS.c.number)).limit(
        min(limit, LIST_MAX)
    )
    if change_id is not None:
        query = query.where(CHANGE_EVENTS.c.change_id == change_id)
    return [_event(row) for row in connection.execute(query)]


def _event(row: Row[Any]) -> ChangeEvent:
    return ChangeEvent(row.number, row.change_id, row.kind, actor_of(row.actor), row.at, row.data)


def snapshots_in_use(connection: Connection) -> set[str]:
    """Snapshots that open changes were made on; they must be kept."""
    query = select(CHANGES.c.base_snapshot_id).where(
        CHANGES.c.state.in_([ChangeState.DRAFT, ChangeState.SUBMITTED, ChangeState.APPROVED, ChangeState.CONFLICTED])
    )
    return set(connection.scalars(query.distinct()))
