"""Publish: commit what is in the workspace, check it outside, move the branch, push it, tell the workspace.

Every step can be run again. The branch outside moves only after the scan; the workspace learns of it last, and
a death in between is repaired by the next publish.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass

from sqlalchemy import Engine

from orchestrator import logs
from orchestrator.core import publishing
from orchestrator.core.actors import Actor
from orchestrator.core.audit import AuditEvent, Phase, Result
from orchestrator.core.names import TenantNames
from orchestrator.core.ports.audit import AuditLog
from orchestrator.core.ports.git import PackRefused, PushRefused, RemoteUnreachable, Repository
from orchestrator.core.ports.sandboxd import Sandboxd
from orchestrator.core.publishes import BranchView, MergeConflicts, Publish, PublishRefused, PublishState
from orchestrator.core.publishing import Finding
from orchestrator.core.tenants import Tenant
from orchestrator.errors import OrchestratorError
from orchestrator.parts.inner_git import InnerGit
from orchestrator.parts.workspace import Candidate, WorkspacePart
from orchestrator.store import publishes
from orchestrator.store.session import tenant_lock

LOG = logs.get("publish")
AT_ONCE = 4
PATIENCE_S = 15.0  # reconcile may just be looking after the tenant, or an earlier publish be at its end


@dataclass(frozen=True)
class PublishFlow:
    """`reach` lends the tenant's supervisor, from a throw-away container when the tenant is stopped.

    `command_ids` names the commands since the last publish, for the commit's trailers.
    """

    store: Engine
    audit: AuditLog
    repository: Repository
    workspace: WorkspacePart
    production: str
    reach: Callable[[Tenant], AbstractContextManager[Sandboxd]]
    command_ids: Callable[[Tenant], Iterable[str]]
    file_bytes_max: int = publishing.FILE_BYTES_MAX
    patience_s: float = PATIENCE_S

    def run(self, tenant: Tenant, *, actor: Actor, reason: str = "on demand") -> Publish:
        """Publish one tenant's branch; returns the record, whose state says what came of it.

        Raises TenantBusy; PublishRefused when the scan or git's checks found something; MergeConflicts; any other
        failure is written into the record and raised.
        """
        branch = _branch(tenant)
        with tenant_lock(self.store, tenant.id, patience_s=self.patience_s):
            published = self.repository.branch(branch)
            record = publishes.begin(self.store, tenant.id, actor=actor.name, reason=reason, base_commit=published)
            event = AuditEvent(actor, "branch.publish", target=branch, tenant=tenant.name, phase=Phase.BEFORE)
            self.audit.append(event)
            try:
                finished = self._publish(tenant, record, branch, published, actor)
            except OrchestratorError as error:
                findings = error.fields.get("findings", ())
                refused = isinstance(error, PublishRefused | PackRefused | MergeConflicts)
                state = PublishState.REFUSED if refused else PublishState.FAILED
                publishes.finish(
                    self.store,
                    record.id,
                    state,
                    error=str(error),
                    findings=findings if isinstance(findings, tuple) else (),
                )
                self._note(event, Result.DENIED if refused else Result.FAILED, str(error.code))
                LOG.warning("publish.failed", tenant=tenant.name, code=error.code, reason=error.message)
                raise
            self._note(event, Result.OK, finished.state.value, commit=finished.commit or "")
            LOG.info("publish.finished", tenant=tenant.name, state=finished.state, commit=finished.commit)
            return finished

    def run_all(
        self, tenants: Iterable[Tenant], *, actor: Actor, reason: str
    ) -> dict[str, Publish | OrchestratorError]:
        """Publish many, a few at once; one that fails does not hold up the others."""

        def one(tenant: Tenant) -> Publish | OrchestratorError:
            try:
                return self.run(tenant, actor=actor, reason=reason)
            except OrchestratorError as error:
                return error

        wanted = list(tenants)
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="publish") as pool:
            return dict(zip((tenant.name for tenant in wanted), pool.map(one, wanted), strict=True))

    def bring_up_to_date(self, tenant: Tenant, *, actor: Actor) -> BranchView:
        """Publish what is there, then merge production into the branch and publish the merge.

        Raises MergeConflicts with the marks left in the workspace.
        """
        self.run(tenant, actor=actor, reason="before bringing the branch up to date")
        branch = _branch(tenant)
        commit = self.repository.fetch(branch=self.production)
        if commit is not None:
            with tenant_lock(self.store, tenant.id, patience_s=self.patience_s), self.reach(tenant) as sandboxd:
                git = InnerGit(sandboxd)
                self.audit.append(AuditEvent(actor, "branch.update", target=branch, tenant=tenant.name))
                self.workspace.bring(git, commit)
                self.workspace.merge(git, commit, author=actor.name, branch=branch)
            self.run(tenant, actor=actor, reason="brought up to date with production")
        return self.view(tenant)

    def view(self, tenant: Tenant) -> BranchView:
        """Where the branch stands, from what is known outside the container; asks nobody."""
        branch = _branch(tenant)
        head, production = self.repository.branch(branch), self.repository.branch(self.production)
        last = next(iter(publishes.history(self.store, tenant.id, limit=1)), None)
        ahead = behind = 0
        conflicts: tuple[str, ...] = ()
        if head and production:
            ahead = len(self.repository.log(head, since=production, limit=1000))
            if not self.repository.holds(production, at=head):  # the merge of one's own work is nothing new
                behind = len(self.repository.log(production, since=head, limit=1000))
            conflicts = self.repository.merge_check(production, head).conflicts if ahead and behind else ()
        return BranchView(branch, head, production or "", ahead, behind, conflicts, last)

    def is_behind(self, tenant: Tenant) -> bool:
        """Whether production's branch has moved on since the tenant's code was taken from it; asks nobody."""
        head, production = self.repository.branch(_branch(tenant)), self.repository.branch(self.production)
        return head is not None and production is not None and not self.repository.holds(production, at=head)

    def _publish(self, tenant: Tenant, record: Publish, branch: str, published: str | None, actor: Actor) -> Publish:
        with self.reach(tenant) as sandboxd:
            git = InnerGit(sandboxd)
            self._step(record, "save")
            message = publishing.commit_message(tenant.name, actor.name, self.command_ids(tenant))
            candidate = self.workspace.save(
                git, branch=branch, published=published, message=message, author=f"{tenant.name} (agent)"
            )
            if candidate.commit != published:
                self._take(git, record, candidate, branch, published)
            if candidate.commit == published and not candidate.is_new:
                return self._push(record, branch, candidate.commit, PublishState.UNCHANGED)
            self._step(record, "settle")
            self.workspace.settle(git, candidate, branch=branch)
        return self._push(record, branch, candidate.commit, PublishState.PUBLISHED)

    def _take(self, git: InnerGit, record: Publish, candidate: Candidate, branch: str, published: str | None) -> None:
        """Bring the objects out, scan every commit of them, and only then keep them and move the branch."""
        with self.repository.quarantine() as held:
            self._step(record, "take", commit=candidate.commit)
            self.workspace.take(git, held, candidate, published=published)
            self._step(record, "scan")
            new = held.new_files(
                candidate.commit, known=self.workspace.known(published), content_bytes_max=self.file_bytes_max
            )
            scan = publishing.scan(new, file_bytes_max=self.file_bytes_max)
            if scan.findings:
                raise _refused(scan.findings)
            self._step(record, "move", files_count=scan.files_count)
            held.keep()
        self.repository.move_branch(branch, expected=published, to=candidate.commit)

    def _push(self, record: Publish, branch: str, commit: str, state: PublishState) -> Publish:
        """A push that fails leaves the publish pending: the work is safe outside and the next publish pushes it."""
        self._step(record, "push", commit=commit)
        try:
            there = self.repository.remote_branch(branch)
            if there != commit:
                self.repository.push(commit, branch=branch, expected=there, credential="publish")
                state = PublishState.PUBLISHED
        except (RemoteUnreachable, PushRefused) as error:
            LOG.error("publish.push_failed", branch=branch, code=error.code)
            return publishes.finish(self.store, record.id, PublishState.PENDING, error=str(error))
        return publishes.finish(self.store, record.id, state, pushed=True)

    def _step(self, record: Publish, name: str, **values: object) -> None:
        publishes.step(self.store, record.id, name, **values)

    def _note(self, event: AuditEvent, result: Result, outcome: str, **details: object) -> None:
        self.audit.append(
            AuditEvent(
                event.actor,
                event.action,
                target=event.target,
                tenant=event.tenant,
                phase=Phase.AFTER,
                result=result,
                details={"outcome": outcome, **details},
            )
        )


def _refused(findings: tuple[Finding, ...]) -> PublishRefused:
    shown = "; ".join(f"{one.path}{f':{one.line}' if one.line else ''}: {one.what}" for one in findings[:5])
    return PublishRefused(
        f"{len(findings)} finding{'s' if len(findings) > 1 else ''} stopped this publish: {shown}.",
        effect="Nothing left the workspace.",
        next_step="Take them out of the files (and, once committed, out of the history), then publish again.",
        findings=findings,
    )


def _branch(tenant: Tenant) -> str:
    return TenantNames("", tenant.id, tenant.name).branch
