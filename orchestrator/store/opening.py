"""Waiting for the control database: where something else starts it, it may come up after us."""

from __future__ import annotations

import time

from psycopg.errors import InsufficientPrivilege
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError, ProgrammingError

from orchestrator import logs
from orchestrator.core.addresses import ABSENT, why_refused
from orchestrator.errors import OutsideFailure
from orchestrator.store.migrations import migrate
from orchestrator.store.session import single

LOG = logs.get("store")
POLL_S = 0.25
SHARING_LOOKS = 3


class ControlDatabaseUnreachable(OutsideFailure):
    code = "outside_failure.control_database"


class ControlDatabaseRefused(ControlDatabaseUnreachable):
    """It answers and does not let us in; waiting does not help."""

    code = "outside_failure.control_database_refused"


def _told(failure: OperationalError) -> tuple[ControlDatabaseUnreachable, bool]:
    """What stops us, and whether that may pass: a server may be starting, and one just made makes its database last."""
    why = why_refused(str(failure.orig))
    if why:
        refused = ControlDatabaseRefused(
            f"The control database refuses us: {why}.",
            effect="Nothing was started or changed.",
            next_step="Correct the address in control.dsn_file (or control.dsn) of configs/orchestrator.yaml.",
        )
        return refused, why.startswith(ABSENT)
    unreachable = ControlDatabaseUnreachable(
        "The control database does not answer.",
        effect="Nothing was started or changed.",
        next_step="Start it (`orchestrator up`, or `docker compose up -d`), or correct the address in"
        " control.dsn_file; `orchestrator status` looks.",
    )
    return unreachable, True


def _powerless() -> ControlDatabaseRefused:
    return ControlDatabaseRefused(
        "The control database's account may not make tables in it.",
        effect="Nothing was started or changed.",
        next_step="Let it own the database (ALTER DATABASE … OWNER TO …), or GRANT CREATE ON SCHEMA public.",
    )


def refuse_shared_sessions(store: Engine) -> None:
    """Raises ControlDatabaseRefused behind a pooler whose sessions pass from caller to caller.

    A lock belongs to a session: there it would be lost, or found taken by whoever has the session next, and two
    processes could work on one tenant at once.
    """
    for _ in range(SHARING_LOOKS):
        with single(store) as first, single(store) as second:
            sessions = [one.scalar(text("SELECT pg_backend_pid()")) for one in (first, second)]
        if sessions[0] == sessions[1]:
            raise ControlDatabaseRefused(
                "Before the control database stands a pooler that shares sessions (PgBouncer's pool_mode=transaction).",
                effect="Nothing was started or changed: locks would not hold.",
                next_step="Name the server itself in control.dsn_file, or a pooler with pool_mode=session.",
            )


def look(store: Engine) -> str:
    """The version of a control database that lets us in, lets us make tables, and gives sessions of our own.

    Raises ControlDatabaseUnreachable or ControlDatabaseRefused; changes nothing.
    """
    query = text("SELECT current_setting('server_version'), has_schema_privilege('public', 'CREATE')")
    try:
        with store.connect() as connection:
            version, may_create = connection.execute(query).one()
    except OperationalError as failure:
        raise _told(failure)[0] from failure
    if not may_create:
        raise _powerless()
    refuse_shared_sessions(store)
    return str(version)


def migrate_when_ready(store: Engine, *, patience_s: float) -> None:
    """Bring the schema up to date, waiting up to `patience_s` for a server that is not there yet.

    Raises ControlDatabaseUnreachable, at once where it refuses us. The driver's own words are not repeated: they may
    name an account.
    """
    deadline = time.monotonic() + patience_s
    is_told = False
    while True:
        try:
            return migrate(store)
        except ProgrammingError as failure:
            store.dispose()
            if not isinstance(failure.orig, InsufficientPrivilege):
                raise
            raise _powerless() from failure
        except OperationalError as failure:
            store.dispose()
            told, may_pass = _told(failure)
            if not may_pass or time.monotonic() >= deadline:
                raise told from failure
            if not is_told:
                LOG.warning("store.awaited", patience_s=patience_s)
            is_told = True
        time.sleep(POLL_S)
