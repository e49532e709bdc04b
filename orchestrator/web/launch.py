"""Launch a tenant: from a name to an address that answers."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Response

from orchestrator.core.access import Role, Scope
from orchestrator.core.tenants import PoolMode, RefreshPolicy
from orchestrator.errors import InvalidInput, OrchestratorError
from orchestrator.flows.launch import LaunchRequest
from orchestrator.store import tenants, users
from orchestrator.web.visit import Visit, acting, reading

router = APIRouter(prefix="/launch", include_in_schema=False)
FIELDS = ("name", "profile", "image", "scope", "snapshot_profile", "refresh_policy", "pool_mode", "manager")
SCOPES_MAX = 200


class ChoiceUnknown(InvalidInput):
    """A field holds what the form does not offer."""

    code = "invalid.choice"


@router.get("")
def form(visit: Annotated[Visit, reading(Scope.TENANTS_ADMIN)]) -> Response:
    """What may be chosen, with the installation's defaults."""
    defaults = visit.services.settings.tenants
    return _form(
        visit,
        {
            "name": "",
            "profile": visit.services.settings.limits.default,
            "image": "",
            "scope": "",
            "snapshot_profile": defaults.snapshot_profile,
            "refresh_policy": str(defaults.refresh_policy),
            "pool_mode": str(defaults.pool_mode),
            "manager": "",
        },
    )


def _form(visit: Visit, values: dict[str, str], error: OrchestratorError | None = None) -> Response:
    services = visit.services
    settings = services.settings
    snapshots = {name: services.snapshots.newest(name) for name in sorted(services.snapshots.masking().profiles)}
    present = tenants.listed(services.store)
    return visit.show(
        "launch/form.html",
        status=422 if error else 200,
        values=values,
        error=error,
        profiles=settings.limits.profiles,
        snapshots=snapshots,
        refresh_policies=[one.value for one in RefreshPolicy],
        pool_modes=[one.value for one in PoolMode],
        managers=[one.name for one in users.listed(services.store) if one.role is Role.MANAGER and not one.is_disabled],
        domain=settings.proxy.domain,
        scopes_in_use=sorted({one.scope for one in present if one.scope and one.scope.isprintable()})[:SCOPES_MAX],
        present=len(present),
        tenants_max=settings.tenants.tenants_max,
    )


@router.post("")
def launch(visit: Annotated[Visit, acting(Scope.TENANTS_ADMIN)]) -> Response:
    """Reserve the name and watch it being made; what was wrong is said on the form, with what was typed kept."""
    values = {name: visit.text(name, length_max=300) for name in FIELDS}
    services = visit.services
    try:
        manager = users.named(services.store, values["manager"]) if values["manager"] else None
        tenant = services.launch.reserve(_request(values))
    except OrchestratorError as error:
        return _form(visit, values, error)
    return visit.begin("launch", tenant, manager=manager.name if manager else "", back=f"/fleet/{tenant.name}")


def _request(values: dict[str, str]) -> LaunchRequest:
    return LaunchRequest(
        name=values["name"],
        profile=values["profile"],
        image=values["image"],
        scope=values["scope"] or None,
        snapshot_profile=values["snapshot_profile"],
        refresh_policy=_chosen(RefreshPolicy, values["refresh_policy"]),
        pool_mode=_chosen(PoolMode, values["pool_mode"]),
    )


def _chosen(kind: Any, value: str) -> Any:
    """Raises ChoiceUnknown."""
    try:
        return kind(value)
    except ValueError:
        allowed = ", ".join(one.value for one in kind)
        raise ChoiceUnknown(
            f"{ascii(value)[:40]} cannot be chosen.", effect="No tenant was launched.", next_step=f"Allowed: {allowed}."
        ) from None
