"""The one error tree, ordered by what the caller can do about it.

No HTTP and no exit codes in here: `api`, `web` and `cli` each map a *family* in one table.
A room adds its own errors beside its contracts by subclassing a family; every concrete class has a
stable `code`. `fields` are values a program may read; they must never hold a secret.
"""

from __future__ import annotations

from typing import ClassVar


class OrchestratorError(Exception):
    """What happened (`message`), what follows from it (`effect`) and what to do (`next_step`)."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, effect: str = "", next_step: str = "", **fields: object) -> None:
        super().__init__(message)
        self.message = message
        self.effect = effect
        self.next_step = next_step
        self.fields = fields

    def __str__(self) -> str:
        return " ".join(part for part in (self.message, self.effect, self.next_step) if part)


class InvalidInput(OrchestratorError):
    """The caller sent something that can never be accepted as it is."""

    code = "invalid"


class Denied(OrchestratorError):
    """The caller may not do this."""

    code = "denied"


class NotFound(OrchestratorError):
    """The thing named does not exist."""

    code = "not_found"


class Conflict(OrchestratorError):
    """The thing is in a state that does not allow this now."""

    code = "conflict"


class LimitReached(OrchestratorError):
    """A limit of the installation or the tenant stops this; it may pass later."""

    code = "limit_reached"


class OutsideFailure(OrchestratorError):
    """The engine, a database, the proxy, git or the disk failed us."""

    code = "outside_failure"
