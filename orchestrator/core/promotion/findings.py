"""Findings: everything a reviewer is told about a change, one row or cell at a time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from orchestrator.core.changeset.rows import Cell, ProvisionalKey

TEXT_MAX = 300


@dataclass(frozen=True, slots=True)
class Finding:
    """What stands in the way of a change, or should be known about it.

    `code` is stable (see FINDINGS); `was`, `wanted` and `now` are the cell in the base snapshot, in the change and in
    production; `row` is the row's id within the changeset.
    """

    code: str
    message: str
    table: str = ""
    row: str = ""
    key: str = ""
    column: str = ""
    was: str | None = None
    wanted: str | None = None
    now: str | None = None
    blocks: bool = True

    def document(self) -> dict[str, Any]:
        """A JSON object; long cells are cut."""
        return {
            "code": self.code,
            "message": self.message,
            "table": self.table,
            "row": self.row,
            "key": self.key,
            "column": self.column,
            "was": cut(self.was),
            "wanted": cut(self.wanted),
            "now": cut(self.now),
            "blocks": self.blocks,
        }


# What each code means, for pages, the API's reference and tests that want to see every one of them.
FINDINGS: dict[str, str] = {
    "cell_conflict": "production changed this cell after the snapshot",
    "row_gone": "the row does not exist in production any more",
    "row_exists": "another row with this key exists in production",
    "row_changed": "the row to delete was changed in production after the snapshot",
    "unseen_children": "rows of production, absent from the change, refer to the row",
    "missing_parent": "the row refers to one that production does not have",
    "foreign_scope": "the row belongs to another tenant",
    "foreign_parent": "the row refers to another tenant's row",
    "scope_moved": "the change would move the row to another tenant",
    "no_scope": "the tenant has no scope value, so no guarded row can be promoted",
    "table_closed": "the table may not be promoted",
    "operation_closed": "this kind of change may not be promoted for the table",
    "column_closed": "the column may not be promoted",
    "masked_cell": "the cell was masked in the snapshot; its true value is unknown to the sandbox",
    "no_key": "the table has no primary key",
    "key_change_refused": "the key is always assigned by production",
    "over_cap": "more rows than the rules allow",
    "schema_drift": "the table is not the same in production",
    "unique_clash": "a row outside the change already holds this unique value",
    "unique_cycle": "rows exchange a unique value in a circle that no order can resolve",
    "does_not_fit": "the value does not fit the column",
    "invalid_value": "the value is not one of the column's type",
    "row_model": "the row breaks a rule of its model",
    "database": "the database refused the row",
    "trigger_override": "a trigger of production writes another value",
    "not_written": "a trigger, rule or policy kept the row from being written",
    "side_effect": "the write changes rows outside the change",
    "cascade": "the write removes or changes rows outside the change",
    "lookalike_key": "the cell looks like a key that production will replace, but no foreign key says so",
    "slow_reference": "a foreign key without an index makes this slow",
    "migration": "a migration cannot run",
    "code": "the code cannot be merged",
    "rebase_conflict": "the row could not be carried to the newest snapshot",
}


def cut(text: str | None) -> str | None:
    if text is None or len(text) <= TEXT_MAX:
        return text
    return text[:TEXT_MAX] + f"… ({len(text)} characters)"


def shown(cell: Cell) -> str | None:
    """A cell for people; a key still to be assigned says so."""
    return str(cell) if isinstance(cell, ProvisionalKey) else cell


def shown_key(columns: Iterable[str], key: Iterable[Cell]) -> str:
    return ", ".join(
        f"{name}={'NULL' if cell is None else cut(str(cell))}" for name, cell in zip(columns, key, strict=False)
    )


def blocking(findings: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.blocks]
