"""Files of a workspace as people and agents see them: decided by the allowlist, recorded, confined, size-limited.

Each operation is put to the allowlist as a command of the builtin `files`: `files read PATH`, `files write PATH` and
so on. Without rules for it nothing is possible. An edit needs what reading and what writing need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from orchestrator.core.actors import Actor
from orchestrator.core.allowlist.decide import Decided
from orchestrator.core.allowlist.paths import Links
from orchestrator.core.allowlist.request import CommandRequest
from orchestrator.core.allowlist.rules import Decision
from orchestrator.core.allowlist.texts import shown_argv
from orchestrator.core.audit import AuditEvent, Phase, Result
from orchestrator.core.ports.audit import AuditLog
from orchestrator.core.ports.files import FilePart, Files, FileTooLarge, Listing, Matches
from orchestrator.core.tenants import Tenant
from orchestrator.errors import Denied, OrchestratorError
from orchestrator.parts.policy import InForce, PolicyPart

ROOT = "/workspace"
DOWNLOAD_BYTES_MAX = 512 * 2**20
UNLISTED = "The allowlist has no rules for files."
Made = TypeVar("Made")


class FileDenied(Denied):
    """The allowlist does not let this be done with this path."""

    code = "denied.file"


@dataclass(frozen=True)
class FileFlow:
    """`root` is a tenant's work tree on the host, `links` looks at it the way the gate does."""

    audit: AuditLog
    files: Files
    policies: PolicyPart
    root: Callable[[Tenant], Path]
    links: Callable[[Tenant], Links]

    def entries(self, tenant: Tenant, path: str, *, actor: Actor, recursive: bool = False) -> Listing:
        """Names in a directory. Raises FileDenied, PathRefused, FileNotThere."""
        self._decide(tenant, "file.list", path, actor, [("list", _inside(path))])
        return self.files.entries(self.root(tenant), path, recursive=recursive)

    def read(self, tenant: Tenant, path: str, *, actor: Actor, offset: int = 0, limit: int = 1_048_576) -> FilePart:
        """Raises FileDenied, PathRefused, FileNotThere."""
        self._decide(tenant, "file.read", path, actor, [("read", _inside(path))])
        return self.files.read(self.root(tenant), path, offset=offset, limit=limit)

    def download(self, tenant: Tenant, path: str, *, actor: Actor) -> tuple[int, Iterator[bytes]]:
        """Its size and the whole of a file in pieces, decided and recorded once.

        Raises FileDenied, PathRefused, FileNotThere, and FileTooLarge before the first piece.
        """
        self._decide(tenant, "file.download", path, actor, [("read", _inside(path))])
        first = self.files.read(self.root(tenant), path)
        if first.size_bytes > DOWNLOAD_BYTES_MAX:
            raise FileTooLarge(
                f"A file downloaded here is at most {DOWNLOAD_BYTES_MAX // 2**20} MiB large.",
                next_step="Read it in parts: `orchestrator file read --offset`.",
            )
        return first.size_bytes, self._pieces(tenant, first)

    def _pieces(self, tenant: Tenant, piece: FilePart) -> Iterator[bytes]:
        """Up to the size it had at first, even when it grows meanwhile."""
        size_bytes = piece.size_bytes
        while piece.content and piece.offset < size_bytes:
            yield piece.content[: size_bytes - piece.offset]
            piece = self.files.read(self.root(tenant), piece.path, offset=piece.offset + len(piece.content))

    def search(self, tenant: Tenant, text: str, *, actor: Actor, under: str = "") -> Matches:
        """Lines holding `text` literally. Raises FileDenied, InvalidPath."""
        self._decide(tenant, "file.search", under, actor, [("search", text, _inside(under))])
        return self.files.search(self.root(tenant), text, under=under)

    def glob(self, tenant: Tenant, pattern: str, *, actor: Actor) -> Listing:
        """Paths matching `pattern`. Raises FileDenied, InvalidPath."""
        self._decide(tenant, "file.glob", pattern, actor, [("glob", pattern)])
        return self.files.glob(self.root(tenant), pattern)

    def write(
        self, tenant: Tenant, path: str, content: bytes, *, actor: Actor, expected_digest: str | None = None
    ) -> FilePart:
        """Replace or create. `expected_digest` is what was read; empty: must not exist yet. Raises EditMismatch."""
        event = self._decide(tenant, "file.write", path, actor, [("write", _inside(path))], changes=True)
        return self._changed(
            event,
            lambda: self.files.write(self.root(tenant), path, content, uid=tenant.uid, expected_digest=expected_digest),
        )

    def edit(self, tenant: Tenant, path: str, old: str, new: str, *, actor: Actor) -> FilePart:
        """Replace `old`, which stands in the file exactly once. Raises EditMismatch."""
        wanted = [("write", _inside(path)), ("read", _inside(path))]
        event = self._decide(tenant, "file.edit", path, actor, wanted, changes=True)
        return self._changed(event, lambda: self.files.edit(self.root(tenant), path, old, new, uid=tenant.uid))

    def delete(self, tenant: Tenant, path: str, *, actor: Actor) -> None:
        """Delete one file or link. Raises FileDenied, FileNotThere."""
        event = self._decide(tenant, "file.delete", path, actor, [("delete", _inside(path))], changes=True)
        self._changed(event, lambda: self.files.delete(self.root(tenant), path))

    def _decide(
        self,
        tenant: Tenant,
        action: str,
        path: str,
        actor: Actor,
        wanted: Sequence[tuple[str, ...]],
        *,
        changes: bool = False,
    ) -> AuditEvent:
        """No record, no operation: what only looks is recorded as one event, what changes before and after.

        Each of `wanted` must be allowed; the first that is not decides.
        """
        policy = self.policies.in_force()
        argv, decided = self._decided(policy, tenant, wanted)
        is_allowed = decided.decision is Decision.ALLOW
        event = AuditEvent(
            actor,
            action,
            target=path,
            tenant=tenant.name,
            phase=Phase.BEFORE if changes and is_allowed else Phase.EVENT,
            decision=decided.decision.value,
            rule=decided.rule,
            policy_version=policy.version.number,
            result=None if changes and is_allowed else Result.OK if is_allowed else Result.DENIED,
        )
        self.audit.append(event)
        if not is_allowed:
            raise FileDenied(
                f"The allowlist does not let this be done here: {decided.reason}",
                effect="Nothing was done.",
                next_step=_way(decided.decision, argv),
                rule=decided.rule,
            )
        return event

    def _decided(
        self, policy: InForce, tenant: Tenant, wanted: Sequence[tuple[str, ...]]
    ) -> tuple[tuple[str, ...], Decided]:
        gate, links = policy.gate(tenant), self.links(tenant)
        name = gate.builtin("files")
        first: tuple[tuple[str, ...], Decided] | None = None
        for operation, *arguments in wanted:
            argv = (name, operation, "--", *arguments)
            decided = gate.decide(CommandRequest(argv=argv), links) if name else Decided(Decision.DENY, "", UNLISTED)
            if decided.decision is not Decision.ALLOW:
                return argv, decided
            first = first or (argv, decided)
        if first is None:
            raise ValueError("nothing was asked for")
        return first

    def _changed(self, event: AuditEvent, change: Callable[[], Made]) -> Made:
        try:
            made = change()
        except OrchestratorError:
            self._after(event, Result.FAILED)
            raise
        self._after(event, Result.OK)
        return made

    def _after(self, event: AuditEvent, result: Result) -> None:
        self.audit.append(
            AuditEvent(
                event.actor,
                event.action,
                target=event.target,
                tenant=event.tenant,
                phase=Phase.AFTER,
                decision=event.decision,
                rule=event.rule,
                policy_version=event.policy_version,
                result=result,
                changed_paths=(event.target,) if result is Result.OK else (),
            )
        )


def _way(decision: Decision, argv: tuple[str, ...]) -> str:
    if decision is Decision.APPROVAL:
        return f"Run it as a command ({shown_argv(argv)}): it then waits for a person's approval."
    return "Choose a file of the workspace, or ask an admin for a rule."


def _inside(path: str) -> str:
    """A path as the gate knows it; one that would leave is left to be refused as it is."""
    return f"{ROOT}/{path}" if path and not path.startswith("/") else path or ROOT
