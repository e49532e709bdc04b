"""A disposable place: a fresh container without any network on a copy of the workspace, gone afterwards.

The tenant's own workspace stays untouched. What the command changed in its copy is read from outside, once the
container is gone, and comes back with the command; somebody applies it later, or nobody does.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator import logs
from orchestrator.core.commands import CommandFailed
from orchestrator.core.limits import Profile
from orchestrator.core.networks import NONE
from orchestrator.core.places import Places
from orchestrator.core.ports.engine import ContainerSpec, Engine, Mount
from orchestrator.core.ports.sandboxd import Sandboxd, SandboxdUnreachable
from orchestrator.core.ports.volume import Volume
from orchestrator.core.ports.workspaces import Keeping, Workspaces
from orchestrator.core.tenants import Tenant
from orchestrator.errors import OrchestratorError
from orchestrator.parts.running import Publish, Ran, Task, run_in
from orchestrator.parts.sandbox import SandboxPart

LOG = logs.get("disposable")
ROLE = "disposable"
INSIDE = "/workspace"


@dataclass(frozen=True)
class DisposableRunner:
    """A Runner. Everything of one run is named by the command's id, so that what a crash leaves can be found."""

    sandbox: SandboxPart
    engine: Engine
    volume: Volume
    workspaces: Workspaces
    places: Places
    profile: Callable[[str], Profile]
    patience_s: float = 30.0

    def run(self, task: Task, publish: Publish) -> Ran:
        """See Runner. Raises WorkspaceNotCopyable, VolumeFailed, DiskFull, EngineFailed, KernelGateBroken."""
        if task.network != NONE:
            raise CommandFailed("A disposable place has no network.", effect="Nothing was run.")
        tenant, copies = task.tenant, self._copies(task.id)
        try:
            limit = self.profile(tenant.profile).workspace
            for name, source in (
                ("base", self.places.workspace(tenant.id)),
                ("git", self.places.repository(tenant.id)),
            ):
                self.volume.clone_tree(
                    source, copies / name, uid=self._uid(tenant), gid=self._uid(tenant), size_bytes=limit
                )
            # Looked over as a copy that nobody can change any more, not as the tenant's living files.
            self.workspaces.mark(copies / "base", inside=INSIDE)
            self.volume.clone_tree(copies / "base", copies / "tree", uid=self._uid(tenant), size_bytes=limit)
            before = self.workspaces.mark(copies / "tree", inside=INSIDE)
            try:
                outcome = run_in(self._started(task, copies), task, publish)
            finally:
                self._end(tenant, task.id)
            found = self.workspaces.changes(copies / "base", copies / "tree", before, self._keeping(task))
            return Ran(replace(outcome, changed_paths=found.paths, changed_complete=found.complete), found.files)
        finally:
            self._clear(copies)

    def cancel(self, tenant: Tenant, command_id: str) -> bool:
        """False when it has not begun to run, or has ended."""
        try:
            self._connect(tenant, command_id).cancel(command_id)
        except SandboxdUnreachable:
            return False
        return True

    def left(self) -> tuple[frozenset[str], frozenset[str]]:
        """The commands of which containers or copies are there, and those whose large files are kept."""
        containers = {one.name.rsplit("-", 1)[-1] for one in self.engine.containers() if one.role == ROLE}
        copies = {one.name for one in self.places.disk.glob("disposable/*")}
        return frozenset(containers | copies), frozenset(one.name for one in self.places.disk.glob("results/*/*"))

    def sweep(self, runs: frozenset[str], results: frozenset[str]) -> None:
        """Remove what these runs left, and these results."""
        for one in self.engine.containers():
            if one.role == ROLE and one.name.rsplit("-", 1)[-1] in runs:
                self.engine.remove(one.name)
        for command_id in runs:
            self._clear(self._copies(command_id))
        for result in self.places.disk.glob("results/*/*"):
            if result.name in results:
                shutil.rmtree(result, ignore_errors=True)

    def _clear(self, copies: Path) -> None:
        for name in ("base", "git", "tree"):
            self.volume.remove_tree(copies / name)
        shutil.rmtree(copies, ignore_errors=True)

    def _keeping(self, task: Task) -> Keeping:
        """As much as one command may write; older results of the tenant make room, so that all fit its workspace."""
        profile = self.profile(task.tenant.profile)
        aside = self.places.results(task.tenant.id) / task.id
        left = profile.workspace - profile.commands.written
        older = [one for one in aside.parent.glob("*") if one != aside] if aside.parent.is_dir() else []
        for result in sorted(older, key=lambda one: one.stat().st_mtime, reverse=True):
            left -= sum(one.stat().st_size for one in result.iterdir())
            if left < 0:
                shutil.rmtree(result, ignore_errors=True)
        return Keeping(INSIDE, aside, profile.commands.written)

    def _started(self, task: Task, copies: Path) -> Sandboxd:
        tenant = task.tenant
        sockets = self._sockets(tenant, task.id)
        sockets.mkdir(mode=0o700, parents=True)
        os.chown(sockets, self._uid(tenant), self._uid(tenant))
        self.engine.start(self._spec(tenant, task.id, copies))
        sandboxd = self._connect(tenant, task.id)
        self.sandbox.check_gate(tenant, sandboxd.wait(timeout_s=self.patience_s))
        sandboxd.set_policy(task.policy)
        return sandboxd

    def _spec(self, tenant: Tenant, command_id: str, copies: Path) -> ContainerSpec:
        """The tenant's own container, without network or database, on the copies."""
        spec = self.sandbox.spec(tenant, None)
        return replace(
            spec,
            name=self._name(tenant, command_id),
            role=ROLE,
            mounts=(
                Mount(copies / "tree", INSIDE),
                Mount(copies / "git", "/repository"),
                Mount(self._sockets(tenant, command_id), "/run/sandboxd"),
            ),
        )

    def _end(self, tenant: Tenant, command_id: str) -> None:
        try:
            self.engine.remove(self._name(tenant, command_id))
        except OrchestratorError as problem:  # the sweep takes it later; the command's own end counts more
            LOG.warning("disposable.left", command=command_id, problem=str(problem))
        shutil.rmtree(self._sockets(tenant, command_id), ignore_errors=True)

    def _connect(self, tenant: Tenant, command_id: str) -> Sandboxd:
        return self.sandbox.sandboxds.connect(self._sockets(tenant, command_id), uid=self._uid(tenant))

    def _name(self, tenant: Tenant, command_id: str) -> str:
        return f"{self.sandbox.instance}-{tenant.id}-{command_id}"

    def _copies(self, command_id: str) -> Path:
        return self.places.disk / "disposable" / command_id

    def _sockets(self, tenant: Tenant, command_id: str) -> Path:
        return self.places.tenant_run(tenant.id) / f"x{command_id[-6:]}"

    def _uid(self, tenant: Tenant) -> int:
        return tenant.uid if os.geteuid() == 0 else os.geteuid()
