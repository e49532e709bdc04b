"""One run of taking a snapshot, step by step."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator import logs
from orchestrator.core import preflight
from orchestrator.core.actors import Actor
from orchestrator.core.audit import AuditEvent, Phase, Result
from orchestrator.core.masking.plan import MaskingPlan, plan
from orchestrator.core.masking.rules import Masking
from orchestrator.core.names import new_id
from orchestrator.core.ports.snapshots import (
    ClearTextLeft,
    CountsDiffer,
    Dumped,
    Masked,
    Sealed,
    Source,
    SourceFacts,
)
from orchestrator.core.ports.volume import DiskFull
from orchestrator.core.snapshots import Manifest, Snapshot, SnapshotStep, TableReport
from orchestrator.errors import OrchestratorError
from orchestrator.parts.generation import tree_size
from orchestrator.store import snapshots as store

if TYPE_CHECKING:
    from orchestrator.flows.snapshot.flow import Snapshots

MANIFEST = "manifest.json"
# Dump, restored database and its largest table's rewrite lie side by side for a while.
SPACE_FACTOR = 2.5
LOG = logs.get("snapshot")
OnStep = Callable[[SnapshotStep, float, str], None]


class Taking:
    """Makes the snapshot `id`; `run` returns it, or fails leaving nothing but its record."""

    def __init__(self, flow: Snapshots, source: Source, profile: str, actor: Actor, on_step: OnStep) -> None:
        self.flow = flow
        self.source = source
        self.profile = profile
        self.on_step = on_step
        self.id = new_id("s")
        self.spec = flow.spec(self.id)
        self.step = SnapshotStep.INSPECT
        self.event = AuditEvent(
            actor,
            "snapshot.take",
            target=self.id,
            phase=Phase.BEFORE,
            details={"profile": profile, "source": source.description},
        )

    def run(self) -> Snapshot:
        flow = self.flow
        masking = flow.masking()
        masking.profile(self.profile)
        flow.audit.append(self.event)
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
        self._note(Result.OK, {"rows": manifest.rows, "size_bytes": manifest.size_bytes})
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
        self._note(Result.FAILED, {"step": str(self.step), "code": code})
        with suppress(OrchestratorError, OSError):
            self.flow.discard(self.id)
            self.flow.volume.remove_tree(self.flow.places.snapshot(self.id))

    def _note(self, result: Result, details: dict[str, object]) -> None:
        self.flow.audit.append(replace(self.event, phase=Phase.AFTER, result=result, details=details))


def _check_counts(source: Mapping[str, int], restored: Mapping[str, int]) -> None:
    wrong = [name for name in sorted(source) if source[name] != restored.get(name)]
    if wrong:
        shown = ", ".join(f"{name}: {source[name]} in the source, {restored.get(name)} restored" for name in wrong[:5])
        raise CountsDiffer(f"{len(wrong)} table(s) were not restored completely: {shown}.", tables=wrong)


def _fsync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
