"""What stands in the main navigation, by role and scope. The server checks every page again: this is only a map."""

from __future__ import annotations

from dataclasses import dataclass, replace

from orchestrator.core.access import Principal, Role, Scope
from orchestrator.core.tenants import Tenant

# One tenant's pages: path below /workspaces/NAME, label, scope.
WORKSPACE: tuple[tuple[str, str, Scope], ...] = (
    ("", "My workspace", Scope.TENANTS_READ),
    ("/changes", "Changes", Scope.CHANGES_READ),
    ("/activity", "Activity", Scope.COMMANDS_READ),
    ("/query", "Query", Scope.COMMANDS_RUN),
    ("/files", "Files", Scope.COMMANDS_RUN),
    ("/commands", "Commands", Scope.COMMANDS_RUN),
)
# Everybody else's: path, label, scope.
HOUSE: tuple[tuple[str, str, Scope], ...] = (
    ("/reviews", "Reviews", Scope.CHANGES_REVIEW),
    ("/fleet", "Fleet", Scope.SYSTEM_READ),
    ("/approvals", "Approvals", Scope.APPROVALS_DECIDE),
    ("/allowlist", "Allowlist", Scope.ALLOWLIST_READ),
    ("/jobs", "Jobs", Scope.SYSTEM_READ),
    ("/snapshots", "Snapshots", Scope.SYSTEM_READ),
    ("/schedules", "Schedules", Scope.SYSTEM_READ),
    ("/audit", "Audit", Scope.AUDIT_READ),
    ("/health", "Health", Scope.SYSTEM_READ),
    ("/users", "Users", Scope.USERS_READ),
)


@dataclass(frozen=True)
class Item:
    href: str
    label: str
    is_current: bool
    count: int = 0


def workspace_items(who: Principal, tenant: Tenant, path: str) -> list[Item]:
    """The pages of one tenant that `who` may open."""
    root = f"/workspaces/{tenant.name}"
    return [
        Item(root + below, label, _is_at(path, root + below, exact=not below))
        for below, label, scope in WORKSPACE
        if who.has(scope)
    ]


def guest_items(who: Principal, tenant: Tenant, path: str) -> list[Item]:
    """The same for whoever looks after many tenants, with the page of what this one is made of."""
    pages = workspace_items(who, tenant, path)
    pages = [replace(one, label="Workspace") if one.href == f"/workspaces/{tenant.name}" else one for one in pages]
    if not who.has(Scope.SYSTEM_READ):
        return pages
    return [Item(f"/fleet/{tenant.name}", "Tenant", _is_at(path, f"/fleet/{tenant.name}")), *pages]


def main_items(who: Principal, own: Tenant | None, path: str, counts: dict[str, int]) -> list[Item]:
    """A manager's are those of their tenant (`own`); the others' those of the house. `counts` go by path."""
    if who.role in (Role.MANAGER, Role.AGENT):
        return workspace_items(who, own, path) if own is not None else []
    return [
        Item(href, label, _is_at(path, href), counts.get(href, 0)) for href, label, scope in HOUSE if who.has(scope)
    ]


def _is_at(path: str, href: str, *, exact: bool = False) -> bool:
    return path == href or (not exact and path.startswith(href + "/"))
