"""Waiting for the control database: where something else starts it, it may come up after us."""

from __future__ import annotations

import time

from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from orchestrator import logs
from orchestrator.errors import OutsideFailure
from orchestrator.store.migrations import migrate

LOG = logs.get("store")
POLL_S = 0.25


class ControlDatabaseUnreachable(OutsideFailure):
    code = "outside_failure.control_database"


def migrate_when_ready(store: Engine, *, patience_s: float) -> None:
    """Bring the schema up to date, waiting up to `patience_s` for a server that is not there yet.

    Raises ControlDatabaseUnreachable. The driver's own words are not repeated: they may name an account.
    """
    deadline = time.monotonic() + patience_s
    is_told = False
    while True:
        try:
            return migrate(store)
        except OperationalError as failure:
            store.dispose()
            if time.monotonic() >= deadline:
                raise ControlDatabaseUnreachable(
                    "The control database does not answer.",
                    effect="Nothing was started or changed.",
                    next_step="Start it (`orchestrator up`, or `docker compose up -d`); `orchestrator status` looks.",
                ) from failure
            if not is_told:
                LOG.warning("store.awaited", patience_s=patience_s)
            is_told = True
        time.sleep(POLL_S)
