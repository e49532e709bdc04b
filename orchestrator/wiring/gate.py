"""The gate's flows: what decides, what approves, what is edited, and where commands run."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine

from orchestrator.core.allowlist.paths import Links
from orchestrator.core.ports.sandboxd import Program
from orchestrator.core.tenants import Tenant
from orchestrator.drivers.files.placing import ConfinedPlacer
from orchestrator.drivers.policy.file import DiskPolicyFile
from orchestrator.drivers.query.queries import PostgresQueries
from orchestrator.drivers.workspace.links import HostLinks
from orchestrator.drivers.workspace.trees import CopiedTrees
from orchestrator.flows.allowlist import AllowlistFlow
from orchestrator.flows.approval import ApprovalFlow
from orchestrator.flows.command import CommandFlow
from orchestrator.flows.file import FileFlow
from orchestrator.parts.applying import ChangeApplier
from orchestrator.parts.disposable import DisposableRunner
from orchestrator.parts.filework import FileRunner
from orchestrator.parts.gatekeeping import Gatekeeper
from orchestrator.parts.policy import PolicyPart
from orchestrator.parts.query import QueryPart
from orchestrator.parts.running import QueryRunner, SandboxRunner
from orchestrator.parts.tenancy import Tenancy
from orchestrator.store import commands, tenants
from orchestrator.wiring.drivers import Drivers

# The app and the publish run whatever the allowlist says; a tenant's commands are decided before they get here.
PRODUCT_PROGRAMS = (Program("/usr/bin/python3"), Program("/usr/bin/git"))


@dataclass(frozen=True)
class GateFlows:
    commands: CommandFlow
    approvals: ApprovalFlow
    allowlist: AllowlistFlow
    files: FileFlow


def make_policies(drivers: Drivers, store: Engine) -> PolicyPart:
    """The allowlist in force, watched on disk."""
    file = DiskPolicyFile(drivers.settings.file("allowlist"))
    return PolicyPart(store, drivers.audit, file, product_programs=PRODUCT_PROGRAMS)


def make_gate(drivers: Drivers, store: Engine, tenancy: Tenancy, policies: PolicyPart) -> GateFlows:
    """Commands, approvals and the allowlist of one installation."""
    settings, places = drivers.settings, drivers.places
    queries = QueryPart(
        queries=PostgresQueries(),
        servers=drivers.servers,
        places=places,
        instance=settings.instance,
        password=tenancy.pools.password,
        live_id=tenancy.pools.live_id,
        is_to_cancel=lambda command_id: commands.is_to_cancel(store, command_id),
    )

    def links(tenant: Tenant) -> Links:
        return HostLinks({"/workspace": places.workspace(tenant.id)})

    sandbox = SandboxRunner(tenancy.sandbox.connect, tenancy.egress.way)
    gatekeeper = Gatekeeper(
        store=store,
        audit=drivers.audit,
        policies=policies,
        runners={
            "sandbox": sandbox,
            "query": QueryRunner(queries),
            "files": FileRunner(drivers.files, lambda one: places.workspace(one.id)),
            "disposable": DisposableRunner(
                sandbox=tenancy.sandbox,
                engine=drivers.engine,
                volume=drivers.volume,
                workspaces=CopiedTrees(),
                places=places,
                profile=settings.limits.profile,
            ),
        },
        holders={"sandbox": sandbox},
        links=links,
        profile=settings.limits.profile,
        sandbox_policy=policies.sandbox_policy,
        approval_lifetime_s=settings.commands.approval_lifetime,
    )
    return GateFlows(
        commands=CommandFlow(
            store=store,
            audit=drivers.audit,
            gatekeeper=gatekeeper,
            applier=ChangeApplier(ConfinedPlacer(), places),
            output_kept_bytes=settings.commands.output_kept,
        ),
        approvals=ApprovalFlow(store, drivers.audit, policies, settings.commands.approval_lifetime),
        allowlist=AllowlistFlow(
            store, policies, lambda tenant_id: tenants.get(store, tenant_id), tenancy.sandbox.connect
        ),
        files=FileFlow(drivers.audit, drivers.files, policies, lambda one: places.workspace(one.id), links),
    )
