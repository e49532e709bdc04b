"""What may be done with snapshots: take, list, prune, recover."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, Engine

from orchestrator import logs
from orchestrator.core.actors import Actor, system
from orchestrator.core.audit import AuditEvent
from orchestrator.core.masking.rules import DEFAULT_PROFILE, Masking
from orchestrator.core.places import Places
from orchestrator.core.ports.audit import AuditLog
from orchestrator.core.ports.engine import ContainerLimits
from orchestrator.core.ports.servers import ServerKind, ServerSpec
from orchestrator.core.ports.snapshots import (
    Source,
    Workshop,
)
from orchestrator.core.ports.volume import Volume
from orchestrator.core.snapshots import Manifest, Snapshot, SnapshotMissing, SnapshotState
from orchestrator.errors import Conflict
from orchestrator.flows.snapshot.taking import MANIFEST, OnStep, Taking
from orchestrator.parts.generation import SERVICE_UID, Generations
from orchestrator.store import generations as generation_store
from orchestrator.store import snapshots as store
from orchestrator.store.session import advisory_lock

BUILDER_MEMORY_BYTES = 1 << 30
KEEP_PER_PROFILE = 2
LOG = logs.get("snapshot")
SCHEDULER = system("scheduler")

References = Callable[[Connection], set[str]]


class SnapshotBusy(Conflict):
    code = "conflict.snapshot_busy"


@dataclass(frozen=True)
class Snapshots:
    """What may be done with snapshots.

    `masking` and `key` are asked at every run, so an edited file counts from the next snapshot on.
    `references` name the snapshots that drafts and open changes still need.
    """

    control: Engine
    audit: AuditLog
    workshop: Workshop
    volume: Volume
    places: Places
    generations: Generations
    instance: str
    masking: Callable[[], Masking]
    key: Callable[[], bytes]
    image: str = ""  # the tenants' PostgreSQL image; empty for the installation's own
    references: Sequence[References] = ()
    builder_memory_bytes: int = BUILDER_MEMORY_BYTES
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))

    def take(
        self,
        source: Source,
        *,
        profile: str = DEFAULT_PROFILE,
        actor: Actor = SCHEDULER,
        on_step: OnStep | None = None,
    ) -> Snapshot:
        """Make a snapshot of `source` for `profile`; it is in force when this returns.

        `on_step` hears of every step with the share of it that is done. Raises SnapshotBusy when one is being
        taken, Unclassified, InvalidMasking, UnknownProfile, SourceUnfit, DiskFull, or a SnapshotFailed.
        """
        with advisory_lock(self.control, "snapshot") as taken:
            if not taken:
                raise SnapshotBusy("A snapshot is being taken already.", next_step="Wait until it is finished.")
            self._clear_interrupted()
            return Taking(self, source, profile, actor, on_step or (lambda *_: None)).run()

    def get(self, snapshot_id: str) -> Snapshot:
        """Raises SnapshotMissing."""
        with self.control.connect() as connection:
            return store.get(connection, snapshot_id)

    def listed(self, *, profile: str | None = None) -> list[Snapshot]:
        """Newest first; failed and removed ones too."""
        with self.control.connect() as connection:
            return store.listed(connection, profile=profile)

    def newest(self, profile: str) -> Snapshot | None:
        """The one in force."""
        with self.control.connect() as connection:
            return store.newest(connection, profile)

    def in_use(self) -> set[str]:
        """Snapshots that a generation, a draft or an open change refers to."""
        with self.control.connect() as connection:
            used = generation_store.snapshots_in_use(connection)
            for reference in self.references:
                used |= reference(connection)
        return used

    def prune(self, *, keep: int = KEEP_PER_PROFILE, actor: Actor = SCHEDULER) -> list[str]:
        """Delete ready snapshots beyond the newest `keep` of each profile that nothing refers to; returns their ids."""
        with advisory_lock(self.control, "snapshot") as taken:
            if not taken:
                raise SnapshotBusy("A snapshot is being taken.", next_step="Prune when it is finished.")
            with self.control.connect() as connection:
                ready = store.listed(connection, state=SnapshotState.READY, limit=10_000)
            removed = [snapshot.id for snapshot in _beyond(ready, max(1, keep)) if self._drop(snapshot.id, actor)]
        return removed

    def recover(self) -> list[str]:
        """Finish or undo what a killed process left; returns the ids it touched. Does nothing while one is taken."""
        if not self._has_leftovers():  # looked at without the lock, so as not to keep anybody from taking one
            return []
        with advisory_lock(self.control, "snapshot") as taken:
            return self._clear_interrupted() if taken else []

    def spec(self, snapshot_id: str) -> ServerSpec:
        """The builder of a snapshot in the making."""
        uid = SERVICE_UID if os.geteuid() == 0 else os.geteuid()
        return ServerSpec(
            name=f"{self.instance}-builder-{snapshot_id}",
            data=self.places.building(snapshot_id) / "data",
            sockets=self.places.server_sockets(f"k-{snapshot_id}"),
            uid=uid,
            limits=ContainerLimits(self.builder_memory_bytes, cpus=2.0, pids=64),
            kind=ServerKind.BUILDER,
            image=self.image,
        )

    def discard(self, snapshot_id: str) -> None:
        """Delete everything of a builder; fine when some or all is gone."""
        spec = self.spec(snapshot_id)
        self.workshop.close(spec)
        self.volume.remove_tree(self.places.building(snapshot_id))
        for socket in spec.sockets.glob(".s.*") if spec.sockets.is_dir() else ():
            socket.unlink(missing_ok=True)
        with suppress(OSError):
            spec.sockets.rmdir()

    def _has_leftovers(self) -> bool:
        with self.control.connect() as connection:
            if store.listed(connection, state=SnapshotState.BUILDING, limit=1):
                return True
        named = _names(self.places.snapshot("x").parent)
        return bool(_names(self.places.building("x").parent)) or any(self._is_gone(one) for one in named)

    def _clear_interrupted(self) -> list[str]:
        """The caller holds the lock, so nothing is being built by anybody."""
        with self.control.connect() as connection:
            building = [one.id for one in store.listed(connection, state=SnapshotState.BUILDING)]
        left = [one for one in _names(self.places.building("x").parent) if one not in building]
        for snapshot_id in (*building, *left):
            self.discard(snapshot_id)
        for snapshot_id in building:
            self._close(snapshot_id)
        gone = [one for one in _names(self.places.snapshot("x").parent) if self._is_gone(one)]
        for snapshot_id in gone:
            self.volume.remove_tree(self.places.snapshot(snapshot_id))
        return sorted({*building, *left, *gone})

    def _close(self, snapshot_id: str) -> None:
        manifest = self.places.snapshot(snapshot_id) / MANIFEST
        is_published = manifest.is_file()
        with self.control.begin() as connection:
            if is_published:  # only its record was not written any more
                found = Manifest.from_document(json.loads(manifest.read_text()))
                self.volume.freeze_tree(manifest.parent)
                store.set_ready(connection, snapshot_id, found, now=self.now())
            else:
                code, message = "outside_failure.interrupted", "The process taking it ended."
                store.set_failed(connection, snapshot_id, code=code, message=message, now=self.now())
        LOG.warning("snapshot.recovered", snapshot=snapshot_id, published=is_published)

    def _is_gone(self, snapshot_id: str) -> bool:
        """Recorded as removed or failed; a directory nobody knows of is left alone."""
        with self.control.connect() as connection:
            try:
                return store.get(connection, snapshot_id).state in (SnapshotState.REMOVED, SnapshotState.FAILED)
            except SnapshotMissing:
                return False

    def _drop(self, snapshot_id: str, actor: Actor) -> bool:
        if snapshot_id in self.in_use() or not self.generations.remove_base(snapshot_id):
            return False
        self.audit.append(AuditEvent(actor, "snapshot.remove", target=snapshot_id))
        with self.control.begin() as connection:
            store.set_removed(connection, snapshot_id)
        self.volume.remove_tree(self.places.snapshot(snapshot_id))
        LOG.info("snapshot.removed", snapshot=snapshot_id)
        return True


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []


def _beyond(newest_first: Sequence[Snapshot], keep: int) -> list[Snapshot]:
    """All but the newest `keep` of each profile, by the age of their data."""
    seen: dict[str, int] = {}
    beyond = []
    for snapshot in sorted(newest_first, key=lambda each: (each.taken_at, each.started_at), reverse=True):
        seen[snapshot.profile] = seen.get(snapshot.profile, 0) + 1
        if seen[snapshot.profile] > keep:
            beyond.append(snapshot)
    return beyond
