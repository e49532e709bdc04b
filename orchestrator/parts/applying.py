"""Applying what a disposable command changed to the tenant's workspace: all of it fits, or none of it is written."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.commands import FileChanged, WorkspaceMoved
from orchestrator.core.places import Places
from orchestrator.core.ports.files import FileNotThere, Files
from orchestrator.core.tenants import Tenant
from orchestrator.errors import OrchestratorError


@dataclass(frozen=True)
class ChangeApplier:
    files: Files
    places: Places

    def check(self, tenant: Tenant, changes: list[FileChanged]) -> None:
        """Raises WorkspaceMoved naming every file that is not what the command started from."""
        moved = [one.path for one in changes if self._now(tenant, one.path) != one.before_digest]
        if moved:
            shown = ", ".join(moved[:5]) + (f" and {len(moved) - 5} more" if len(moved) > 5 else "")
            raise WorkspaceMoved(
                f"Files have changed in the workspace since the command began: {shown}.",
                effect="Nothing was applied.",
                next_step="Run the command again on the workspace as it is now.",
                paths=moved,
            )

    def apply(self, tenant: Tenant, changes: list[FileChanged]) -> None:
        """Write them one by one, each only onto what it was made from. Raises the Files port's errors."""
        root = self.places.workspace(tenant.id)
        for one in changes:
            if one.kind == "deleted":
                self.files.delete(root, one.path)
            else:
                content = one.content or b""
                self.files.write(root, one.path, content, uid=tenant.uid, expected_digest=one.before_digest)

    def _now(self, tenant: Tenant, path: str) -> str:
        try:
            return self.files.read(self.places.workspace(tenant.id), path).digest
        except FileNotThere:
            return ""
        except OrchestratorError:
            return "something else"
