"""What a manager's pages need besides the control database: an allowlist, a workspace, a repository; no containers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from orchestrator import config
from orchestrator.core.limits import Profile
from orchestrator.core.ports.engine import ContainerStats
from orchestrator.drivers.files.confined import ConfinedFiles
from orchestrator.drivers.git.repository import BareRepository
from orchestrator.drivers.policy.file import DiskPolicyFile
from orchestrator.drivers.workspace.links import HostLinks
from orchestrator.flows.allowlist import AllowlistFlow
from orchestrator.flows.approval import ApprovalFlow
from orchestrator.flows.command import CommandFlow
from orchestrator.flows.file import FileFlow
from orchestrator.flows.publish import PublishFlow
from orchestrator.flows.usage import Usage
from orchestrator.parts.code import Code
from orchestrator.parts.gatekeeping import Gatekeeper
from orchestrator.parts.policy import PolicyPart
from orchestrator.store import tenants
from tests.support.console import Console
from tests.support.gate import NotingRunner


def furnish(house: Console, directory: Path, *, told: str = "done\n") -> tuple[Path, NotingRunner]:
    """Give the console's services to work with; returns the workspace and what runs commands, saying `told`."""
    tree = directory / "tree"
    (tree / "reports").mkdir(parents=True)
    (tree / "reports" / "prices.sql").write_text("select 1;\n")
    services, runner = house.services, NotingRunner(told=(("stdout", told.encode()),))
    policies = PolicyPart(house.store, house.audit, DiskPolicyFile(config.PROJECT / "configs" / "allowlist.yaml"))
    links = HostLinks({"/workspace": tree})
    gatekeeper = Gatekeeper(
        store=house.store,
        audit=house.audit,
        policies=policies,
        runners={"sandbox": runner, "query": runner},
        links=lambda _: links,
        profile=lambda _: Profile(),
        sandbox_policy=policies.sandbox_policy,
    )
    repository = BareRepository(directory / "company.git")
    repository.ensure()
    services.commands = CommandFlow(house.store, house.audit, gatekeeper)
    services.approvals = ApprovalFlow(house.store, house.audit, policies)
    services.allowlist = AllowlistFlow(house.store, policies, lambda one: tenants.get(house.store, one))
    services.files = FileFlow(house.audit, ConfinedFiles(), policies, lambda _: tree, lambda _: links)
    services.code = Code(repository, "main")
    missing = cast(Any, None)
    services.publish = PublishFlow(
        house.store, house.audit, repository, missing, "main", reach=missing, command_ids=missing
    )
    running = ContainerStats(memory_bytes=90 * 2**20, memory_limit_bytes=512 * 2**20, cpu_seconds=3.0, pids=9)
    usage = Usage(Profile(), running, running, database_bytes=12 * 2**20, workspace_bytes=3 * 2**20)
    services.usage = SimpleNamespace(of=lambda _: usage)
    return tree, runner
