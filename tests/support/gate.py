"""The gate on a real control database and a real audit log, with a runner that only writes down what would run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Engine, text

from orchestrator.config import PROJECT
from orchestrator.core.actors import Actor, ActorKind
from orchestrator.core.commands import CommandState, Outcome
from orchestrator.core.limits import Limits
from orchestrator.core.tenants import Tenant
from orchestrator.drivers.audit.log import FileAuditLog
from orchestrator.drivers.policy.file import DiskPolicyFile
from orchestrator.drivers.workspace.links import HostLinks
from orchestrator.flows.allowlist import AllowlistFlow
from orchestrator.flows.approval import ApprovalFlow
from orchestrator.flows.command import CommandFlow
from orchestrator.parts.gatekeeping import Gatekeeper
from orchestrator.parts.policy import PolicyPart
from orchestrator.parts.running import Publish, Ran, Task
from orchestrator.store import tenants
from tests.support.interfaces import tenant

SHIPPED = PROJECT / "configs" / "allowlist.yaml"
ADA = Actor(ActorKind.PERSON, "user_ada", "Ada")
BEN = Actor(ActorKind.PERSON, "user_ben", "Ben")
AGENT = Actor(ActorKind.AGENT, "tok_1", "Ada/agent", on_behalf_of="user_ada")


DONE = Outcome(CommandState.FINISHED, exit_code=0, output_bytes=5, duration_ms=1)
TABLES = "commands, command_outputs, command_changes, approvals, policies, tenants"


@dataclass
class NotingRunner:
    """Says `told`, then ends with `outcome`; with `hold` it waits for `release`, and can be cancelled."""

    tasks: list[Task] = field(default_factory=list)
    told: tuple[tuple[str, bytes], ...] = (("stdout", b"done\n"),)
    outcome: Outcome = DONE
    hold: bool = False
    release: threading.Event = field(default_factory=threading.Event)
    before: Callable[[Task], None] = lambda task: None

    def run(self, task: Task, publish: Publish) -> Ran:
        self.before(task)
        self.tasks.append(task)
        for stream, data in self.told:
            publish(stream, data)
        if self.hold:
            assert self.release.wait(60)
        return Ran(self.outcome)

    def cancel(self, tenant: Tenant, command_id: str) -> bool:
        known = any(task.id == command_id for task in self.tasks)
        self.outcome = Outcome(CommandState.CANCELLED)
        self.release.set()
        return known


@dataclass
class Gated:
    """Everything a test of the gate needs."""

    store: Engine
    audit: FileAuditLog
    audit_directory: Path
    file: Path
    workspace: Path
    tenant: Tenant
    runner: NotingRunner
    policies: PolicyPart
    commands: CommandFlow
    approvals: ApprovalFlow
    allowlist: AllowlistFlow

    def another_process(self) -> PolicyPart:
        """What a second process of the control plane would have."""
        return PolicyPart(self.store, self.audit, DiskPolicyFile(self.file))


@contextmanager
def gated(store: Engine, root: Path) -> Iterator[Gated]:
    """Everything lies below `root` and in `store`, which is emptied first."""
    with store.begin() as connection:
        connection.execute(text(f"TRUNCATE {TABLES} CASCADE"))
    file, workspace = root / "allowlist.yaml", root / "workspace"
    file.write_text(SHIPPED.read_text())
    workspace.mkdir()
    audit = FileAuditLog(root / "audit", root / "audit.key")
    runner = NotingRunner()
    policies = PolicyPart(store, audit, DiskPolicyFile(file))
    limits = Limits()
    gatekeeper = Gatekeeper(
        store=store,
        audit=audit,
        policies=policies,
        runners={"sandbox": runner, "disposable": runner, "query": runner},
        links=lambda _: HostLinks({"/workspace": workspace}),
        profile=limits.profile,
        sandbox_policy=policies.sandbox_policy,
        queue_wait_s=0,
    )
    yield Gated(
        store=store,
        audit=audit,
        audit_directory=root / "audit",
        file=file,
        workspace=workspace,
        tenant=tenant(store, "north"),
        runner=runner,
        policies=policies,
        commands=CommandFlow(store, audit, gatekeeper, output_kept_bytes=1_000),
        approvals=ApprovalFlow(store, audit, policies),
        allowlist=AllowlistFlow(store, policies, lambda tenant_id: tenants.get(store, tenant_id)),
    )


def broken(gate: Gated) -> None:
    """Its log can be written no more."""
    (gate.audit_directory / "head").unlink(missing_ok=True)
    (gate.audit_directory / "head").mkdir()
