"""/api/v1/snapshots."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import Field

from orchestrator.api.asking import ACCEPTED, LaterDep
from orchestrator.api.deps import Body, OnceDep, ServicesDep, View, require
from orchestrator.api.jobs import JobView
from orchestrator.core.access import Principal, Scope
from orchestrator.core.jobs import actor_arguments
from orchestrator.core.snapshots import Snapshot
from orchestrator.store import jobs, tenants

router = APIRouter(prefix="/snapshots", tags=["snapshots"])
Reader = Annotated[Principal, require(Scope.SNAPSHOTS_READ)]
Writer = Annotated[Principal, require(Scope.SNAPSHOTS_WRITE)]


class TakeBody(Body):
    """A snapshot of one profile of configs/masking.yaml; with none named, of every profile tenants have."""

    profile: str = Field("", max_length=60)
    reason: str = Field("on demand", max_length=500)


class PruneBody(Body):
    """Keep so many of each profile, beside those something still refers to; 0 means the installation's default."""

    keep: int = Field(0, ge=0, le=1000)


class SnapshotView(View):
    """One snapshot. `taken_at` is the moment the data is of; `step` is where it is, or where it failed."""

    id: str
    profile: str
    state: str
    step: str
    source: str
    started_at: datetime
    taken_at: datetime | None
    finished_at: datetime | None
    rows: int | None
    size_bytes: int | None
    error_code: str | None
    error_message: str | None

    @classmethod
    def of(cls, snapshot: Snapshot) -> SnapshotView:
        values = {name: getattr(snapshot, name) for name in cls.model_fields if name not in ("rows", "size_bytes")}
        manifest = snapshot.manifest
        return cls(
            rows=manifest.rows if manifest else None, size_bytes=manifest.size_bytes if manifest else None, **values
        )


class SnapshotDetail(SnapshotView):
    """One snapshot with its manifest: counts by table, masked columns, versions, what was left out."""

    manifest: dict[str, Any] | None


@router.get("")
def list_snapshots(
    services: ServicesDep, who: Reader, profile: Annotated[str, Query(max_length=60)] = ""
) -> list[SnapshotView]:
    """The newest first, failed and removed ones too."""
    del who
    return [SnapshotView.of(one) for one in services.snapshots.listed(profile=profile or None)]


@router.get("/{snapshot_id}")
def show_snapshot(
    snapshot_id: Annotated[str, Path(max_length=40)], services: ServicesDep, who: Reader
) -> SnapshotDetail:
    """One snapshot and its manifest."""
    del who
    found = services.snapshots.get(snapshot_id)
    document = found.manifest.document() if found.manifest else None
    return SnapshotDetail(**SnapshotView.of(found).model_dump(), manifest=document)


@router.post("", status_code=202, response_model=JobView)
def take_snapshot(body: TakeBody, services: ServicesDep, who: Writer, once: OnceDep) -> Any:
    """Ask for a snapshot; the answer is the job that takes it."""
    if body.profile:
        services.snapshots.masking().profile(body.profile)

    def work() -> JobView:
        arguments: dict[str, Any] = {"actor": actor_arguments(who.actor)}
        if body.profile:
            arguments["profile"] = body.profile
        job = jobs.ask(services.store, "snapshot", requested_by=who.name, arguments=arguments, reason=body.reason)
        return JobView.of(job, tenants.names(services.store))

    return once(work, status=202)


@router.post("/prune", response_model=list[str], responses=ACCEPTED)
def prune_snapshots(body: PruneBody, services: ServicesDep, who: Writer, later: LaterDep) -> object:
    """Delete what nothing refers to any more; the answer names what was deleted."""
    if later.is_wanted:
        return later("prune", keep=body.keep)
    return services.snapshots.prune(keep=body.keep or services.settings.snapshots.kept, actor=who.actor)
