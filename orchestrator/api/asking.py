"""Asking for a job instead of waiting for the work: the pages always do, the API with `Prefer: respond-async`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, Header
from fastapi.responses import JSONResponse

from orchestrator.api.deps import Once, OnceDep, PrincipalDep, ServicesDep
from orchestrator.api.jobs import JobView
from orchestrator.core.access import Principal
from orchestrator.core.jobs import Job, actor_arguments
from orchestrator.core.tenants import Tenant
from orchestrator.store import jobs, tenants
from orchestrator.wiring.services import Services

PEOPLE_FIRST = 50  # before what the schedule asks for
ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {
        "model": JobView,
        "description": "With `Prefer: respond-async`: the job that does it, its address in `Location`.",
    }
}


def ask(
    services: Services,
    who: Principal,
    kind: str,
    tenant: Tenant | None = None,
    *,
    reason: str = "",
    **arguments: object,
) -> Job:
    """A job in the name of whoever asks. Empty arguments are left out."""
    return jobs.ask(
        services.store,
        kind,
        requested_by=who.name,
        tenant_id=tenant.id if tenant is not None else None,
        arguments={"actor": actor_arguments(who.actor), **{name: one for name, one in arguments.items() if one}},
        reason=reason,
        priority=PEOPLE_FIRST,
    )


class Later:
    """Whether the caller would rather follow a job, and answering so."""

    def __init__(self, services: Services, who: Principal, once: Once, prefer: str) -> None:
        self._services = services
        self._who = who
        self._once = once
        self.is_wanted = "respond-async" in {part.strip().lower() for part in prefer.split(",")}

    def __call__(
        self, kind: str, tenant: Tenant | None = None, *, reason: str = "", **arguments: object
    ) -> JSONResponse:
        """202 with the job and its address."""
        return self.answer(lambda: ask(self._services, self._who, kind, tenant, reason=reason, **arguments))

    def answer(self, make: Callable[[], Job]) -> JSONResponse:
        """The same for a job that `make` asks for after more was done; once per idempotency key."""

        def work() -> JobView:
            return JobView.of(make(), tenants.names(self._services.store))

        response = self._once(work, status=202)
        response.headers["Location"] = f"/api/v1/jobs/{json.loads(bytes(response.body))['id']}"
        response.headers["Preference-Applied"] = "respond-async"
        return response


def get_later(
    services: ServicesDep,
    who: PrincipalDep,
    once: OnceDep,
    prefer: Annotated[str, Header(max_length=200)] = "",
) -> Later:
    return Later(services, who, once, prefer)


LaterDep = Annotated[Later, Depends(get_later)]
