"""Editing the allowlist: check, replay over recent commands, save as a version, restore an old one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Engine

from orchestrator.core.actors import Actor
from orchestrator.core.allowlist.load import Allowlist, load
from orchestrator.core.allowlist.programs import sandbox_policy
from orchestrator.core.allowlist.request import CommandRequest
from orchestrator.core.commands import Command
from orchestrator.core.policies import PolicyEditDenied, PolicySource, PolicyVersion, text_diff
from orchestrator.core.ports.sandboxd import Sandboxd
from orchestrator.core.tenants import Tenant, TenantMissing, TenantState
from orchestrator.errors import InvalidInput, OrchestratorError
from orchestrator.parts.policy import InForce, PolicyPart
from orchestrator.store import commands, policies, tenants

REPLAYED_MAX = 1_000
ASKED_MAX = 50


class ReasonMissing(InvalidInput):
    code = "invalid.reason"


@dataclass(frozen=True)
class ReplayedChange:
    """A recent command whose decision would change."""

    command: Command
    before: str
    after: str
    rule_before: str
    rule_after: str


@dataclass(frozen=True)
class Replay:
    """`replayed` commands were decided again under the new text."""

    replayed: int
    changes: tuple[ReplayedChange, ...]


@dataclass(frozen=True)
class Lacking:
    """A listed program that an image of running tenants cannot start, and why."""

    image: str
    program: str
    why: str


@dataclass(frozen=True)
class AllowlistFlow:
    """`tenant` finds a tenant by its id; removed ones raise TenantMissing. `connect` reaches a running sandbox."""

    store: Engine
    policies: PolicyPart
    tenant: Callable[[str], Tenant]
    connect: Callable[[Tenant], Sandboxd] | None = None

    def in_force(self) -> InForce:
        """Raises PolicyUnavailable when there is no valid allowlist."""
        return self.policies.in_force()

    def check(self, text: str, *, source: str) -> Allowlist:
        """Read, lint and run every example. Raises InvalidAllowlist with every problem."""
        return load(text, source=source)

    def lacking(self, allowlist: Allowlist) -> list[Lacking]:
        """What running tenants' images lack of what the list names: a warning, since images differ.

        One tenant of each image, profile and scope is asked; one that does not answer is left out.
        """
        found: dict[tuple[str, str], Lacking] = {}
        asked: set[tuple[str, str]] = set()
        if self.connect is None:
            return []
        for tenant in tenants.listed(self.store, states=[TenantState.RUNNING]):
            policy = sandbox_policy(allowlist.gate(profile=tenant.profile, tenant=tenant.name))
            if (tenant.image, policy.digest) in asked or len(asked) >= ASKED_MAX:
                continue
            asked.add((tenant.image, policy.digest))
            try:
                report = self.connect(tenant).check_policy(policy)
            except OrchestratorError:
                continue
            for program, why in report.refused.items():
                found[tenant.image, program] = Lacking(tenant.image, program, why)
        return [found[key] for key in sorted(found)]

    def replay(self, text: str, *, limit: int = 200) -> Replay:
        """Decide recent commands again under `text`: which decisions would change? Raises InvalidAllowlist.

        Paths are judged by name alone, before and after, since the files are not what they were.
        """
        new = load(text, source="the new allowlist")
        old = self.policies.in_force().allowlist
        changes, replayed = [], 0
        for command in commands.listed(self.store, limit=min(limit, REPLAYED_MAX)):
            try:
                tenant = self.tenant(command.tenant_id)
            except TenantMissing:
                continue
            replayed += 1
            change = _replayed(command, tenant, old, new)
            if change is not None:
                changes.append(change)
        return Replay(replayed, tuple(changes))

    def save(self, text: str, *, actor: Actor, reason: str, expected: int | None) -> PolicyVersion:
        """Put `text` in force as the next version. `expected` is the version the caller saw.

        Raises InvalidAllowlist, PolicyMoved, ReasonMissing, PolicyEditDenied, AuditUnavailable.
        """
        _check_author(actor, reason)
        return self.policies.save(text, actor=actor, reason=reason.strip(), expected=expected)

    def restore(self, number: int, *, actor: Actor, reason: str, expected: int | None = None) -> PolicyVersion:
        """Put an old version's text in force again, as a new version. Raises as `save`, and PolicyVersionMissing."""
        _check_author(actor, reason)
        with self.store.connect() as connection:
            _, text = policies.get(connection, number)
        return self.policies.save(
            text,
            actor=actor,
            reason=reason.strip(),
            expected=expected,
            source=PolicySource.RESTORED,
            restored_from=number,
        )

    def history(self, *, limit: int = 100, before: int | None = None) -> list[PolicyVersion]:
        """Versions, newest first."""
        self.policies.in_force_or_none()
        with self.store.connect() as connection:
            return policies.listed(connection, limit=limit, before=before)

    def version(self, number: int) -> tuple[PolicyVersion, str]:
        """One version and its text. Raises PolicyVersionMissing."""
        with self.store.connect() as connection:
            return policies.get(connection, number)

    def diff(self, number: int, *, against: int | None = None) -> str:
        """What `number` changed: a unified diff against the version before it, or against `against`."""
        base = number - 1 if against is None else against
        old = self.version(base)[1] if base > 0 else ""
        return text_diff(old, self.version(number)[1], old_name=f"version {base}", new_name=f"version {number}")


def _check_author(actor: Actor, reason: str) -> None:
    if actor.is_agent:
        raise PolicyEditDenied("An agent never edits the allowlist it is held by.", effect="Nothing was saved.")
    if len(reason.strip()) < 3:
        raise ReasonMissing("Give a reason for the change.", effect="Nothing was saved.")


def _replayed(command: Command, tenant: Tenant, old: Allowlist, new: Allowlist) -> ReplayedChange | None:
    request = CommandRequest.model_construct(
        argv=command.argv,
        cwd=command.cwd,
        environment=command.environment,
        stdin="",
        timeout_s=None,
        place=command.place.value,
        network=command.network,
        approval=None,
    )
    before = old.gate(profile=tenant.profile, tenant=tenant.name).decide(request)
    after = new.gate(profile=tenant.profile, tenant=tenant.name).decide(request)
    if before.decision is after.decision:
        return None
    return ReplayedChange(command, before.decision.value, after.decision.value, before.rule, after.rule)
