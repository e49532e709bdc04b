"""The allowlist in force: the newest valid version, watched on disk, the same for every process at the next command."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, replace

from sqlalchemy import Engine

from orchestrator import logs
from orchestrator.core.actors import Actor, system
from orchestrator.core.allowlist.decide import Gate
from orchestrator.core.allowlist.errors import InvalidAllowlist
from orchestrator.core.allowlist.load import Allowlist, load
from orchestrator.core.allowlist.programs import policy_digest, sandbox_policy
from orchestrator.core.audit import AuditEvent, Phase, Result
from orchestrator.core.policies import PolicyMoved, PolicySource, PolicyUnavailable, PolicyVersion
from orchestrator.core.ports.audit import AuditLog
from orchestrator.core.ports.policies import PolicyFile, PolicyFileFailed
from orchestrator.core.ports.sandboxd import Program, SandboxPolicy
from orchestrator.core.tenants import Tenant
from orchestrator.store import policies

LOG = logs.get("allowlist")
BY_HAND = system("disk")
MADE_MAX = 200
READS_MAX = 20


@dataclass(frozen=True)
class InForce:
    """`problem` says why the file on disk is not what is in force, empty when it is."""

    version: PolicyVersion
    allowlist: Allowlist
    problem: str = ""

    def gate(self, tenant: Tenant) -> Gate:
        return self.allowlist.gate(profile=tenant.profile, tenant=tenant.name)


class PolicyPart:
    """One object per process. Asking what is in force costs one stat of the file while nothing changes."""

    def __init__(
        self, store: Engine, audit: AuditLog, file: PolicyFile, *, product_programs: tuple[Program, ...] = ()
    ) -> None:
        self._store = store
        self._audit = audit
        self._file = file
        self._product_programs = product_programs
        self._mutex = threading.Lock()
        self._stamp: object = None
        self._seen_digest = ""
        self._in_force: InForce | None = None
        self._made: dict[str, SandboxPolicy] = {}

    def in_force(self) -> InForce:
        """What decides now. An edit by hand becomes a version first; an invalid one changes nothing.

        Raises PolicyUnavailable when there never was a valid allowlist, and AuditUnavailable when an edit by hand
        cannot be recorded.
        """
        stamp = self._file.stamp()
        known = self._in_force
        if known is not None and stamp is not None and stamp == self._stamp:
            return known
        with self._mutex:
            return self._refreshed(stamp)

    def sandbox_policy(self, tenant: Tenant) -> SandboxPolicy:
        """What the kernel of a tenant's sandbox lets start: the allowlist's programs and the product's own."""
        gate = self.in_force().gate(tenant)
        made = self._made.get(policy_digest(gate))
        if made is None:
            listed = sandbox_policy(gate)
            known = {program.path for program in listed.programs}
            own = tuple(one for one in self._product_programs if one.path not in known)
            made = SandboxPolicy(listed.digest, (*listed.programs, *own))
            if len(self._made) > MADE_MAX:
                self._made.clear()
            self._made[made.digest] = made
        return made

    def save(
        self,
        text: str,
        *,
        actor: Actor,
        reason: str,
        expected: int | None,
        source: PolicySource = PolicySource.SAVED,
        restored_from: int | None = None,
    ) -> PolicyVersion:
        """Make `text` the version in force. `expected` is the version the caller saw (None: whatever is there).

        Raises InvalidAllowlist, PolicyMoved, AuditUnavailable, PolicyFileFailed; then nothing has changed.
        """
        allowlist = load(text, source="the new allowlist")
        self.in_force_or_none()  # an edit by hand that nobody saw yet becomes a version of its own first
        with policies.changing(self._store) as connection:
            newest = policies.newest(connection)
            current = newest[0].number if newest is not None else 0
            if expected is not None and expected != current:
                raise PolicyMoved(
                    f"The allowlist is at version {current}, not at {expected}.",
                    effect="Nothing was saved.",
                    next_step="Look at what changed, apply your edit to the newest version and save again.",
                    current=current,
                    expected=expected,
                )
            if newest is not None and newest[0].digest == allowlist.digest:
                return newest[0]
            event = _event(actor, current + 1, allowlist, reason, source)
            self._audit.append(replace(event, phase=Phase.BEFORE, result=None))
            version = policies.add(
                connection,
                number=current + 1,
                digest=allowlist.digest,
                content=text,
                author=actor.name,
                reason=reason,
                source=source,
                restored_from=restored_from,
            )
            # The file first, then the commit: a crash in between is an edit by hand, found and numbered later.
            try:
                self._file.write(text)
            except PolicyFileFailed:
                self._audit.append(replace(event, phase=Phase.AFTER, result=Result.FAILED))
                raise
        self._audit.append(replace(event, phase=Phase.AFTER))
        LOG.info("allowlist.saved", version=version.number, author=version.author)
        return version

    def in_force_or_none(self) -> InForce | None:
        """Like `in_force`, None where there is no valid allowlist yet."""
        try:
            return self.in_force()
        except PolicyUnavailable:
            return None

    def _refreshed(self, stamp: object) -> InForce:
        for _ in range(READS_MAX):
            found = self._looked(stamp)
            if found is not None:
                return found
            stamp = self._file.stamp()
        return self._fallen_back(stamp, "It changes faster than it can be read.")

    def _looked(self, stamp: object) -> InForce | None:
        """What the file says now; None when somebody saved another text meanwhile."""
        try:
            text = self._file.read()
        except PolicyFileFailed as problem:
            return self._fallen_back(stamp, problem.message)
        digest = hashlib.sha256(text.encode()).hexdigest()
        known = self._in_force
        if known is not None and digest == self._seen_digest:
            # The same text may be a later version: another process may have saved one and gone back meanwhile.
            if known.problem:
                return self._fallen_back(stamp, known.problem, digest=digest)
            allowlist = known.allowlist
        else:
            try:
                allowlist = load(text, source=self._file.name)
            except InvalidAllowlist as problem:
                LOG.warning("allowlist.invalid", file=self._file.name, problems=problem.problems[:5])
                return self._fallen_back(stamp, problem.message, digest=digest)
        version = self._numbered(allowlist)
        if version is None:
            return None
        found = InForce(version, allowlist)
        self._in_force, self._stamp, self._seen_digest = found, stamp, digest
        return found

    def _numbered(self, allowlist: Allowlist) -> PolicyVersion | None:
        """The newest version if it is this text, else a new one: somebody edited the file by hand.

        Whoever saves holds the same lock from the version to the file. So a text that is still in the file under the
        lock, and is not the newest, came by hand; one that is gone by then was saved over: None.
        """
        with self._store.connect() as connection:
            newest = policies.newest(connection)
        if newest is not None and newest[0].digest == allowlist.digest:
            return newest[0]
        with policies.changing(self._store) as connection:
            newest = policies.newest(connection)
            if newest is not None and newest[0].digest == allowlist.digest:
                return newest[0]
            if not self._still_holds(allowlist):
                return None
            number = newest[0].number + 1 if newest is not None else 1
            reason = "Edited by hand on disk." if newest is not None else "The first allowlist."
            self._audit.append(_event(BY_HAND, number, allowlist, reason, PolicySource.DISK))
            return policies.add(
                connection,
                number=number,
                digest=allowlist.digest,
                content=allowlist.text,
                author=BY_HAND.name,
                reason=reason,
                source=PolicySource.DISK,
            )

    def _still_holds(self, allowlist: Allowlist) -> bool:
        try:
            return self._file.read() == allowlist.text
        except PolicyFileFailed:
            return False

    def _fallen_back(self, stamp: object, problem: str, *, digest: str = "") -> InForce:
        """The file is no allowlist: the newest stored version stays in force, with the problem shown."""
        with self._store.connect() as connection:
            newest = policies.newest(connection)
        if newest is None:
            raise PolicyUnavailable(
                f"There is no valid allowlist: {problem}",
                effect="Every command is denied.",
                next_step="Correct the file; `orchestrator allowlist check FILE` says what is wrong.",
            )
        version, text = newest
        known = self._in_force
        same = known is not None and known.version.digest == version.digest
        allowlist = known.allowlist if known is not None and same else load(text, source=f"version {version.number}")
        found = InForce(version, allowlist, problem)
        self._in_force, self._stamp, self._seen_digest = found, stamp, digest
        return found


def _event(actor: Actor, number: int, allowlist: Allowlist, reason: str, source: PolicySource) -> AuditEvent:
    return AuditEvent(
        actor=actor,
        action="allowlist.save",
        target=f"version {number}",
        policy_version=number,
        result=Result.OK,
        details={"digest": allowlist.digest, "reason": reason, "source": source.value},
    )
