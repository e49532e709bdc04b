"""A tenant's pool, the link it follows, and the swap."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator import logs
from orchestrator.core.generations import DatabaseLimits
from orchestrator.core.names import TenantNames, new_id
from orchestrator.core.places import Places
from orchestrator.core.ports.engine import ContainerLimits
from orchestrator.core.ports.pools import PoolFailed, Pools, PoolSpec
from orchestrator.core.ports.servers import APP_DATABASE, Servers
from orchestrator.core.tenants import Tenant
from orchestrator.errors import OutsideFailure

LOG = logs.get("pool")
POOL_LIMITS = ContainerLimits(memory_bytes=64 << 20, cpus=1.0, pids=16)
RESUME_ATTEMPTS = 3


class LinkFailed(OutsideFailure):
    code = "outside_failure.live_link"


@dataclass(frozen=True)
class Swap:
    """How a swap went: clients were held back for `gap_s`."""

    gap_s: float
    ended_sessions: int


def _nothing(_: str) -> None:
    """No test watches the boundaries."""


@dataclass(frozen=True)
class TenantPools:
    """What may be done with tenants' pools. `image` has PgBouncer ≥ 1.21."""

    pools: Pools
    servers: Servers
    places: Places
    instance: str
    image: str
    limits: ContainerLimits = field(default=POOL_LIMITS)
    patience_s: float = 2.0
    grace_s: float = 5.0

    def spec(self, tenant: Tenant, limits: DatabaseLimits) -> PoolSpec:
        names = TenantNames(self.instance, tenant.id, tenant.name)
        return PoolSpec(
            name=names.pool,
            tenant_id=tenant.id,
            image=self.image,
            uid=tenant.pool_uid if os.geteuid() == 0 else os.geteuid(),
            limits=self.limits,
            mode=tenant.pool_mode,
            databases=self.places.databases(tenant.id),
            sockets=self.places.pool_sockets(tenant.id),
            configuration=self.places.pool_configuration(tenant.id),
            role=names.role,
            database=APP_DATABASE,
            password_file=self.places.pool_password(tenant.id, "tenant"),
            console_password_file=self.places.pool_password(tenant.id, "console"),
            connections_max=limits.connections,
        )

    def start(self, tenant: Tenant, limits: DatabaseLimits) -> PoolSpec:
        """Start the tenant's pool and let clients through; nothing when it already runs so. Raises PoolFailed."""
        spec = self.spec(tenant, limits)
        self.pools.start(spec)
        if self.pools.status(spec).is_paused:
            self.pools.resume(spec)
        return spec

    def is_serving(self, tenant: Tenant, limits: DatabaseLimits) -> bool:
        """Whether it answers and lets clients through."""
        try:
            return not self.pools.status(self.spec(tenant, limits)).is_paused
        except PoolFailed:
            return False

    def stop(self, tenant: Tenant) -> None:
        self.pools.stop(TenantNames(self.instance, tenant.id, tenant.name).pool)

    def remove(self, tenant: Tenant) -> None:
        """Delete its container, socket, configuration and passwords; fine when some are gone already."""
        self.pools.remove(TenantNames(self.instance, tenant.id, tenant.name).pool)
        passwords = self.places.pool_password(tenant.id, "tenant").parent
        self.places.live_link(tenant.id).unlink(missing_ok=True)
        for folder in (
            self.places.pool_configuration(tenant.id),
            self.places.pool_sockets(tenant.id),
            passwords,
        ):
            if folder.is_dir():
                for entry in folder.iterdir():
                    entry.unlink(missing_ok=True)
                folder.rmdir()

    def password(self, tenant: Tenant) -> str:
        """The tenant's password at its pool, for the sandbox; made by `start`. Raises PoolFailed."""
        try:
            return self.places.pool_password(tenant.id, "tenant").read_text().strip()
        except OSError as error:
            raise PoolFailed("The pool of this tenant has never been started.") from error

    def live_id(self, tenant_id: str) -> str | None:
        """The generation the live link names; None when there is no link."""
        try:
            return self.places.live_link(tenant_id).readlink().name
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LinkFailed(f"The live link of {tenant_id} cannot be read: {error.strerror}.") from error

    def point(self, tenant_id: str, generation_id: str) -> None:
        """Make the live link name `generation_id`: one rename(2), then its directory is synced. Raises LinkFailed."""
        self._replace(tenant_id, self._link(tenant_id, generation_id))

    def _link(self, tenant_id: str, generation_id: str) -> Path:
        """A link beside the live one, with everything that waits in its directory flushed."""
        link = self.places.live_link(tenant_id)
        fresh = link.with_name(new_id(".live-"))
        try:
            link.parent.mkdir(parents=True, exist_ok=True)
            fresh.symlink_to(generation_id)
            _sync(link.parent)
        except OSError as error:
            raise _link_failed(fresh, error) from error
        return fresh

    def _replace(self, tenant_id: str, fresh: Path) -> None:
        link = self.places.live_link(tenant_id)
        try:
            fresh.rename(link)
            _sync(link.parent)
        except OSError as error:
            raise _link_failed(fresh, error) from error

    def swap(
        self,
        tenant: Tenant,
        limits: DatabaseLimits,
        *,
        old_id: str | None,
        new_id: str,
        at: Callable[[str], None] = _nothing,
    ) -> Swap:
        """Hold clients back, make `new_id` live, let them through, whatever happens.

        `at` is told `paused` and `renamed` as they happen. Raises PauseTimedOut, PoolFailed or LinkFailed; then the
        link is as it was, unless only letting clients through failed: reconcile sees to that.
        """
        spec = self.spec(tenant, limits)
        old_dsn = self.servers.dsn(self.places.database_sockets(tenant.id, old_id or "none"))
        fresh = self._link(tenant.id, new_id)  # whatever can be done before anybody waits is done before
        try:
            pause = self.pools.pause(spec, live_dsn=old_dsn, patience_s=self.patience_s, grace_s=self.grace_s)
            began = time.monotonic() - pause.waited_s
            try:
                at("paused")
                self._replace(tenant.id, fresh)
                at("renamed")
            finally:
                self._resume(tenant, limits, spec)
        finally:
            fresh.unlink(missing_ok=True)
        return Swap(gap_s=time.monotonic() - began, ended_sessions=pause.ended_sessions)

    def _resume(self, tenant: Tenant, limits: DatabaseLimits, spec: PoolSpec) -> None:
        """A pool that died while paused is started again: it comes up unpaused and follows the link."""
        for attempt in range(1, RESUME_ATTEMPTS + 1):
            try:
                return self.pools.resume(spec)
            except PoolFailed as error:
                LOG.warning("pool.resume_failed", tenant_id=tenant.id, attempt=attempt, error=str(error))
                if attempt == RESUME_ATTEMPTS:
                    raise
                self.start(tenant, limits)


def _link_failed(fresh: Path, error: OSError) -> LinkFailed:
    fresh.unlink(missing_ok=True)
    return LinkFailed(
        f"The live link could not be replaced: {error.strerror}.", effect="The live database is as it was."
    )


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
