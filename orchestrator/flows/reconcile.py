"""Reconcile: compare what runs with what should run, and set it right. Runs at start and on a timer.

It never acts on a listing that failed, touches only what carries this installation's label, and holds the tenant's
lock for each tenant it looks at: a tenant somebody else is changing is left alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import Engine

from orchestrator import logs
from orchestrator.core.actors import system
from orchestrator.core.generations import GenerationState
from orchestrator.core.names import TenantNames
from orchestrator.core.ports import engine as port
from orchestrator.core.tenants import Tenant, TenantState
from orchestrator.errors import OrchestratorError
from orchestrator.parts.journal import Journal
from orchestrator.parts.tenancy import Tenancy
from orchestrator.store import generations, refreshes, tenants
from orchestrator.store.session import TenantBusy, tenant_lock

LOG = logs.get("reconcile")
ACTOR = system("reconcile")
PAUSE_S = 20.0
PAUSE_S_MAX = 600.0
LOOK_AGAIN_S = 60.0
HALF_MADE = (GenerationState.CREATING, GenerationState.CANDIDATE, GenerationState.REMOVING)
TENANT_ROLES = frozenset({"sandbox", "aside", "database", "pool", "generation", "egress"})


@dataclass(frozen=True)
class Reconciled:
    """What one round did, in words, by tenant name; `failed` by tenant name and reason."""

    done: dict[str, list[str]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """What one round found: containers that run, networks the proxy is on, routes that are written.

    `containers` are the ids of those that run, by tenant; `owners` the tenants that have any, running or not; `open`
    those with something begun and not ended.
    """

    running: frozenset[str]
    proxied: frozenset[str]
    routed: frozenset[str]
    containers: Mapping[str, frozenset[str]]
    owners: frozenset[str]
    open: frozenset[str]


@dataclass(frozen=True)
class ReconcileFlow:
    """`installation` sees to the shared containers and returns what it did; `recover` finishes or undoes a refresh;
    `finish_launch` and `finish_removal` take up what was cut off, under the lock this flow holds.

    Each round compares one listing with the records. Asking every database and pool whether it answers costs far
    more, so one that answered is asked again after a minute, or at once when its containers are others than then.
    """

    store: Engine
    engine: port.Engine
    tenancy: Tenancy
    installation: Callable[[], list[str]]
    recover: Callable[[Tenant], list[str]]
    finish_launch: Callable[[Tenant], object]
    finish_removal: Callable[[Tenant], object]
    at_once: int = 4
    failed_after: int = 5
    _sound: dict[str, tuple[frozenset[str], float]] = field(default_factory=dict, repr=False)

    def run(self) -> Reconciled:
        """One round over the installation and every tenant. Raises only when nothing could be looked at."""
        result = Reconciled()
        shared = self.installation()
        if shared:
            result.done["installation"] = shared
        # One listing for all; when it fails, it raises, and nothing is taken for missing.
        seen = self._look()
        every = tenants.listed(self.store)

        def one(tenant: Tenant) -> None:
            try:
                done = self._one(tenant, seen)
            except TenantBusy:
                return
            except OrchestratorError as error:
                result.failed[tenant.name] = str(error)
                LOG.warning("reconcile.failed", tenant=tenant.name, code=error.code, reason=error.message)
                return
            if done:
                result.done[tenant.name] = done
                LOG.info("reconcile.done", tenant=tenant.name, done=done)

        with ThreadPoolExecutor(self.at_once, thread_name_prefix="reconcile") as pool:
            list(pool.map(one, every))
        self._remove_strays(every, seen, result)
        for gone in set(self._sound) - {tenant.id for tenant in every}:
            del self._sound[gone]
        return result

    def _look(self) -> Seen:
        found = self.engine.containers()
        proxied = [network for one in found if one.running and one.role == "proxy" for network in one.networks]
        containers: dict[str, set[str]] = {}
        for one in found:
            if one.running and one.tenant_id:
                containers.setdefault(one.tenant_id, set()).add(one.id)
        with self.store.connect() as connection:
            half_made = {one.tenant_id for one in generations.listed(connection, states=HALF_MADE)}
        return Seen(
            running=frozenset(one.name for one in found if one.running),
            proxied=frozenset(proxied),
            routed=frozenset(self.tenancy.route.proxy.published()),
            containers={tenant_id: frozenset(ids) for tenant_id, ids in containers.items()},
            owners=frozenset(one.tenant_id for one in found),
            open=frozenset(half_made | {one.tenant_id for one in refreshes.unfinished(self.store)}),
        )

    def _one(self, tenant: Tenant, seen: Seen) -> list[str]:
        if tenant.state is TenantState.RUNNING:
            return self._keep_running(tenant, seen)
        if tenant.state is TenantState.LAUNCHING:
            with tenant_lock(self.store, tenant.id):
                if tenants.get(self.store, tenant.id).state is TenantState.LAUNCHING:
                    self.finish_launch(tenant)
                    return ["finished a launch that was cut off"]
        if tenant.state is TenantState.REMOVING:
            with tenant_lock(self.store, tenant.id):
                self.finish_removal(tenant)
                return ["finished a removal that was cut off"]
        if tenant.state is TenantState.FAILED:
            return self._clear_failed(tenant, seen)
        if tenant.state is TenantState.STOPPED:
            return [*self._recovered(tenant, seen), *self._keep_stopped(tenant, seen)]
        return []

    def _recovered(self, tenant: Tenant, seen: Seen) -> list[str]:
        """Finish or undo a refresh and see to the live database, unless it was found sound a moment ago."""
        now, found = time.monotonic(), seen.containers.get(tenant.id, frozenset())
        known, at = self._sound.get(tenant.id, (None, 0.0))
        if known == found and now - at < LOOK_AGAIN_S and tenant.id not in seen.open:
            return []
        self._sound.pop(tenant.id, None)
        done = self.recover(tenant)
        if not done:
            self._sound[tenant.id] = (found, now)
        return done

    def _keep_running(self, tenant: Tenant, seen: Seen) -> list[str]:
        done = self._recovered(tenant, seen)
        missing = self._missing(tenant, seen)
        if not missing:
            return done
        trouble = tenants.trouble(self.store, tenant.id)
        if trouble.next_try_at is not None and trouble.next_try_at > datetime.now(UTC):
            return done
        with tenant_lock(self.store, tenant.id):
            tenant = tenants.get(self.store, tenant.id)
            if tenant.state is not TenantState.RUNNING:
                return done
            try:
                self.tenancy.ensure(tenant, Journal(self.store, tenant.id, "reconcile"))
            except OrchestratorError as error:
                pause_s = min(PAUSE_S * 2**trouble.attempts, PAUSE_S_MAX)
                attempts = tenants.note_trouble(self.store, tenant.id, str(error), pause_s=pause_s)
                if attempts == self.failed_after:
                    LOG.error("tenant.not_brought_back", tenant=tenant.name, attempts=attempts, code=error.code)
                raise
            tenants.set_state(self.store, tenant.id, TenantState.RUNNING)
        return [*done, f"started again: {', '.join(missing)}"]

    def _missing(self, tenant: Tenant, seen: Seen) -> list[str]:
        names = TenantNames(self.tenancy.sandbox.instance, tenant.id, tenant.name)
        live_id = self.tenancy.pools.live_id(tenant.id)
        missing = []
        if live_id is None or names.database(live_id) not in seen.running:
            missing.append("database")
        if names.pool not in seen.running:
            missing.append("pool")
        if names.sandbox not in seen.running:
            missing.append("sandbox")
        elif not self._has_policy(tenant):
            missing.append("sandbox's policy or app")
        if names.network not in seen.proxied:
            missing.append("proxy on its network")
        if tenant.id not in seen.routed:
            missing.append("route")
        return missing

    def _has_policy(self, tenant: Tenant) -> bool:
        """A supervisor that restarted knows neither the policy nor the app until it is told again."""
        try:
            status = self.tenancy.sandbox.connect(tenant).status()
        except OrchestratorError:
            return False
        has_app = not self.tenancy.sandbox.app.argv or status.app.state != "stopped"
        return status.policy_digest is not None and has_app

    def _keep_stopped(self, tenant: Tenant, seen: Seen) -> list[str]:
        names = TenantNames(self.tenancy.sandbox.instance, tenant.id, tenant.name)
        live_id = self.tenancy.pools.live_id(tenant.id)
        its_own = {names.sandbox, names.pool, self.tenancy.egress.name(tenant)}
        if live_id is not None:
            its_own.add(names.database(live_id))
        if not its_own & seen.running and tenant.id not in seen.routed:
            return []
        with tenant_lock(self.store, tenant.id):
            if tenants.get(self.store, tenant.id).state is TenantState.STOPPED:
                self.tenancy.stop(tenant, Journal(self.store, tenant.id, "reconcile"))
        return ["stopped what still ran"]

    def _clear_failed(self, tenant: Tenant, seen: Seen) -> list[str]:
        """A failed launch keeps its record and nothing else."""
        has_files = bool(self.tenancy.generations.on_disk(tenant.id))
        has_parts = tenant.id in seen.routed or tenant.id in seen.owners
        if not has_files and not has_parts and not self.engine.networks(tenant_id=tenant.id):
            return []
        with tenant_lock(self.store, tenant.id):
            if tenants.get(self.store, tenant.id).state is TenantState.FAILED:
                self.tenancy.remove(tenant, Journal(self.store, tenant.id, "undo"))
        return ["removed what a failed launch had left"]

    def _remove_strays(self, every: Sequence[Tenant], seen: Seen, result: Reconciled) -> None:
        """Containers and routes that carry our label and belong to no tenant there is."""
        known = {tenant.id for tenant in tenants.listed(self.store)} | {tenant.id for tenant in every}
        for container in self.engine.containers():
            if container.tenant_id and container.tenant_id not in known and container.role in TENANT_ROLES:
                self.engine.remove(container.name)
                result.done.setdefault("installation", []).append(f"removed the stray container {container.name}")
        for route_id in seen.routed - known - {"console"}:
            self.tenancy.route.proxy.withdraw(route_id)
            result.done.setdefault("installation", []).append(f"withdrew the stray route {route_id}")
