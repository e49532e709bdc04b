"""Applying what a disposable command changed to the tenant's workspace: all of it fits, or none of it is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestrator.core.commands import FileChanged, NotApplicable, ResultGone, WorkspaceMoved
from orchestrator.core.places import Places
from orchestrator.core.ports.placing import Placer
from orchestrator.core.tenants import Tenant

SHOWN_MAX = 5


@dataclass(frozen=True)
class ChangeApplier:
    placer: Placer
    places: Places

    def check(self, tenant: Tenant, command_id: str, changes: list[FileChanged]) -> None:
        """Raises NotApplicable, ResultGone or WorkspaceMoved, naming the files."""
        refused = [one for one in changes if one.problem]
        if refused:
            raise NotApplicable(
                f"Part of the result cannot be applied: {_listed([f'{one.path} {one.problem}' for one in refused])}.",
                effect="Nothing was applied: a part alone never is.",
                next_step="Run the command so that it leaves these alone, or run it in the sandbox itself.",
                paths={one.path: one.problem for one in refused},
            )
        gone = [one.path for one in changes if one.is_kept_aside and not self._aside(tenant, command_id, one).is_file()]
        if gone:
            raise ResultGone(
                f"Large files of this result are not kept any more: {_listed(gone)}.",
                effect="Nothing was applied.",
                next_step="Run the command again.",
                paths=gone,
            )
        root = self.places.workspace(tenant.id)
        moved = [one.path for one in changes if self.placer.state(root, one.path) != one.before_digest]
        if moved:
            raise WorkspaceMoved(
                f"Files have changed in the workspace since the command began: {_listed(moved)}.",
                effect="Nothing was applied.",
                next_step="Run the command again on the workspace as it is now.",
                paths=moved,
            )

    def apply(self, tenant: Tenant, command_id: str, changes: list[FileChanged]) -> None:
        """Put them in place one by one, each only onto what it was made from. Raises the Placer's errors."""
        root = self.places.workspace(tenant.id)
        for one in sorted(changes, key=lambda change: change.kind != "deleted"):
            if one.kind == "deleted":
                self.placer.delete(root, one.path, expected=one.before_digest)
            elif one.link is not None:
                self.placer.put_link(root, one.path, one.link, uid=tenant.uid, expected=one.before_digest)
            else:
                source = one.content if one.content is not None else self._aside(tenant, command_id, one)
                self.placer.put_file(
                    root, one.path, source, digest=one.after_digest, uid=tenant.uid, expected=one.before_digest
                )

    def _aside(self, tenant: Tenant, command_id: str, change: FileChanged) -> Path:
        return self.places.results(tenant.id) / command_id / change.after_digest


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN_MAX} more" if len(names) > SHOWN_MAX else ""
    return ", ".join(names[:SHOWN_MAX]) + more
