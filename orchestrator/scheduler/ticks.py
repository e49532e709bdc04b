"""A tick: what has come due becomes jobs. Ticks may be lost or doubled; a slot is decided once all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine

from orchestrator import logs
from orchestrator.core.schedule import KINDS, PER_TENANT, Schedule, Slot, latest
from orchestrator.store import slots
from orchestrator.store.slots import Decided

_log = logs.get(__name__)


@dataclass(frozen=True)
class Target:
    """What a slot is for: the installation (empty id), or one tenant.

    `fresh_since` is when the same work was last done for any reason; `hindrance` says why it cannot be done now.
    """

    kind: str
    tenant_id: str = ""
    tenant_name: str | None = None
    fresh_since: datetime | None = None
    hindrance: str | None = None


Targets = Callable[[], Iterable[Target]]
"""Everything the schedule applies to, as remembered now."""


def tick(engine: Engine, schedule: Schedule, targets: Iterable[Target]) -> list[Decided]:
    """Decide every slot that has come due and is not decided yet; returns those this tick decided."""
    moment = slots.now(engine)
    due: list[tuple[Slot, Target]] = []
    for target in targets:
        if target.kind not in KINDS or (target.kind in PER_TENANT) != bool(target.tenant_id):
            raise ValueError(f"no schedule applies to {target}")
        slot = latest(schedule, target.kind, moment, target=target.tenant_id, name=target.tenant_name)
        if slot is not None:
            due.append((slot, target))
    known = slots.decided(engine, [slot for slot, _ in due])
    results: list[Decided] = []
    for slot, target in due:
        if slot.key in known:
            continue
        result = slots.settle(engine, slot, moment, fresh_since=target.fresh_since, hindrance=target.hindrance)
        if result is None:
            continue
        results.append(result)
        _log.info(
            "slot.decided",
            kind=result.kind,
            tenant_id=result.target or None,
            outcome=result.outcome,
            reason=result.reason,
            job_id=result.job_id,
        )
    return results
