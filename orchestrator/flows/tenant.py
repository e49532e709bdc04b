"""Stop, start and remove a tenant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from sqlalchemy import Engine

from orchestrator import logs
from orchestrator.core.actors import Actor
from orchestrator.core.audit import AuditEvent, Phase, Result
from orchestrator.core.ports.audit import AuditLog
from orchestrator.core.tenants import Tenant, TenantState, WrongTenantState
from orchestrator.errors import OrchestratorError
from orchestrator.parts.journal import Journal
from orchestrator.parts.tenancy import Tenancy
from orchestrator.store import tenants
from orchestrator.store.session import tenant_lock

LOG = logs.get("tenant")
PATIENCE_S = 20.0  # reconcile may just be bringing the tenant back
Progress = Callable[[str], None]
Act = Callable[[Tenant, Progress], None]


def quiet(_: str) -> None:
    """Nobody watches."""


@dataclass(frozen=True)
class TenantFlow:
    """`answers` waits until the hostname answers and raises RouteFailed when it does not in time."""

    store: Engine
    audit: AuditLog
    tenancy: Tenancy
    answers: Callable[[Tenant], None]

    def stop(self, name: str, *, actor: Actor, progress: Progress = quiet) -> Tenant:
        """Stop every container of a running tenant; its data and files stay. Raises WrongTenantState, TenantBusy."""
        return self._trip(name, "stop", actor, TenantState.RUNNING, TenantState.STOPPED, self._stop, progress)

    def start(self, name: str, *, actor: Actor, progress: Progress = quiet) -> Tenant:
        """Start a stopped tenant and wait until its hostname answers. Raises WrongTenantState, TenantBusy."""
        return self._trip(name, "start", actor, TenantState.STOPPED, TenantState.RUNNING, self._start, progress)

    def remove(self, name: str, *, actor: Actor, progress: Progress = quiet) -> Tenant:
        """Delete a tenant's containers, databases and workspace; its published branch and its records stay.

        One that was begun and died is taken up again. Raises TenantMissing, TenantBusy.
        """
        found = tenants.named(self.store, name)
        with tenant_lock(self.store, found.id, patience_s=PATIENCE_S):
            event = self._before("remove", found, actor)
            tenants.set_state(self.store, found.id, TenantState.REMOVING)
            return self._finish_removal(found, event, progress)

    def finish_removal(self, tenant: Tenant, *, actor: Actor) -> Tenant:
        """Finish a removal that was cut off. The caller holds the tenant's lock."""
        return self._finish_removal(tenant, self._before("remove", tenant, actor))

    def _finish_removal(self, tenant: Tenant, event: AuditEvent, progress: Progress = quiet) -> Tenant:
        try:
            self.tenancy.remove(tenant, Journal(self.store, tenant.id, "remove", progress))
        except OrchestratorError as error:
            tenants.set_state(self.store, tenant.id, TenantState.REMOVING, reason=f"{error.code}: {error}")
            self._after(event, Result.FAILED)
            raise
        tenants.set_state(self.store, tenant.id, TenantState.REMOVED)
        self._after(event, Result.OK)
        LOG.info("tenant.removed", tenant=tenant.name, tenant_id=tenant.id)
        return replace(tenant, state=TenantState.REMOVED)

    def _stop(self, tenant: Tenant, progress: Progress) -> None:
        self.tenancy.stop(tenant, Journal(self.store, tenant.id, "stop", progress))

    def _start(self, tenant: Tenant, progress: Progress) -> None:
        journal = Journal(self.store, tenant.id, "start", progress)
        self.tenancy.ensure(tenant, journal)
        with journal.step("answer"):
            self.answers(tenant)

    def _trip(
        self,
        name: str,
        verb: str,
        actor: Actor,
        expected: TenantState,
        state: TenantState,
        act: Act,
        progress: Progress,
    ) -> Tenant:
        found = tenants.named(self.store, name)
        with tenant_lock(self.store, found.id, patience_s=PATIENCE_S):
            tenant = tenants.get(self.store, found.id)
            if tenant.state is not expected:
                raise WrongTenantState(
                    f"The tenant {name} is {tenant.state}.",
                    effect="Nothing was changed.",
                    next_step=f"Only a tenant that is {expected} can do this.",
                )
            # Written before acting: reconcile then completes what this trip began, in the direction asked for.
            event = self._before(verb, tenant, actor)
            tenants.set_state(self.store, tenant.id, state)
            try:
                act(tenant, progress)
            except OrchestratorError as error:
                tenants.set_state(self.store, tenant.id, state, reason=f"{error.code}: {error}")
                self._after(event, Result.FAILED)
                raise
            self._after(event, Result.OK)
            LOG.info("tenant.moved", tenant=tenant.name, state=state)
            return replace(tenant, state=state)

    def _before(self, verb: str, tenant: Tenant, actor: Actor) -> AuditEvent:
        event = AuditEvent(actor, f"tenant.{verb}", target=tenant.name, tenant=tenant.name, phase=Phase.BEFORE)
        self.audit.append(event)
        return event

    def _after(self, event: AuditEvent, result: Result) -> None:
        self.audit.append(replace(event, phase=Phase.AFTER, result=result))
