"""What can go wrong with a shadow, by what its user can do about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.errors import Conflict, InvalidInput, LimitReached, OutsideFailure

if TYPE_CHECKING:
    from orchestrator.core.changeset.carry import RowConflict
    from orchestrator.core.rowmodels import RowViolation


class InvalidShadow(InvalidInput):
    """A table, column or option that cannot be used."""

    code = "invalid.shadow"


class InvalidRows(InvalidInput):
    """Rows break a model or leave the tenant's scope. `violations` lists every one."""

    code = "invalid.rows"

    def __init__(self, violations: Sequence[RowViolation]) -> None:
        shown = "; ".join(str(violation) for violation in violations[:5])
        super().__init__(
            f"{len(violations)} rules are broken: {shown}",
            effect="Nothing was written.",
            next_step="Correct the rows in the sandbox and take the difference again.",
        )
        self.violations = tuple(violations)


class CommitConflict(Conflict):
    """Production moved since the rows were copied. `conflicts` lists every row and cell."""

    code = "conflict.shadow_commit"

    def __init__(self, message: str, conflicts: Sequence[RowConflict] = ()) -> None:
        shown = "; ".join(str(conflict) for conflict in conflicts[:5])
        super().__init__(
            f"{message}{' ' + shown if shown else ''}",
            effect="Nothing was written.",
            next_step="Copy the rows anew and repeat the work on them.",
        )
        self.conflicts = tuple(conflicts)


class ShadowTooLarge(LimitReached):
    code = "limit_reached.shadow"


class ScratchUnavailable(OutsideFailure):
    code = "outside_failure.scratch"


class CommitUncertain(OutsideFailure):
    code = "outside_failure.commit_uncertain"
