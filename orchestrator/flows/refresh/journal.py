"""One refresh under way: every step is journaled before it is taken, and timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine

from orchestrator import logs
from orchestrator.core.refresh import Refresh, RefreshStep
from orchestrator.store import refreshes

LOG = logs.get("refresh")


@dataclass
class Journal:
    """`at` is told every boundary after it is journaled: progress for people, and where tests kill."""

    store: Engine
    refresh: Refresh
    at: Callable[[str], None]
    timings: dict[str, float] = field(default_factory=dict)
    recovered: bool = False
    _step: str = RefreshStep.PLANNED
    _since: float = field(default_factory=time.monotonic)

    def take(self, step: str, **values: Any) -> None:
        """`step` is about to be taken; `values` are columns known by now."""
        self._time()
        refreshes.take(self.store, self.refresh.id, RefreshStep(step), timings=dict(self.timings), **values)
        self._step = step
        LOG.debug("refresh.step", refresh_id=self.refresh.id, step=step)
        self.at(step)
        self._since = time.monotonic()

    def finish(self, **values: Any) -> Refresh:
        self._time()
        return refreshes.finish(
            self.store, self.refresh.id, recovered=self.recovered, timings=dict(self.timings), **values
        )

    @property
    def step(self) -> str:
        return self._step

    def _time(self) -> None:
        self.timings[self._step] = round(time.monotonic() - self._since, 6)
