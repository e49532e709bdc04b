"""Trying a change out on demand: on a throw-away copy, or on production in a transaction that is rolled back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Engine

from orchestrator.core.actors import Actor
from orchestrator.core.audit import AuditEvent
from orchestrator.core.changes import Change
from orchestrator.core.ports.audit import AuditLog
from orchestrator.core.ports.production import Production
from orchestrator.core.tenants import Tenant
from orchestrator.errors import Denied
from orchestrator.parts.checking import Checks
from orchestrator.parts.proposal import cells, migrations_of
from orchestrator.store import changes as store


class AgentMayNotRehearse(Denied):
    """Locks in production, short as they are, are a person's to take."""

    code = "denied.agent_rehearse"


class Stage(StrEnum):
    COPY = "copy"
    PRODUCTION = "production"


@dataclass(frozen=True)
class RehearseFlow:
    """`production` opens the write credential; it is asked for only when a person wants that stage."""

    store: Engine
    audit: AuditLog
    checks: Checks
    production: Callable[[], Production]
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))

    def run(self, change_id: str, tenant: Tenant, *, actor: Actor, stage: Stage = Stage.COPY) -> dict[str, Any]:
        """Returns what was found, and keeps it with the change unless the change moved meanwhile."""
        if stage is Stage.PRODUCTION and actor.is_agent:
            raise AgentMayNotRehearse("Only people rehearse on production.", effect="Production was not touched.")
        with self.store.connect() as connection:
            change = store.get(connection, change_id)
            changeset = store.changeset(connection, change_id)
        migrations = migrations_of(change)
        name = f"change.rehearsed_on_{stage.value}"
        details = {"digest": change.digest}
        self.audit.append(AuditEvent(actor, name, target=change.id, tenant=change.tenant_name, details=details))
        if stage is Stage.PRODUCTION:
            document = self.checks.rehearse_on(
                self.production(),
                changeset,
                tenant,
                migrations,
                derived=sorted(cells(change, "derived")),
                decided=sorted(cells(change, "decided")),
            )
        else:
            document = self.checks.rehearse(changeset, tenant, migrations)
        self._keep(change, stage, document)
        return document

    def _keep(self, seen: Change, stage: Stage, document: dict[str, Any]) -> None:
        key = "rehearsal" if stage is Stage.COPY else "production_rehearsal"
        with self.store.begin() as connection:
            change = store.get(connection, seen.id, for_update=True)
            if change.digest == seen.digest and change.state.is_open:
                store.save(connection, change, checks={**change.checks, key: document})
