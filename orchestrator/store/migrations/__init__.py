"""Bringing the control database's schema up to date.

A step is a file in `versions`; `python -m tests.support.migration "what it does"` writes the next one from the
difference between the tables and the steps so far. There is no way down: a backup is.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, text

from orchestrator.store.session import lock_key

if TYPE_CHECKING:
    from alembic.config import Config

STEPS = Path(__file__).parent / "versions"
_ONE_AT_A_TIME = Lock()  # alembic keeps what it runs on in module-level proxies


def migrate(store: Engine) -> None:
    """Bring the schema up to date, all of it or nothing; one process at a time, again is quick."""
    if _is_current(store):
        return
    from alembic import command  # heavy, and every process but the first does without
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    with _ONE_AT_A_TIME, store.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:k)"), {"k": lock_key("migrations")})
        config = config_on(connection)
        wanted = ScriptDirectory.from_config(config).get_current_head()
        if MigrationContext.configure(connection).get_current_revision() != wanted:
            command.upgrade(config, "head")


def _is_current(store: Engine) -> bool:
    """Whether the last step's number is the schema's. In doubt it is not, and alembic knows."""
    last = max(step.stem.partition("_")[0] for step in STEPS.glob("[0-9]*.py"))
    with store.connect() as connection:
        if connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
            return False
        return list(connection.scalars(text("SELECT version_num FROM alembic_version"))) == [last]


def config_on(connection: Connection) -> Config:
    """What alembic's commands need to work on this connection."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config
