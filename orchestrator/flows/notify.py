"""What happened is told to those who asked for it: notices become deliveries, deliveries are made and repeated."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine

from orchestrator import logs
from orchestrator.core import webhooks
from orchestrator.core.actors import Actor
from orchestrator.core.audit import AuditEvent
from orchestrator.core.jobs import JobState
from orchestrator.core.ports.audit import AuditLog
from orchestrator.core.ports.webhooks import Sender
from orchestrator.core.webhooks import TEST, Delivery, Notice, Target, TargetMissing
from orchestrator.errors import Conflict
from orchestrator.store import outbox, tenants

LOG = logs.get("webhook")
BATCH = 200


class DeliveryUnderWay(Conflict):
    code = "conflict.delivery"


@dataclass(frozen=True)
class NotifyFlow:
    """`secret` is called with a target's name when something is signed, and its answer kept nowhere."""

    store: Engine
    audit: AuditLog
    sender: Sender
    targets: Sequence[Target]
    secret: Callable[[str], str]
    instance: str
    timeout_s: float
    attempts_max: int
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))

    def dispatch(self) -> int:
        """Make jobs of what waits in the outbox, in one transaction; returns how many. Safe in many processes."""
        asked = 0
        with self.store.begin() as connection:
            notices = outbox.waiting(connection, limit=BATCH)
            for notice in notices:
                for target in self.targets:
                    if target.wants(notice.kind):
                        outbox.ask(connection, notice, target.name, attempts_max=self.attempts_max)
                        asked += 1
            outbox.settle(connection, [notice.number for notice in notices])
        return asked

    def deliver(self, number: int, target_name: str) -> dict[str, Any]:
        """Send one notice once. Raises DeliveryFailed (tried again), TargetMissing, DeliveryMissing, WeakSecret."""
        target = self._target(target_name)
        return self._send(outbox.get(self.store, number), target)

    def test(self, target_name: str, *, actor: Actor) -> dict[str, Any]:
        """Send a notice about nothing now, once, and say how it went. Raises DeliveryFailed, TargetMissing."""
        target = self._target(target_name)
        self.audit.append(AuditEvent(actor, "webhook.tested", target=target.name))
        with self.store.begin() as connection:
            notice = outbox.put(connection, TEST, subject=target.name, actor=actor.name)
            outbox.settle(connection, [notice.number])
        return self._send(notice, target)

    def repeat(self, delivery_id: str, *, actor: Actor) -> Delivery:
        """Ask for a delivery that has ended once more. Raises DeliveryUnderWay, DeliveryMissing, TargetMissing."""
        before = outbox.delivery(self.store, delivery_id)
        if JobState(before.state).is_open:
            raise DeliveryUnderWay(
                f"Delivery {before.id} is {before.state}.", effect="It is tried again by itself.", state=before.state
            )
        target = self._target(before.target)
        notice = outbox.get(self.store, before.number)
        self.audit.append(AuditEvent(actor, "webhook.repeated", target=target.name, details={"delivery": before.id}))
        with self.store.begin() as connection:
            job = outbox.ask(connection, notice, target.name, attempts_max=self.attempts_max, again=before.id)
        return outbox.delivery(self.store, job.id)

    def _target(self, name: str) -> Target:
        found = next((target for target in self.targets if target.name == name), None)
        if found is None:
            raise TargetMissing(
                f"No webhook is called {ascii(name)[:60]}.",
                effect="Nothing was sent.",
                next_step="webhooks.targets of configs/orchestrator.yaml names them.",
            )
        return found

    def _send(self, notice: Notice, target: Target) -> dict[str, Any]:
        tenant = tenants.names(self.store).get(notice.tenant_id) if notice.tenant_id else None
        content = webhooks.body(notice, instance=self.instance, tenant=tenant)
        signed = webhooks.headers(notice, content, self.secret(target.name), self.now())
        began = time.monotonic()
        status = self.sender.send(target.url, content, signed, timeout_s=self.timeout_s)
        LOG.info("webhook.delivered", target=target.name, kind=notice.kind, number=notice.number, status=status)
        return {"status": status, "spent_s": round(time.monotonic() - began, 3)}
