"""Snapshots in the control database."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from orchestrator.core.snapshots import Manifest, Snapshot, SnapshotMissing, SnapshotState, SnapshotStep
from orchestrator.store import outbox
from orchestrator.store.tables.snapshots import SNAPSHOTS


def _record(row: Row[tuple[object, ...]]) -> Snapshot:
    values: dict[str, Any] = dict(row._mapping)
    values["state"] = SnapshotState(values["state"])
    values["step"] = SnapshotStep(values["step"])
    values["manifest"] = Manifest.from_document(values["manifest"]) if values["manifest"] else None
    return Snapshot(**values)


def add(connection: Connection, snapshot_id: str, *, profile: str, source: str, image: str, now: datetime) -> None:
    """Record the intent before anything is made."""
    connection.execute(
        insert(SNAPSHOTS).values(
            id=snapshot_id,
            profile=profile,
            state=SnapshotState.BUILDING,
            step=SnapshotStep.INSPECT,
            source=source,
            image=image,
            started_at=now,
        )
    )


def get(connection: Connection, snapshot_id: str) -> Snapshot:
    """Raises SnapshotMissing."""
    row = connection.execute(select(SNAPSHOTS).where(SNAPSHOTS.c.id == snapshot_id)).one_or_none()
    if row is None:
        raise SnapshotMissing(
            f"There is no snapshot {ascii(snapshot_id)[:60]}.", next_step="`orchestrator snapshot list` names them."
        )
    return _record(row)


def listed(
    connection: Connection, *, profile: str | None = None, state: SnapshotState | None = None, limit: int = 200
) -> list[Snapshot]:
    """Newest first."""
    query = select(SNAPSHOTS).order_by(SNAPSHOTS.c.started_at.desc(), SNAPSHOTS.c.id).limit(limit)
    if profile is not None:
        query = query.where(SNAPSHOTS.c.profile == profile)
    if state is not None:
        query = query.where(SNAPSHOTS.c.state == state)
    return [_record(row) for row in connection.execute(query)]


def newest(connection: Connection, profile: str) -> Snapshot | None:
    """The good snapshot in force for `profile`: the newest data, whatever failed since."""
    query = (
        select(SNAPSHOTS)
        .where(SNAPSHOTS.c.profile == profile, SNAPSHOTS.c.state == SnapshotState.READY)
        .order_by(SNAPSHOTS.c.taken_at.desc(), SNAPSHOTS.c.started_at.desc())
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else _record(row)


def set_step(connection: Connection, snapshot_id: str, step: SnapshotStep) -> None:
    connection.execute(update(SNAPSHOTS).where(SNAPSHOTS.c.id == snapshot_id).values(step=step))


def set_ready(connection: Connection, snapshot_id: str, manifest: Manifest, *, now: datetime) -> None:
    connection.execute(
        update(SNAPSHOTS)
        .where(SNAPSHOTS.c.id == snapshot_id)
        .values(
            state=SnapshotState.READY,
            step=SnapshotStep.PUBLISH,
            taken_at=manifest.taken_at,
            finished_at=now,
            manifest=manifest.document(),
        )
    )


def set_failed(connection: Connection, snapshot_id: str, *, code: str, message: str, now: datetime) -> None:
    failed = connection.execute(
        update(SNAPSHOTS)
        .where(SNAPSHOTS.c.id == snapshot_id, SNAPSHOTS.c.state == SnapshotState.BUILDING)
        .values(state=SnapshotState.FAILED, error_code=code, error_message=message[:4000], finished_at=now)
    )
    if failed.rowcount:
        data = {"code": code, "error": message}
        outbox.put(connection, "snapshot.failed", subject=snapshot_id, actor="snapshot", data=data)


def set_removed(connection: Connection, snapshot_id: str) -> None:
    """Its files are gone; the record stays, for what refers to it in the past."""
    connection.execute(update(SNAPSHOTS).where(SNAPSHOTS.c.id == snapshot_id).values(state=SnapshotState.REMOVED))
