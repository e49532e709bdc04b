"""Throw-away copies of a snapshot: a running PostgreSQL that anything may be done to, gone afterwards."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from orchestrator.core.names import new_id
from orchestrator.core.places import Places
from orchestrator.core.ports.engine import ContainerLimits
from orchestrator.core.ports.servers import APP_DATABASE, ServerKind, Servers, ServerSpec
from orchestrator.core.ports.volume import Volume
from orchestrator.core.snapshots import Snapshot
from orchestrator.errors import OutsideFailure
from orchestrator.parts.generation import Generations

LIMITS = ContainerLimits(memory_bytes=512 << 20, cpus=2.0, pids=64)
OWNER = "rehearsals"


@dataclass(frozen=True)
class Copies:
    servers: Servers
    volume: Volume
    places: Places
    generations: Generations
    instance: str

    @contextmanager
    def copy(self, snapshot: Snapshot) -> Iterator[str]:
        """A superuser's connection string to a fresh copy. Raises SnapshotNotReady, DiskFull, ServerFailed."""
        self.generations.check_snapshot(snapshot)
        copy_id = new_id("r")
        spec = self._spec(copy_id, snapshot.image)
        with self._lock(copy_id) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # held while it is in use: what is not held was left behind
            try:
                source = self.places.snapshot(snapshot.id) / "data"
                self.volume.clone_tree(source, spec.data, uid=spec.uid, gid=spec.uid)
                self.servers.start(spec)
                yield self.servers.dsn(spec.sockets, database=APP_DATABASE)
            finally:
                self._remove(copy_id)

    def _spec(self, copy_id: str, image: str) -> ServerSpec:
        base = self.generations.base_spec(copy_id, image=image)
        return ServerSpec(
            name=f"{self.instance}-rehearsal-{copy_id}",
            data=self.places.generation(OWNER, copy_id),
            sockets=self.places.server_sockets(copy_id),
            uid=base.uid,
            limits=LIMITS,
            kind=ServerKind.BASE,
            # It is thrown away, so nothing of it needs to be durable.
            settings={"default_transaction_read_only": "off", "fsync": "off", "max_locks_per_transaction": "256"},
            image=image,
        )

    def _remove(self, copy_id: str) -> None:
        spec = self._spec(copy_id, "")
        with suppress(OutsideFailure):
            self.servers.remove(spec.name)
        with suppress(OutsideFailure, OSError):
            for entry in spec.sockets.iterdir() if spec.sockets.is_dir() else ():
                entry.unlink(missing_ok=True)
            if spec.sockets.is_dir():
                spec.sockets.rmdir()
            self.volume.remove_tree(spec.data)
            (self._locks() / f"{copy_id}.lock").unlink(missing_ok=True)

    def sweep(self) -> list[str]:
        """Remove what a process that died left behind; copies in use are left alone."""
        removed = []
        for path in sorted(self._locks().glob("*.lock")) if self._locks().is_dir() else ():
            copy_id = path.name.removesuffix(".lock")
            with self._lock(copy_id) as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                self._remove(copy_id)
                removed.append(copy_id)
        return removed

    def _locks(self) -> Path:
        return self.places.var / "run" / OWNER

    @contextmanager
    def _lock(self, copy_id: str) -> Iterator[IO[bytes]]:
        self._locks().mkdir(parents=True, exist_ok=True)
        with (self._locks() / f"{copy_id}.lock").open("ab") as lock:
            yield lock
