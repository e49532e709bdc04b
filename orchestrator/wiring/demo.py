"""The demo: a snapshot of Harbour Hotels, three tenants, three people. Every part is made only where it is missing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.config import Settings
from orchestrator.core.access import Role, UserMissing
from orchestrator.core.actors import system
from orchestrator.core.snapshots import SnapshotState, SnapshotStep
from orchestrator.core.tenants import Tenant, TenantMissing, TenantState
from orchestrator.demo import hotels
from orchestrator.errors import Conflict
from orchestrator.flows.launch import LaunchRequest
from orchestrator.flows.snapshot import SnapshotBusy
from orchestrator.store import tenants, users
from orchestrator.wiring import secrets
from orchestrator.wiring.services import Services

ACTOR = system("demo")
SNAPSHOT_PATIENCE_S = 900.0
PEOPLE = (("admin", Role.ADMIN), ("reviewer", Role.REVIEWER), ("manager", Role.MANAGER))


@dataclass(frozen=True)
class SignIn:
    name: str
    role: Role
    password: str


@dataclass(frozen=True)
class Demo:
    """What there is to look at."""

    console: str
    sign_ins: tuple[SignIn, ...]
    tenants: tuple[tuple[str, str], ...]  # name and address


class ProductionIsReal(Conflict):
    """The configuration names a production of the company's own."""

    code = "conflict.production_is_real"


def refuse_real(settings: Settings) -> None:
    """The demo's tenants belong to the demo's production. Raises ProductionIsReal where there is another one."""
    if not settings.production.is_demo:
        raise ProductionIsReal(
            "The configuration names a production of your own, and the demo brings another one.",
            effect="Nothing was started or changed.",
            next_step="Instead: orchestrator up, user create, snapshot take, tenant launch NAME. For the demo leave"
            " production.mirror empty.",
        )


def make(services: Services, progress: Callable[[str], None]) -> Demo:
    """Raises what failed outside; running it again takes up where it stopped."""
    settings = services.settings
    profile = settings.tenants.snapshot_profile
    _snapshot(services, profile, progress)
    made = tuple(_tenant(services, name, progress) for name in hotels.PROPERTIES)
    sign_ins = tuple(_person(services, name, role, [one.id for one in made]) for name, role in PEOPLE)
    return Demo(
        console=settings.proxy.address(settings.proxy.console_host),
        sign_ins=sign_ins,
        tenants=tuple((one.name, settings.proxy.address(f"{one.name}.{settings.proxy.domain}")) for one in made),
    )


def _snapshot(services: Services, profile: str, progress: Callable[[str], None]) -> None:
    """The first one; the scheduler, which wants one too, may be faster."""
    if services.snapshots.newest(profile) is None:
        progress("taking a masked snapshot of production")
    deadline = time.monotonic() + SNAPSHOT_PATIENCE_S
    told = ""

    def on_step(step: SnapshotStep, _: float, __: str) -> None:
        nonlocal told
        if step != told:
            progress(f"snapshot: {step}")
        told = step

    while services.snapshots.newest(profile) is None:
        try:
            services.snapshots.take(services.source(), profile=profile, actor=ACTOR, on_step=on_step)
        except SnapshotBusy:
            if time.monotonic() > deadline:
                raise
            for building in services.snapshots.listed(profile=profile)[:1]:  # somebody else's: tell of that one
                if building.state is SnapshotState.BUILDING:
                    on_step(building.step, 0.0, "")
            time.sleep(0.5)


def _tenant(services: Services, name: str, progress: Callable[[str], None]) -> Tenant:
    try:
        found = tenants.named(services.store, name)
    except TenantMissing:
        found = None
    if found is not None and found.state is TenantState.FAILED:
        progress(f"removing what is left of {name}")
        services.tenants.remove(name, actor=ACTOR)
        found = None
    if found is None:
        progress(f"launching {name}")
        request = LaunchRequest(name, scope=name, snapshot_profile=services.settings.tenants.snapshot_profile)
        return services.launch.run(request, actor=ACTOR)
    if found.state is TenantState.STOPPED:
        progress(f"starting {name}")
        return services.tenants.start(name, actor=ACTOR)
    return found


def _person(services: Services, name: str, role: Role, of_tenants: list[str]) -> SignIn:
    """Their password is made once and kept beside the other secrets, so that the demo can show it again."""
    password = secrets.text(services.settings.places.secrets, f"demo-{name}.password")[:16]
    try:
        users.named(services.store, name)
    except UserMissing:
        services.access.create_user(ACTOR, name, role, password, tenant_ids=of_tenants)
    return SignIn(name, role, password)
