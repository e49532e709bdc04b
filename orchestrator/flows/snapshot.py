"""Taking, listing and pruning snapshots of production.

A snapshot is made beside everything else and published by one rename; whatever goes wrong before that leaves
the last good one in force, and the record says at which step and why.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, Engine

from orchestrator import logs
from orchestrator.core import preflight
from orchestrator.core.masking.plan import MaskingPlan, plan
from orchestrator.core.masking.rules import DEFAULT_PROFILE, Masking
from orchestrator.core.names import new_id
from orchestrator.core.places import Places
from orchestrator.core.ports.engine import ContainerLimits
from orchestrator.core.ports.servers import ServerKind, ServerSpec
from orchestrator.core.ports.snapshots import (
    ClearTextLeft,
    CountsDiffer,
    Dumped,
    Masked,
    Sealed,
    Source,
    SourceFacts,
    Workshop,
)
from orchestrator.core.ports.volume import DiskFull, Volume
from orchestrator.core.snapshots import Manifest, Snapshot, SnapshotState, SnapshotStep, TableReport
from orchestrator.errors import Conflict, OrchestratorError
from orchestrator.parts.generation import SERVICE_UID, Generations, tree_size
from orchestrator.store import generations as generation_store
from orchestrator.store import snapshots as store
from orchestrator.store.session import advisory_lock

BUILDER_LIMITS = ContainerLimits(memory_bytes=1 << 30, cpus=2.0, pids=64)
MANIFEST = "manifest.json"
KEEP_PER_PROFILE = 2
# Dump, restored database and its largest table's rewrite lie side by side for a while.
SPACE_FACTOR = 2.5
LOG = logs.get("snapshot")

OnStep = Callable[[SnapshotStep, float, str], None]
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
    workshop: Workshop
    volume: Volume
    places: Places
    generations: Generations
    instance: str
    masking: Callable[[], Masking]
    key: Callable[[], bytes]
    image: str = ""  # the tenants' PostgreSQL image; empty for the installation's own
    references: Sequence[References] = ()
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))

    def take(self, source: Source, *, profile: str = DEFAULT_PROFILE, on_step: OnStep | None = None) -> Snapshot:
        """Make a snapshot of `source` for `profile`; it is in force when this returns.

        `on_step` hears of every step with the share of it that is done. Raises SnapshotBusy when one is being
        taken, Unclassified, InvalidMasking, UnknownProfile, SourceUnfit, DiskFull, or a SnapshotFailed.
        """
        with advisory_lock(self.control, "snapshot") as taken:
            if not taken:
                raise SnapshotBusy("A snapshot is being taken already.", next_step="Wait until it is finished.")
            self._clear_interrupted()
            return _Taking(self, source, profile, on_step or (lambda *_: None)).run()

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

    def prune(self, *, keep: int = KEEP_PER_PROFILE) -> list[str]:
        """Delete ready snapshots beyond the newest `keep` of each profile that nothing refers to; returns their ids."""
        with advisory_lock(self.control, "snapshot") as taken:
            if not taken:
                raise SnapshotBusy("A snapshot is being taken.", next_step="Prune when it is finished.")
            with self.control.connect() as connection:
                ready = store.listed(connection, state=SnapshotState.READY, limit=10_000)
            removed = [snapshot.id for snapshot in _beyond(ready, max(1, keep)) if self._drop(snapshot.id)]
        return removed

    def recover(self) -> list[str]:
        """Finish or undo what a killed process left; returns the ids it touched. Does nothing while one is taken."""
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
            limits=BUILDER_LIMITS,
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

    def _clear_interrupted(self) -> list[str]:
        with self.control.connect() as connection:
            building = store.listed(connection, state=SnapshotState.BUILDING)
            removed = store.listed(connection, state=SnapshotState.REMOVED, limit=10_000)
        for snapshot in building:
            self.discard(snapshot.id)
            manifest = self.places.snapshot(snapshot.id) / MANIFEST
            with self.control.begin() as connection:
                if manifest.is_file():  # it was published; only its record was not
                    found = Manifest.from_document(json.loads(manifest.read_text()))
                    store.set_ready(connection, snapshot.id, found, now=self.now())
                else:
                    store.set_failed(
                        connection,
                        snapshot.id,
                        code="outside_failure.interrupted",
                        message="The process taking it ended.",
                        now=self.now(),
                    )
            LOG.warning("snapshot.recovered", snapshot=snapshot.id, published=manifest.is_file())
        for snapshot in removed:
            if self.places.snapshot(snapshot.id).exists():
                self.volume.remove_tree(self.places.snapshot(snapshot.id))
        return [snapshot.id for snapshot in building]

    def _drop(self, snapshot_id: str) -> bool:
        if snapshot_id in self.in_use() or not self.generations.remove_base(snapshot_id):
            return False
        with self.control.begin() as connection:
            store.set_removed(connection, snapshot_id)
        self.volume.remove_tree(self.places.snapshot(snapshot_id))
        LOG.info("snapshot.removed", snapshot=snapshot_id)
        return True


class _Taking:
    """One run of `take`, step by step."""

    def __init__(self, flow: Snapshots, source: Source, profile: str, on_step: OnStep) -> None:
        self.flow = flow
        self.source = source
        self.profile = profile
        self.on_step = on_step
        self.id = new_id("s")
        self.spec = flow.spec(self.id)
        self.step = SnapshotStep.INSPECT

    def run(self) -> Snapshot:
        flow = self.flow
        masking = flow.masking()
        masking.profile(self.profile)
        with flow.control.begin() as connection:
            store.add(
                connection,
                self.id,
                profile=self.profile,
                source=self.source.description,
                image=flow.image,
                now=flow.now(),
            )
        LOG.info("snapshot.started", snapshot=self.id, profile=self.profile, source=self.source.description)
        try:
            manifest = self._build(masking)
            self._enter(SnapshotStep.PUBLISH, "publishing")
            self._publish(manifest)
        except BaseException as error:
            self._fail(error)
            raise
        with flow.control.begin() as connection:
            store.set_ready(connection, self.id, manifest, now=flow.now())
        LOG.info("snapshot.ready", snapshot=self.id, rows=manifest.rows, bytes=manifest.size_bytes)
        return flow.get(self.id)

    def _build(self, masking: Masking) -> Manifest:
        workshop, spec = self.flow.workshop, self.spec
        self._enter(SnapshotStep.INSPECT, "looking at the source")
        facts = workshop.inspect(spec, self.source)
        if facts.columns:
            plan(masking, self.profile, facts.columns)
        self._check_space(facts)
        preflight.check(facts, workshop.open(spec))
        self._enter(SnapshotStep.DUMP, "reading the source")
        dumped = workshop.dump(spec, self.source, facts, self._progress)
        self._enter(SnapshotStep.RESTORE, "restoring")
        workshop.restore(spec, dumped, facts, self._progress)
        self._enter(SnapshotStep.CHECK, "checking")
        restored = workshop.row_counts(spec)
        _check_counts(dumped.rows, restored)
        chosen = self._plan(masking)
        self._enter(SnapshotStep.MASK, "masking")
        masked = workshop.mask(spec, chosen, self.flow.key(), self._progress)
        kept = workshop.row_counts(spec)
        self._enter(SnapshotStep.REWRITE, "rewriting")
        workshop.rewrite(spec, masked.tables, self._progress)
        self._enter(SnapshotStep.SEAL, "sealing")
        sealed = workshop.seal(spec, snapshot_id=self.id, taken_at=dumped.taken_at)
        self._enter(SnapshotStep.SEARCH, "searching for clear text")
        self._search(masked)
        reports = {
            name: TableReport(dumped.rows.get(name), restored[name], kept.get(name, 0)) for name in sorted(restored)
        }
        return self._manifest(facts, dumped, chosen, masked, sealed, reports)

    def _plan(self, masking: Masking) -> MaskingPlan:
        chosen = plan(masking, self.profile, self.flow.workshop.columns(self.spec))
        for note in chosen.notes:
            LOG.warning("snapshot.stale_rule", snapshot=self.id, note=note)
        return chosen

    def _check_space(self, facts: SourceFacts) -> None:
        needed, free = int(facts.size_bytes * SPACE_FACTOR), self.flow.volume.free_bytes()
        if free < needed:
            raise DiskFull(
                f"A snapshot of this source needs about {needed >> 20} MB, the volume has {free >> 20} MB free.",
                effect="Nothing was read; the last good snapshot stays in force.",
                next_step="Free space (`orchestrator snapshot prune`) or enlarge the volume.",
            )

    def _search(self, masked: Masked) -> None:
        found = self.flow.workshop.search(self.spec.data, masked.samples)
        if found:
            raise ClearTextLeft(
                f"Values that were to be masked are still in {len(found)} file(s) of the snapshot.",
                effect="It was deleted; the last good one stays in force.",
                next_step="A column that is kept probably repeats masked values; mask it too, or set `canary: false`.",
                files=found[:20],
            )

    def _manifest(
        self,
        facts: SourceFacts,
        dumped: Dumped,
        chosen: MaskingPlan,
        masked: Masked,
        sealed: Sealed,
        reports: Mapping[str, TableReport],
    ) -> Manifest:
        files, size_bytes = tree_size(self.spec.data)
        return Manifest(
            snapshot_id=self.id,
            profile=self.profile,
            source=self.source.description,
            taken_at=dumped.taken_at,
            server_version=facts.version,
            major=int((self.spec.data / "PG_VERSION").read_text().split(".")[0]),
            encoding=facts.encoding,
            collation=facts.locale or facts.collate,
            origin_lsn=sealed.origin_lsn,
            system_id=sealed.system_id,
            files=files,
            size_bytes=size_bytes,
            tables=reports,
            masked=chosen.methods,
            canaries=len(masked.samples),
            checksummed_blocks=sealed.checksummed_blocks,
            extensions=dict(facts.extensions),
            left_out=facts.left_out,
        )

    def _publish(self, manifest: Manifest) -> None:
        """One rename makes it a snapshot; durable before and after."""
        building, target = self.flow.places.building(self.id), self.flow.places.snapshot(self.id)
        with (building / MANIFEST).open("w") as file:
            json.dump(manifest.document(), file, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        target.parent.mkdir(parents=True, exist_ok=True)
        _fsync_directory(building)
        building.rename(target)
        _fsync_directory(target.parent)
        self.flow.volume.freeze_tree(target)
        self.flow.discard(self.id)

    def _enter(self, step: SnapshotStep, text: str) -> None:
        self.step = step
        with self.flow.control.begin() as connection:
            store.set_step(connection, self.id, step)
        self.on_step(step, 0.0, text)

    def _progress(self, share: float, text: str) -> None:
        self.on_step(self.step, share, text)

    def _fail(self, error: BaseException) -> None:
        """Say so loudly, in the record and the log, and leave nothing behind but the record."""
        code = error.code if isinstance(error, OrchestratorError) else "outside_failure.unexpected"
        message = str(error) or type(error).__name__
        LOG.error("snapshot.failed", snapshot=self.id, profile=self.profile, step=self.step, code=code, reason=message)
        with self.flow.control.begin() as connection:
            store.set_failed(connection, self.id, code=code, message=message, now=self.flow.now())
        with suppress(OrchestratorError, OSError):
            self.flow.discard(self.id)
            self.flow.volume.remove_tree(self.flow.places.snapshot(self.id))


def _check_counts(source: Mapping[str, int], restored: Mapping[str, int]) -> None:
    wrong = [name for name in sorted(source) if source[name] != restored.get(name)]
    if wrong:
        shown = ", ".join(f"{name}: {source[name]} in the source, {restored.get(name)} restored" for name in wrong[:5])
        raise CountsDiffer(f"{len(wrong)} table(s) were not restored completely: {shown}.", tables=wrong)


def _beyond(newest_first: Sequence[Snapshot], keep: int) -> list[Snapshot]:
    """All but the newest `keep` of each profile, by the age of their data."""
    seen: dict[str, int] = {}
    beyond = []
    for snapshot in sorted(newest_first, key=lambda each: (each.taken_at, each.started_at), reverse=True):
        seen[snapshot.profile] = seen.get(snapshot.profile, 0) + 1
        if seen[snapshot.profile] > keep:
            beyond.append(snapshot)
    return beyond


def _fsync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
