"""Building, starting and removing generations, and the read-only base of a snapshot."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from orchestrator.core.generations import DatabaseLimits
from orchestrator.core.names import TenantNames
from orchestrator.core.places import Places
from orchestrator.core.ports.engine import ContainerLimits
from orchestrator.core.ports.servers import RoleLimits, Roles, ServerKind, Servers, ServerSpec
from orchestrator.core.ports.volume import Volume
from orchestrator.core.snapshots import Snapshot
from orchestrator.core.tenants import UID_FIRST, Tenant
from orchestrator.errors import Conflict, OutsideFailure

SERVICE_UID = UID_FIRST - 1  # builders, bases and the installation's own servers
BASE_LIMITS = ContainerLimits(memory_bytes=512 << 20, cpus=2.0, pids=64)
RESERVED_CONNECTIONS = 10  # reader, watchdog and the orchestrator itself
LOCK_POLL_S = 0.05


class SnapshotDamaged(OutsideFailure):
    """A snapshot's files are not what its manifest says."""

    code = "outside_failure.snapshot_damaged"


class SnapshotNotReady(Conflict):
    code = "conflict.snapshot_not_ready"


class BaseBusy(Conflict):
    """The base of a snapshot could not be reserved in time."""

    code = "conflict.base_busy"


@dataclass(frozen=True)
class Generations:
    """What may be done with generations. It records nothing: the caller journals before each call.

    As root every tenant's server has a uid of its own; otherwise all run as the orchestrator's own user.
    """

    servers: Servers
    roles: Roles
    volume: Volume
    places: Places
    instance: str

    def create(
        self,
        tenant: Tenant,
        snapshot: Snapshot,
        generation_id: str,
        limits: DatabaseLimits,
        *,
        before: Callable[[str], None] = lambda _: None,
    ) -> ServerSpec:
        """Clone `snapshot`, start a database on it and hand it to the tenant's role.

        It runs when this returns. On any failure what was made is removed again. `before` is told `cloning`,
        `starting` and `checking` before each is begun, so that the caller can journal it.
        Raises SnapshotNotReady, SnapshotDamaged, VolumeFailed, DiskFull or ServerFailed.
        """
        spec = self.spec(tenant, generation_id, limits, image=snapshot.image)
        try:
            before("cloning")
            self.check_snapshot(snapshot)
            self.volume.clone_tree(
                self.places.snapshot(snapshot.id) / "data",
                spec.data,
                uid=spec.uid,
                gid=spec.uid,
                size_bytes=limits.size_bytes,
            )
            before("starting")
            self.servers.start(spec)
            before("checking")
            self.hand_over(tenant, spec, limits)
            found = self.roles.snapshot_id(spec)
            if found != snapshot.id:
                raise SnapshotDamaged(f"The copy says it was made from {ascii(found)[:40]}, not from {snapshot.id}.")
            self.roles.warm(spec)
        except BaseException:
            self._remove_quietly(tenant, generation_id)
            raise
        return spec

    def spec(self, tenant: Tenant, generation_id: str, limits: DatabaseLimits, *, image: str = "") -> ServerSpec:
        """The server of one generation; the same arguments give the same container. `image` is the snapshot's."""
        names = TenantNames(self.instance, tenant.id, tenant.name)
        settings = {
            "max_connections": str(limits.connections + RESERVED_CONNECTIONS),
            "temp_file_limit": f"{max(1, limits.temp_file_bytes // 1024)}kB",
        }
        if not limits.durable:
            settings |= {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
        return ServerSpec(
            name=names.database(generation_id),
            data=self.places.generation(tenant.id, generation_id),
            sockets=self.places.database_sockets(tenant.id, generation_id),
            uid=self._uid(tenant.database_uid),
            limits=limits.container,
            kind=ServerKind.GENERATION,
            tenant_id=tenant.id,
            generation_id=generation_id,
            settings=settings,
            # A uid of its own: PgBouncer's console lets its own uid in without a password.
            pool_uid=self._uid(tenant.pool_uid),
            pool_role=names.role,
            image=image,
        )

    def start(self, tenant: Tenant, generation_id: str, limits: DatabaseLimits, *, image: str = "") -> ServerSpec:
        """Start an existing generation (an undo, a restart, reconcile); nothing when it runs. Raises ServerFailed."""
        spec = self.spec(tenant, generation_id, limits, image=image)
        self.servers.start(spec)
        self.hand_over(tenant, spec, limits)
        return spec

    def hand_over(self, tenant: Tenant, spec: ServerSpec, limits: DatabaseLimits) -> None:
        """Give the database to the tenant's role, with its limits; running it again changes only the limits."""
        self.roles.hand_over(
            spec,
            role=TenantNames(self.instance, tenant.id, tenant.name).role,
            limits=RoleLimits(limits.connections, limits.temp_file_bytes, limits.statement_timeout_s),
        )

    def stop(self, tenant: Tenant, generation_id: str) -> None:
        """A fast shutdown; its files stay."""
        self.servers.stop(TenantNames(self.instance, tenant.id, tenant.name).database(generation_id))

    def remove(self, tenant: Tenant, generation_id: str) -> None:
        """Delete its container, sockets and files; fine when some or all are gone already."""
        self.servers.remove(TenantNames(self.instance, tenant.id, tenant.name).database(generation_id))
        _remove_sockets(self.places.database_sockets(tenant.id, generation_id))
        self.volume.remove_tree(self.places.generation(tenant.id, generation_id))

    def on_disk(self, tenant_id: str) -> set[str]:
        """The generation ids that have files, half-made ones included: what reconcile compares with the records."""
        parent = self.places.generation(tenant_id, "x").parent
        with suppress(FileNotFoundError):
            return {entry.name.removesuffix(".partial") for entry in parent.iterdir()}
        return set()

    def check_snapshot(self, snapshot: Snapshot) -> None:
        """Compare the snapshot's files with its manifest, by number and size (about 10 ms per thousand files)."""
        if snapshot.manifest is None or snapshot.state != "ready":
            raise SnapshotNotReady(f"The snapshot {snapshot.id} is {snapshot.state}.")
        files, size_bytes = tree_size(self.places.snapshot(snapshot.id) / "data")
        if (files, size_bytes) != (snapshot.manifest.files, snapshot.manifest.size_bytes):
            raise SnapshotDamaged(
                f"The snapshot {snapshot.id} has {files} files with {size_bytes} bytes,"
                f" its manifest says {snapshot.manifest.files} with {snapshot.manifest.size_bytes}.",
                effect="No database is made from it.",
                next_step="Take a new one: `orchestrator snapshot take`.",
            )

    @contextmanager
    def base(self, snapshot: Snapshot, *, timeout_s: float = 60.0) -> Iterator[ServerSpec]:
        """A running read-only instance of `snapshot`, for as long as the block lasts; started when needed.

        Several callers, in several processes, share it. It keeps running afterwards: `stop_idle_bases` ends it.
        """
        spec = self.base_spec(snapshot.id, image=snapshot.image)
        with self._lock(snapshot.id, "start") as starting, self._lock(snapshot.id, "use") as using:
            _flock(starting, fcntl.LOCK_EX, timeout_s)
            _flock(using, fcntl.LOCK_SH, timeout_s)
            if not spec.data.exists():
                self.check_snapshot(snapshot)
                source = self.places.snapshot(snapshot.id) / "data"
                self.volume.clone_tree(source, spec.data, uid=spec.uid, gid=spec.uid)
            self.servers.start(spec, timeout_s=timeout_s)
            fcntl.flock(starting, fcntl.LOCK_UN)
            try:
                yield spec
            finally:
                os.utime(using.fileno())

    def base_spec(self, snapshot_id: str, *, image: str = "") -> ServerSpec:
        name = f"{self.instance}-base-{snapshot_id}"
        return ServerSpec(
            name=name,
            data=self.places.base(snapshot_id),
            sockets=self.places.server_sockets(f"b-{snapshot_id}"),
            uid=self._uid(SERVICE_UID),
            limits=BASE_LIMITS,
            kind=ServerKind.BASE,
            image=image,
        )

    def stop_idle_bases(self, *, idle_s: float) -> list[str]:
        """Stop and delete every base nobody has used for `idle_s`; returns their snapshots' ids."""
        stopped = []
        folder = self.places.base("x").parent
        for data in sorted(folder.iterdir()) if folder.is_dir() else []:
            snapshot_id = data.name.removesuffix(".partial")
            if self.remove_base(snapshot_id, idle_s=idle_s):
                stopped.append(snapshot_id)
        return stopped

    def remove_base(self, snapshot_id: str, *, idle_s: float = 0.0) -> bool:
        """Stop and delete a base; False when it is in use or was used less than `idle_s` ago."""
        spec = self.base_spec(snapshot_id)
        with self._lock(snapshot_id, "start") as starting, self._lock(snapshot_id, "use") as using:
            try:
                fcntl.flock(starting, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.flock(using, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            if time.time() - os.fstat(using.fileno()).st_mtime < idle_s:
                return False
            self.servers.remove(spec.name)
            _remove_sockets(spec.sockets)
            self.volume.remove_tree(spec.data)
        return True

    @contextmanager
    def _lock(self, snapshot_id: str, what: str) -> Iterator[IO[bytes]]:
        path = self.places.var / "run" / f"base-{snapshot_id}.{what}"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as lock:
            yield lock

    def _uid(self, wanted: int) -> int:
        return wanted if os.geteuid() == 0 else os.geteuid()

    def _remove_quietly(self, tenant: Tenant, generation_id: str) -> None:
        """After a failure the failure counts; what could not be removed, reconcile finds."""
        with suppress(OutsideFailure, OSError):
            self.remove(tenant, generation_id)


def tree_size(root: Path) -> tuple[int, int]:
    """How many regular files a tree has, and their bytes. Raises SnapshotDamaged when it is not there."""
    if not root.is_dir():
        raise SnapshotDamaged(f"{root} is missing.", next_step="Take a new snapshot.")
    files = size_bytes = 0
    waiting = [os.fspath(root)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    files += 1
                    size_bytes += entry.stat(follow_symlinks=False).st_size
    return files, size_bytes


def _flock(lock: IO[bytes], how: int, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return fcntl.flock(lock, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise BaseBusy("The snapshot's base is being started or removed.", next_step="Try again.") from None
            time.sleep(LOCK_POLL_S)


def _remove_sockets(sockets: Path) -> None:
    with suppress(FileNotFoundError):
        for entry in sockets.iterdir():
            entry.unlink(missing_ok=True)
        sockets.rmdir()
