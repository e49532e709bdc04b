"""Launch: from a name to a hostname that answers; each step is written first and undone in reverse on failure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from sqlalchemy import Engine

from orchestrator import logs
from orchestrator.core.actors import Actor
from orchestrator.core.audit import AuditEvent, Phase, Result
from orchestrator.core.limits import Limits
from orchestrator.core.names import check_tenant_name
from orchestrator.core.ports.audit import AuditLog
from orchestrator.core.tenants import PoolMode, RefreshPolicy, Tenant, TenantState, WrongTenantState
from orchestrator.errors import InvalidInput, OrchestratorError, OutsideFailure
from orchestrator.parts.journal import Journal
from orchestrator.parts.tenancy import Tenancy
from orchestrator.store import tenants
from orchestrator.store.session import tenant_lock

LOG = logs.get("launch")


class LaunchFailed(OutsideFailure):
    code = "outside_failure.launch"


class TenantImageMissing(InvalidInput):
    """The image named for a tenant is not on this machine."""

    code = "invalid.tenant_image"


@dataclass(frozen=True)
class LaunchRequest:
    """`profile=""` and `image=""` mean the installation's defaults."""

    name: str
    profile: str = ""
    image: str = ""
    scope: str | None = None
    snapshot_profile: str = "default"
    refresh_policy: RefreshPolicy = RefreshPolicy.SAVE
    pool_mode: PoolMode = PoolMode.TRANSACTION


@dataclass(frozen=True)
class Host:
    memory_bytes: int
    cpus: int


@dataclass(frozen=True)
class LaunchFlow:
    """`answers` waits until the hostname answers and raises RouteFailed when it does not in time.

    `has_image` says whether the engine has an image that a request names; nothing is pulled for a tenant.
    """

    store: Engine
    audit: AuditLog
    tenancy: Tenancy
    limits: Limits
    host: Host
    image: str
    tenants_max: int
    answers: Callable[[Tenant], None]
    has_image: Callable[[str], bool]

    def run(self, request: LaunchRequest, *, actor: Actor, progress: Callable[[str], None] = lambda _: None) -> Tenant:
        """Launch a tenant and return it running.

        Raises InvalidTenantName, TenantExists, UnknownProfile, BeyondHost, TenantImageMissing, NoSnapshot before
        anything is made; any later failure undoes what was made and is raised, the tenant's record says why.
        """
        return self.make(self.reserve(request), actor=actor, progress=progress)

    def reserve(self, request: LaunchRequest) -> Tenant:
        """Check the request and write the tenant down as launching; whoever comes first, `make` or reconcile, makes it.

        Raises InvalidTenantName, TenantExists, UnknownProfile, BeyondHost, TenantImageMissing, NoSnapshot.
        """
        check_tenant_name(request.name)
        profile = request.profile or self.limits.default
        self.limits.profile(profile).check_host(memory_bytes=self.host.memory_bytes, cpus=self.host.cpus)
        self._check_image(request.image)
        self.tenancy.newest_snapshot(request.snapshot_profile)
        return tenants.add(
            self.store,
            request.name,
            profile=profile,
            image=request.image or self.image,
            scope=request.scope,
            snapshot_profile=request.snapshot_profile,
            refresh_policy=request.refresh_policy,
            pool_mode=request.pool_mode,
            tenants_max=self.tenants_max,
        )

    def _check_image(self, image: str) -> None:
        if image and not self.has_image(image):
            raise TenantImageMissing(
                f"There is no image {ascii(image)[:120]} on this machine.",
                effect="Nothing was made.",
                next_step="Build it or `docker pull` it first, or correct the name; without one the installation's own"
                " image is used.",
            )

    def make(self, tenant: Tenant, *, actor: Actor, progress: Callable[[str], None] = lambda _: None) -> Tenant:
        """Make a reserved tenant and return it running; one that runs already is left as it is.

        Raises WrongTenantState for one that failed or is being removed, TenantBusy, and whatever failed, once what
        was made is undone.
        """
        with tenant_lock(self.store, tenant.id):
            tenant = tenants.get(self.store, tenant.id)
            if tenant.state is TenantState.RUNNING:
                return tenant
            if tenant.state is not TenantState.LAUNCHING:
                raise WrongTenantState(
                    f"The tenant {tenant.name} is {tenant.state}{f': {tenant.reason}' if tenant.reason else '.'}",
                    effect="It was not launched.",
                    next_step=f"`orchestrator tenant remove {tenant.name}`, then launch it again.",
                )
            event = AuditEvent(actor, "tenant.launch", target=tenant.name, tenant=tenant.name, phase=Phase.BEFORE)
            try:
                self.audit.append(event)
                return self._make(tenant, progress, event)
            except Exception as error:
                self._undo(tenant, error)
                self._note(event, Result.FAILED)
                raise

    def finish(self, tenant: Tenant, *, actor: Actor) -> Tenant:
        """Finish a launch that was cut off, or undo it. The caller holds the tenant's lock."""
        event = AuditEvent(actor, "tenant.launch", target=tenant.name, tenant=tenant.name, phase=Phase.BEFORE)
        try:
            return self._make(tenant, lambda _: None, event)
        except Exception as error:
            self._undo(tenant, error)
            self._note(event, Result.FAILED)
            raise

    def _make(self, tenant: Tenant, progress: Callable[[str], None], event: AuditEvent) -> Tenant:
        journal = Journal(self.store, tenant.id, "launch", progress)
        self.tenancy.ensure(tenant, journal)
        with journal.step("answer"):
            self.answers(tenant)
        tenants.set_state(self.store, tenant.id, TenantState.RUNNING)
        self._note(event, Result.OK)
        LOG.info("tenant.launched", tenant=tenant.name, tenant_id=tenant.id)
        return tenants.get(self.store, tenant.id)

    def _undo(self, tenant: Tenant, cause: Exception) -> None:
        """Remove what was made. What cannot be removed now stays recorded as failed, for reconcile to remove."""
        code = cause.code if isinstance(cause, OrchestratorError) else LaunchFailed.code
        text = str(cause) if isinstance(cause, OrchestratorError) else type(cause).__name__
        LOG.error("tenant.launch_failed", tenant=tenant.name, code=code, reason=text)
        tenants.set_state(self.store, tenant.id, TenantState.FAILED, reason=f"{code}: {text}")
        try:
            self.tenancy.remove(tenant, Journal(self.store, tenant.id, "undo"))
        except OrchestratorError as failure:
            LOG.warning("tenant.undo_incomplete", tenant=tenant.name, code=failure.code)
            return
        with self.store.begin() as connection:
            tenants.undo_steps(connection, tenant.id)

    def _note(self, event: AuditEvent, result: Result) -> None:
        self.audit.append(replace(event, phase=Phase.AFTER, result=result))
