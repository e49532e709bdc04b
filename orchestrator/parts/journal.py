"""The journal of one operation on a tenant: every step is written before it is taken, and how it ended after."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy import Engine

from orchestrator.core.names import new_id
from orchestrator.core.tenants import StepState
from orchestrator.errors import OrchestratorError
from orchestrator.store import tenants


@dataclass(frozen=True)
class Journal:
    """`progress` is told each step's name as it begins; steps of one operation may run side by side."""

    store: Engine
    tenant_id: str
    operation: str
    progress: Callable[[str], None] = lambda _: None
    operation_id: str = field(default_factory=lambda: new_id("o"))

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Take one step. What the block raises is written down and raised on."""
        number = tenants.begin_step(self.store, self.tenant_id, self.operation, self.operation_id, name)
        began = time.monotonic()
        try:
            self.progress(name)
            yield
        except BaseException as error:
            # Only our own errors are known to hold no secret.
            said = str(error) if isinstance(error, OrchestratorError) else type(error).__name__
            self._end(number, StepState.FAILED, began, said)
            raise
        self._end(number, StepState.DONE, began, None)

    def _end(self, number: int, state: StepState, began: float, error: str | None) -> None:
        tenants.end_step(self.store, number, state, spent_s=time.monotonic() - began, error=error)
