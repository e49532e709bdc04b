"""Library mode: a throw-away sandbox with one tenant's rows of any SQLite or PostgreSQL database, and the way back.

    from orchestrator.shadow import RowModel, ShadowDB

See `ShadowDB`. Programs that approve use the same objects as people: `ShadowChangeset` and `RowDifference`.
"""

from orchestrator.core.changeset.rows import ProvisionalKey, RowKind
from orchestrator.core.rowmodels import RowModel, RowModels, RowViolation
from orchestrator.shadow.changeset import RowDifference, ShadowChangeset
from orchestrator.shadow.committing import CommitResult
from orchestrator.shadow.database import CloneStats, ShadowDB
from orchestrator.shadow.errors import CommitConflict, InvalidRows, InvalidShadow, ScratchUnavailable
from orchestrator.shadow.scratch import ScratchServer

__all__ = [
    "CloneStats",
    "CommitConflict",
    "CommitResult",
    "InvalidRows",
    "InvalidShadow",
    "ProvisionalKey",
    "RowDifference",
    "RowKind",
    "RowModel",
    "RowModels",
    "RowViolation",
    "ScratchServer",
    "ScratchUnavailable",
    "ShadowChangeset",
    "ShadowDB",
]
