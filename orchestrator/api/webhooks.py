"""/api/v1/webhooks: who is told what happens, how that went, and trying it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import Field

from orchestrator.api.deps import ServicesDep, View, require
from orchestrator.core.access import Principal, Scope
from orchestrator.core.jobs import JobState
from orchestrator.store import outbox

router = APIRouter(prefix="/webhooks", tags=["webhooks"])
READ = [require(Scope.SYSTEM_READ)]
Writer = Annotated[Principal, require(Scope.SYSTEM_WRITE)]
Name = Annotated[str, Path(max_length=60)]
DeliveryId = Annotated[str, Path(max_length=40)]


class TargetView(View):
    """A receiver, without its address: that may hold a token. `deliveries` counts them by state."""

    name: str
    kinds: list[str]
    deliveries: dict[str, int]


class DeliveryView(View):
    """One notice on its way to one receiver."""

    id: str
    target: str
    kind: str
    number: int
    subject: str
    state: str
    attempts: int
    attempts_max: int
    next_at: datetime | None
    error: str | None
    status: int | None
    created_at: datetime
    finished_at: datetime | None


class SentView(View):
    """The receiver's answer to a notice sent just now."""

    status: int
    spent_s: float


class DeliveryQuery(View):
    """What deliveries are looked for."""

    target: str | None = Field(None, max_length=60)
    state: JobState | None = None
    limit: int = Field(50, ge=1, le=500)


@router.get("", dependencies=READ)
def list_webhooks(services: ServicesDep) -> list[TargetView]:
    """Every receiver of configs/orchestrator.yaml."""
    counts = outbox.counts(services.store)
    return [
        TargetView(name=target.name, kinds=list(target.kinds), deliveries=counts.get(target.name, {}))
        for target in services.notify.targets
    ]


@router.get("/deliveries", dependencies=READ)
def list_deliveries(services: ServicesDep, query: Annotated[DeliveryQuery, Query()]) -> list[DeliveryView]:
    """The newest first."""
    found = outbox.deliveries(services.store, target=query.target, state=query.state, limit=query.limit)
    return [DeliveryView.model_validate(delivery) for delivery in found]


@router.post("/deliveries/{delivery_id}/repeat", status_code=202)
def repeat_delivery(delivery_id: DeliveryId, services: ServicesDep, who: Writer) -> DeliveryView:
    """Ask for a delivery that has ended once more."""
    return DeliveryView.model_validate(services.notify.repeat(delivery_id, actor=who.actor))


@router.post("/{name}/test")
def test_webhook(name: Name, services: ServicesDep, who: Writer) -> SentView:
    """Send a notice about nothing now, once."""
    return SentView.model_validate(services.notify.test(name, actor=who.actor))
