"""The pages for whoever runs the installation, in the order of the navigation."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter

from orchestrator.web import (
    allowlist,
    approvals,
    audit,
    fleet,
    health,
    jobs,
    launch,
    schedules,
    snapshots,
    tenant,
    users,
)

# One line per noun.
ROUTERS: Sequence[APIRouter] = (
    fleet.router,
    tenant.router,
    launch.router,
    approvals.router,
    allowlist.router,
    jobs.router,
    audit.router,
    snapshots.router,
    schedules.router,
    users.router,
    health.router,
)
