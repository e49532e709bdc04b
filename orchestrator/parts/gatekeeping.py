"""The way to running: decide, use an approval or ask for one, remember, record. What is not let through never runs."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.core.actors import Actor
from orchestrator.core.allowlist.decide import Decided, Gate
from orchestrator.core.allowlist.execution import Execution, execution
from orchestrator.core.allowlist.explain import Explanation, explain
from orchestrator.core.allowlist.paths import Links
from orchestrator.core.allowlist.request import CommandRequest
from orchestrator.core.allowlist.rules import Decision
from orchestrator.core.allowlist.texts import shown_argv
from orchestrator.core.approvals import ApprovalKind, ApprovalUnfit, binding
from orchestrator.core.audit import AuditEvent, Phase, Result
from orchestrator.core.commands import ApprovalRequired, Command, CommandDenied, CommandState, Outcome, TooManyCommands
from orchestrator.core.limits import Profile
from orchestrator.core.names import new_id
from orchestrator.core.ports.audit import AuditLog
from orchestrator.core.ports.sandboxd import HeldCommand, SandboxPolicy
from orchestrator.core.tenants import Tenant
from orchestrator.errors import OrchestratorError
from orchestrator.parts.policy import InForce, PolicyPart
from orchestrator.parts.running import Holder, Runner, Task, limits_of
from orchestrator.store import approvals, commands
from orchestrator.store.commands import Storing

QUEUE_POLL_S = 0.02


@dataclass(frozen=True)
class Begun:
    """A command that was let through, recorded, and not started yet."""

    command: Command
    task: Task
    event: AuditEvent
    runner: Runner


@dataclass(frozen=True)
class Gatekeeper:
    """`runners` by place, and `query` for the builtin; `links` looks at a tenant's files.

    `holders`: those of them that make a command ready while it is being recorded.
    """

    store: Engine
    audit: AuditLog
    policies: PolicyPart
    runners: Mapping[str, Runner]
    links: Callable[[Tenant], Links]
    profile: Callable[[str], Profile]
    sandbox_policy: Callable[[Tenant], SandboxPolicy]
    approval_lifetime_s: float = 86_400.0
    queue_wait_s: float = 15.0
    holders: Mapping[str, Holder] = field(default_factory=dict)

    def explain(self, tenant: Tenant, request: CommandRequest) -> Explanation:
        """What would be decided and why; nothing is recorded or run."""
        gate = self.policies.in_force().gate(tenant)
        links = self.links(tenant)
        return explain(gate, request, gate.decide(request, links), tenant=tenant.name, links=links)

    def let_through(self, tenant: Tenant, request: CommandRequest, *, actor: Actor, request_id: str) -> Begun:
        """Decide and record; what comes back may be run. Raises as CommandFlow.run says."""
        policy = self.policies.in_force()
        gate, links = policy.gate(tenant), self.links(tenant)
        decided = gate.decide(request, links)
        command_id = new_id("k")
        draft = functools.partial(
            commands.draft,
            command_id,
            tenant=tenant,
            actor=actor,
            request=request,
            policy_version=policy.version.number,
        )
        if decided.decision is Decision.DENY:
            explanation = explain(gate, request, decided, tenant=tenant.name, links=links)
            self._deny(draft, actor, request_id, command_id, policy, explanation)
        approval_id, approver = None, ""
        if decided.decision is Decision.APPROVAL:
            approval_id, approver = self._approved(tenant, request, actor, request_id, command_id, policy, decided)
        profile = self.profile(tenant.profile)
        ready = execution(gate, request, decided, tenant=tenant.name)
        ready = replace(ready, timeout_s=min(ready.timeout_s, profile.commands.wall_time))
        task = self._task(tenant, request, command_id, ready, gate, profile)
        command = draft(
            decision=decided.decision.value,
            rule=decided.rule,
            reason=decided.reason,
            state=CommandState.RUNNING,
            approval_id=approval_id,
        )
        event = replace(
            command_event(command, "command.run", actor=actor),
            request_id=request_id,
            approver=approver,
            phase=Phase.BEFORE,
        )
        adding = functools.partial(
            commands.adding,
            self.store,
            command,
            timeout_s=ready.timeout_s,
            at_once=gate.limits.fewest(profile.commands.at_once),
        )
        kind = ready.builtin or request.place
        holder = self.holders.get(kind)
        held = holder.hold(task) if holder is not None else None
        try:
            stored = self._recorded(event, adding)
            if stored is None:  # others run: what is ready must not take their places while it waits for its own
                _let_go(held)
                held = None
                stored = self._remembered(event, adding)
        except BaseException:
            _let_go(held)
            raise
        return Begun(stored, replace(task, held=held), event, self.runners[kind])

    def _recorded(self, event: AuditEvent, adding: Callable[[], Storing]) -> Command | None:
        """Record the command while the control database takes it in; None when the tenant has no place for it now.

        No record, no run: then the command is closed as failed.
        """
        with adding() as storing:
            try:
                self.audit.append(event)
            except OrchestratorError as problem:
                stored = storing.done()
                if stored is not None:
                    commands.finish(self.store, stored, Outcome(CommandState.FAILED, error=problem.message))
                raise
            try:
                return storing.done()
            except SQLAlchemyError:
                self._note_unstarted(event, "It could not be stored.")
                raise

    def _remembered(self, event: AuditEvent, adding: Callable[[], Storing]) -> Command:
        """Take one of the tenant's places as soon as there is one. Raises TooManyCommands."""
        deadline = time.monotonic() + self.queue_wait_s
        while True:
            with adding() as storing:
                command = storing.done()
            if command is not None:
                return command
            if time.monotonic() >= deadline:
                self._note_unstarted(event, "Too many ran at once.")
                raise TooManyCommands(
                    f"{event.tenant} runs as many commands at once as it may.",
                    effect="Nothing was run.",
                    next_step="Wait until one has ended, or cancel one.",
                )
            time.sleep(QUEUE_POLL_S)

    def _note_unstarted(self, event: AuditEvent, error: str) -> None:
        """What was recorded as about to run never did."""
        self.audit.append(
            replace(event, phase=Phase.AFTER, result=Result.FAILED, details={**event.details, "error": error}),
            durable=False,
        )

    def _task(
        self, tenant: Tenant, request: CommandRequest, command_id: str, ready: Execution, gate: Gate, profile: Profile
    ) -> Task:
        return Task(
            id=command_id,
            tenant=tenant,
            execution=ready,
            stdin=request.stdin,
            limits=limits_of(gate.limits, profile, ready.timeout_s),
            policy=self.sandbox_policy(tenant),
            network=request.network,
        )

    def _deny(
        self,
        draft: Callable[..., Command],
        actor: Actor,
        request_id: str,
        command_id: str,
        policy: InForce,
        explanation: Explanation,
    ) -> None:
        """Record and remember the denial, then raise CommandDenied with the explanation."""
        denied = draft(
            decision=Decision.DENY.value,
            rule=explanation.rule,
            reason=explanation.reason,
            state=CommandState.DENIED,
        )
        event = command_event(commands.add(self.store, denied), "command.run", actor=actor)
        self.audit.append(replace(event, request_id=request_id, result=Result.DENIED))
        raise CommandDenied(
            f"Denied: {explanation.reason}",
            effect="Nothing was run.",
            next_step=explanation.how_to_ask,
            command_id=command_id,
            policy_version=policy.version.number,
            **explanation_fields(explanation),
        )

    def _approved(
        self,
        tenant: Tenant,
        request: CommandRequest,
        actor: Actor,
        request_id: str,
        command_id: str,
        policy: InForce,
        decided: Decided,
    ) -> tuple[str, str]:
        """Use an approval for exactly this, or ask for one and raise ApprovalRequired."""
        bound = binding(request, tenant_id=tenant.id, policy_version=policy.version.number)
        used = approvals.use(
            self.store, binding=bound, actor=actor, command_id=command_id, approval_id=request.approval
        )
        if used is not None:
            return used.id, used.decided_by or ""
        event = AuditEvent(
            actor=actor,
            action="command.run",
            tenant=tenant.name,
            target=shown_argv(request.argv),
            request_id=request_id,
            decision=decided.decision.value,
            rule=decided.rule,
            policy_version=policy.version.number,
            result=Result.DENIED,
        )
        if request.approval is not None:
            self.audit.append(replace(event, approval=request.approval))
            raise ApprovalUnfit(
                "The approval is not for exactly this command, or it was used, has expired, or the allowlist changed.",
                effect="Nothing was run.",
                next_step="Run it again without naming the approval to ask for a new one.",
            )
        with self.store.begin() as connection:
            asked, _ = approvals.ask(
                connection,
                kind=ApprovalKind.COMMAND,
                tenant=tenant,
                actor=actor,
                request=request,
                binding=bound,
                policy_version=policy.version.number,
                rule=decided.rule,
                reason=decided.reason,
                lifetime_s=self.approval_lifetime_s,
            )
            self.audit.append(replace(event, action="approval.ask", approval=asked.id, result=None))
        raise ApprovalRequired(
            f"A person has to approve this first: {decided.reason}",
            effect="Nothing was run; the request waits.",
            next_step=f"When {asked.id} is approved, run exactly the same command again.",
            approval_id=asked.id,
            rule=decided.rule,
            expires_at=asked.expires_at.isoformat(),
        )


def _let_go(held: HeldCommand | None) -> None:
    """It will not run."""
    if held is not None:
        held.close()


def explanation_fields(explanation: Explanation) -> dict[str, object]:
    """An explanation as plain values, for errors and answers."""
    return {
        "decision": explanation.decision.value,
        "rule": explanation.rule,
        "reason": explanation.reason,
        "matched": list(explanation.matched),
        "nearest": explanation.nearest,
        "why_not": explanation.why_not,
        "how_to_ask": explanation.how_to_ask,
        "shown": explanation.shown,
    }


def command_event(command: Command, action: str, *, actor: Actor) -> AuditEvent:
    """The audit event about a command, its details included."""
    return AuditEvent(
        actor=actor,
        action=action,
        tenant=command.tenant,
        target=shown_argv(command.argv),
        decision=command.decision,
        rule=command.rule,
        policy_version=command.policy_version,
        approval=command.approval_id or "",
        details={
            "command": command.id,
            "argv": list(command.argv),
            "cwd": command.cwd,
            "place": command.place.value,
            "network": command.network,
            "stdin_bytes": command.stdin_bytes,
        },
    )
