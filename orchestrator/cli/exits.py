"""Exit codes by error family, in one table, and the one place where an error becomes words on stderr."""

from __future__ import annotations

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from orchestrator.errors import (
    Conflict,
    Denied,
    InvalidInput,
    LimitReached,
    NotFound,
    OrchestratorError,
    OutsideFailure,
)

CODES: dict[type[OrchestratorError], int] = {
    InvalidInput: 2,
    Denied: 3,
    NotFound: 4,
    Conflict: 5,
    LimitReached: 6,
    OutsideFailure: 7,
    OrchestratorError: 1,
}
INTERRUPTED = 130
LEGEND = (
    "Exit codes: 0 done, 2 not acceptable as it is, 3 not allowed, 4 not found, 5 not possible now, 6 a limit is"
    " reached, 7 a part of the installation failed, 1 anything else."
)


def code_of(error: OrchestratorError) -> int:
    """By the nearest family in the table."""
    return next(CODES[family] for family in type(error).__mro__ if family in CODES)


def report(error: OrchestratorError) -> int:
    """Say on stderr what happened, what follows and what to do; returns the exit code."""
    for label, said in (("error", error.message), ("effect", error.effect), ("next", error.next_step)):
        if said:
            sys.stderr.write(f"{label}: {said}\n")
    sys.stderr.write(f"code: {error.code}\n")
    return code_of(error)


class Reporting(TyperGroup):
    """Turns our errors into words and an exit code; a bug keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except OrchestratorError as error:
            raise typer.Exit(report(error)) from error
        except KeyboardInterrupt:
            sys.stderr.write("interrupted\n")
            raise typer.Exit(INTERRUPTED) from None
