"""Bringing the control database's schema up to date.

A step is a file in `versions`; `python -m tests.support.migration "what it does"` writes the next one from the
difference between the tables and the steps so far. There is no way down: a backup is.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from orchestrator.store.session import lock_key

_ONE_AT_A_TIME = Lock()  # alembic keeps what it runs on in module-level proxies


def migrate(store: Engine) -> None:
    """Bring the schema up to date, all of it or nothing; one process at a time, again is quick."""
    with _ONE_AT_A_TIME, store.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:k)"), {"k": lock_key("migrations")})
        config = config_on(connection)
        wanted = ScriptDirectory.from_config(config).get_current_head()
        if MigrationContext.configure(connection).get_current_revision() != wanted:
            command.upgrade(config, "head")


def config_on(connection: Connection) -> Config:
    """What alembic's commands need to work on this connection."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
