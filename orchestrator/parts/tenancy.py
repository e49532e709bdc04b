"""Everything a tenant is made of, ensured, stopped and removed in one order. Launch, start and reconcile share it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Engine

from orchestrator.core.generations import GenerationState
from orchestrator.core.limits import Profile
from orchestrator.core.names import TenantNames, new_id
from orchestrator.core.places import Places
from orchestrator.core.refresh import NoSnapshot
from orchestrator.core.snapshots import Snapshot
from orchestrator.core.tenants import Tenant
from orchestrator.parts.egress import EgressPart
from orchestrator.parts.generation import Generations
from orchestrator.parts.journal import Journal
from orchestrator.parts.network import NetworkPart
from orchestrator.parts.pool import TenantPools
from orchestrator.parts.route import RoutePart
from orchestrator.parts.sandbox import SandboxPart
from orchestrator.parts.workspace import WorkspacePart
from orchestrator.store import generations, snapshots


@dataclass(frozen=True)
class Tenancy:
    """Safe to run any number of times; each step is journaled before it is taken."""

    store: Engine
    generations: Generations
    pools: TenantPools
    network: NetworkPart
    workspace: WorkspacePart
    sandbox: SandboxPart
    egress: EgressPart
    route: RoutePart
    places: Places
    profile: Callable[[str], Profile]

    def ensure(self, tenant: Tenant, journal: Journal) -> None:
        """Make what is missing and start what does not run, until the proxy serves the tenant's route.

        The database and the sandbox are made side by side. Raises the errors of the parts; what was made stays,
        for `remove` or another `ensure`.
        """
        with ThreadPoolExecutor(2, thread_name_prefix="ensure") as side_by_side:
            database = side_by_side.submit(self._database, tenant, journal)
            container = side_by_side.submit(self._container, tenant, journal)
            # Both are awaited before either's failure is raised: nothing may still be under way when it is undone.
            failures = [failure for failure in (database.exception(), container.exception()) if failure]
        if failures:
            raise failures[0]
        with journal.step("app"):
            self.sandbox.ready(tenant)
        with journal.step("route"):
            self.route.ensure(tenant)

    def _database(self, tenant: Tenant, journal: Journal) -> None:
        limits = self.profile(tenant.profile).database_limits
        live_id = self.pools.live_id(tenant.id)
        with journal.step("database"):
            if live_id is None:
                self._first_generation(tenant)
            else:
                with self.store.connect() as connection:
                    snapshot = snapshots.get(connection, generations.get(connection, live_id).snapshot_id)
                self.generations.start(tenant, live_id, limits, image=snapshot.image)
        with journal.step("pool"):
            self.pools.start(tenant, limits)

    def _first_generation(self, tenant: Tenant) -> None:
        snapshot = self.newest_snapshot(tenant.snapshot_profile)
        generation_id = new_id("g")
        with self.store.begin() as connection:
            generations.add(connection, generation_id, tenant.id, snapshot.id, now=datetime.now(UTC))
        limits = self.profile(tenant.profile).database_limits
        self.generations.create(tenant, snapshot, generation_id, limits)
        self.pools.point(tenant.id, generation_id)
        with self.store.begin() as connection:
            generations.swap_states(connection, new=generation_id, old=None, now=datetime.now(UTC))

    def newest_snapshot(self, profile: str) -> Snapshot:
        """Raises NoSnapshot."""
        with self.store.connect() as connection:
            snapshot = snapshots.newest(connection, profile)
        if snapshot is None:
            raise NoSnapshot(
                f"There is no snapshot of the profile {profile} yet.",
                effect="A tenant's database cannot be made.",
                next_step="Take one: orchestrator snapshot take.",
            )
        return snapshot

    def _container(self, tenant: Tenant, journal: Journal) -> None:
        with journal.step("workspace"):
            self.workspace.ensure(tenant, TenantNames("", tenant.id, tenant.name).branch)
        with journal.step("network"):
            attachment = self.network.ensure(tenant)
        with journal.step("sandbox"):
            self.sandbox.start(tenant, attachment)
            self.sandbox.wait(tenant)

    def stop(self, tenant: Tenant, journal: Journal) -> None:
        """Take the route away, then stop every container; files stay."""
        with journal.step("route"):
            self.route.withdraw(tenant)
        with journal.step("sandbox"):
            self.sandbox.stop(tenant)
            self.egress.remove(tenant)  # it keeps nothing, and comes back with the next command that wants it
        with journal.step("pool"):
            self.pools.stop(tenant)
        with journal.step("database"):
            live_id = self.pools.live_id(tenant.id)
            if live_id is not None:
                self.generations.stop(tenant, live_id)

    def remove(self, tenant: Tenant, journal: Journal) -> None:
        """Delete everything the tenant has here, in reverse order; its published branch stays.

        Runs to the end even when it was begun before; the first failure stops it, and it can be run again.
        """
        with journal.step("route"):
            self.route.withdraw(tenant)
        with journal.step("sandbox"):
            self.sandbox.remove(tenant)
            self.egress.remove(tenant)
        with journal.step("pool"):
            self.pools.remove(tenant)
        with journal.step("database"):
            self._remove_generations(tenant)
        with journal.step("network"):
            # Whatever else carries the tenant's label: a command's disposable place, a rehearsal.
            for left in self.sandbox.engine.containers(tenant_id=tenant.id):
                self.sandbox.engine.remove(left.name)
            self.network.remove(tenant)
        with journal.step("workspace"):
            self.workspace.remove(tenant)
            shutil.rmtree(self.places.tenant_run(tenant.id), ignore_errors=True)
            shutil.rmtree(self.places.results(tenant.id), ignore_errors=True)

    def _remove_generations(self, tenant: Tenant) -> None:
        """Those recorded and those only found on the disk."""
        with self.store.connect() as connection:
            known = {one.id for one in generations.listed(connection, tenant_id=tenant.id)}
        for generation_id in sorted(known | self.generations.on_disk(tenant.id)):
            self.generations.remove(tenant, generation_id)
            if generation_id in known:
                with self.store.begin() as connection:
                    now = datetime.now(UTC)
                    generations.set_state(connection, generation_id, GenerationState.REMOVED, now=now)
