"""One leader among any number of schedulers: whoever holds the lock, for as long as its connection lives."""

from __future__ import annotations

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from orchestrator import logs
from orchestrator.store.session import lock_key

_log = logs.get(__name__)


class Leadership:
    """A session lock on a connection of its own. Not thread-safe: one thread asks."""

    def __init__(self, engine: Engine, name: str = "scheduler") -> None:
        self._engine = engine
        self._key = lock_key("leader", name)
        self._connection: Connection | None = None

    def is_held(self) -> bool:
        """Whether this process leads now; takes the lead when it is free. A lost connection is a lost lead."""
        if self._connection is not None:
            try:
                self._connection.execute(text("SELECT 1"))
                return True
            except SQLAlchemyError:
                _log.warning("leader.lost", next_step="another scheduler leads, or this one again in a moment")
                self._drop()
        try:
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        except SQLAlchemyError as error:
            _log.warning("leader.unreachable", error=type(error).__name__)
            return False
        try:
            taken = bool(connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": self._key}))
        except SQLAlchemyError:
            taken = False
        if not taken:
            connection.close()
            return False
        self._connection = connection
        _log.info("leader.taken")
        return True

    def release(self) -> None:
        """Give the lead up; the next scheduler takes it at its next tick."""
        if self._connection is None:
            return
        try:
            self._connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": self._key})
            self._connection.close()
        except SQLAlchemyError:
            self._drop()
        self._connection = None

    def _drop(self) -> None:
        """Never back into the pool: the session, if it lives, still holds the lock."""
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None
