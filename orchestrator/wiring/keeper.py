"""Reconciling and watching on a timer, in threads; one process of an installation at a time does each."""

from __future__ import annotations

import threading
from collections.abc import Callable

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from orchestrator import logs
from orchestrator.errors import OrchestratorError
from orchestrator.store.session import advisory_lock

LOG = logs.get("keeper")
WATCH_EVERY_S = 5.0  # a statement may outlive its limit by this much at most


class Keeper:
    """Runs `reconcile` at once and then every `every_s`; a round that fails is one that the next makes up for.

    `what` names the lock that keeps two processes from doing it at once. `repair` brings the control database
    back: without it there is neither a lock nor anything to know.
    """

    def __init__(
        self,
        store: Engine,
        reconcile: Callable[[], object],
        *,
        every_s: float,
        what: str = "reconcile",
        repair: Callable[[], object] | None = None,
    ) -> None:
        self._repair = repair
        self._what = what
        self._store = store
        self._reconcile = reconcile
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=f"keeper-{what}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, timeout_s: float = 30.0) -> None:
        """End after the round under way."""
        self._stop.set()
        self._thread.join(timeout_s)

    def _loop(self) -> None:
        while not self._stop.is_set():
            self.once()
            self._stop.wait(self._every_s)

    def once(self) -> None:
        """One round, unless another process is at it."""
        try:
            with advisory_lock(self._store, self._what) as taken:
                if taken:
                    self._reconcile()
        except SQLAlchemyError as error:
            LOG.warning("keeper.store_away", what=self._what, error=type(error).__name__)
            self._try_repair()
        except OrchestratorError as error:
            LOG.warning("keeper.failed", what=self._what, code=error.code, error=error.message)
        except Exception:  # the loop must outlive whatever one round meets
            LOG.exception("keeper.crashed", what=self._what)

    def _try_repair(self) -> None:
        if self._repair is None:
            return
        try:
            self._repair()
        except Exception as error:
            LOG.warning("keeper.repair_failed", what=self._what, error=str(error)[:500])
