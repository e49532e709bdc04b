"""Snapshots of production: how old, from where, how many rows, and how every column was masked."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response

from orchestrator.core.access import Scope
from orchestrator.web.visit import Visit, acting, reading

router = APIRouter(prefix="/snapshots", include_in_schema=False)
# Managers may read that there are snapshots; tables and masking of all of production are for those who run the house.
Reader = Annotated[Visit, reading(Scope.SYSTEM_READ)]
Writer = Annotated[Visit, acting(Scope.SNAPSHOTS_WRITE)]
SHOWN_MAX = 100


@router.get("")
def listed(visit: Reader) -> Response:
    """The newest first, failed and removed ones too."""
    flow = visit.services.snapshots
    return visit.show(
        "snapshots/list.html",
        snapshots=flow.listed()[:SHOWN_MAX],
        in_use=flow.in_use(),
        profiles=flow.masking().profiles,
        kept=visit.services.settings.snapshots.kept,
    )


@router.get("/{snapshot_id}")
def show(snapshot_id: str, visit: Reader) -> Response:
    """One snapshot with its manifest: counts by table, masked columns, what was left out."""
    found = visit.services.snapshots.get(snapshot_id)
    return visit.show(
        "snapshots/show.html",
        snapshot=found,
        columns=visit.services.snapshots.masking().columns,
        is_used=snapshot_id in visit.services.snapshots.in_use(),
    )


@router.post("")
def take(visit: Writer) -> Response:
    """Ask for a new one; the job tells how it goes."""
    profile = visit.text("profile", length_max=60)
    if profile:
        visit.services.snapshots.masking().profile(profile)
    return visit.begin("snapshot", reason=visit.text("reason", length_max=500) or "on demand", profile=profile)


@router.post("/prune")
def prune(visit: Writer) -> Response:
    """Delete what nothing refers to, beyond those that are kept."""
    return visit.begin("prune", reason="on demand")
