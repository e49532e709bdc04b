"""Everything an interface may ask for, made once by `build`. Interfaces know this and nothing below it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Engine

from orchestrator.config import Settings
from orchestrator.core.ports.audit import AuditLog
from orchestrator.core.ports.identity import IdentityProvider
from orchestrator.core.ports.snapshots import Source
from orchestrator.flows.access import Access
from orchestrator.flows.allowlist import AllowlistFlow
from orchestrator.flows.approval import ApprovalFlow
from orchestrator.flows.command import CommandFlow
from orchestrator.flows.containers import ContainersFlow
from orchestrator.flows.file import FileFlow
from orchestrator.flows.launch import LaunchFlow
from orchestrator.flows.notify import NotifyFlow
from orchestrator.flows.probe import ProbeFlow
from orchestrator.flows.publish import PublishFlow
from orchestrator.flows.reconcile import ReconcileFlow
from orchestrator.flows.refresh import RefreshFlow
from orchestrator.flows.sample import SampleFlow
from orchestrator.flows.snapshot import Snapshots
from orchestrator.flows.tenant import TenantFlow
from orchestrator.flows.usage import UsageFlow
from orchestrator.flows.watch import WatchFlow
from orchestrator.parts.code import Code
from orchestrator.wiring.changes import ChangeServices
from orchestrator.wiring.installation import Installation


@dataclass(frozen=True, kw_only=True)
class Services:
    """One installation. `store` is the control database, for reading; whatever changes goes through a flow."""

    settings: Settings
    store: Engine
    audit: AuditLog
    access: Access
    installation: Installation
    launch: LaunchFlow
    tenants: TenantFlow
    reconcile: ReconcileFlow
    probe: ProbeFlow
    watch: WatchFlow
    usage: UsageFlow
    sample: SampleFlow
    containers: ContainersFlow
    snapshots: Snapshots
    source: Callable[[], Source]
    refresh: RefreshFlow
    publish: PublishFlow
    code: Code
    changes: ChangeServices
    commands: CommandFlow
    approvals: ApprovalFlow
    allowlist: AllowlistFlow
    files: FileFlow
    notify: NotifyFlow
    identity: IdentityProvider | None = None

    def close(self) -> None:
        """Give back every connection; the object is of no use afterwards."""
        self.store.dispose()
        self.installation.drivers.engine.connection.close()
