"""Everything an interface may ask for, made once by `build`. Interfaces know this and nothing below it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine

from orchestrator.config import Settings
from orchestrator.core.ports.audit import AuditLog
from orchestrator.flows.access import Access
from orchestrator.flows.launch import LaunchFlow
from orchestrator.flows.tenant import TenantFlow


@dataclass(frozen=True)
class Services:
    """One installation. `store` is the control database, for reading; whatever changes goes through a flow."""

    settings: Settings
    store: Engine
    audit: AuditLog
    access: Access
    launch: LaunchFlow
    tenants: TenantFlow
