"""Keys that production must assign: which are needed, and putting them in place of the provisional ones. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from orchestrator.core.changeset.rows import ProvisionalKey
from orchestrator.core.changeset.shape import TableName
from orchestrator.core.promotion.catalog import Catalog
from orchestrator.core.promotion.findings import Finding, shown_key
from orchestrator.core.promotion.planning import RowWrite

Assigned = Mapping[ProvisionalKey, str]
LOOKALIKES_MAX = 50


class UnknownProvisionalKey(ValueError):
    """A reference to a new row that is not among the rows to write."""


def needed(writes: Iterable[RowWrite]) -> dict[tuple[TableName, str], list[ProvisionalKey]]:
    """The values to draw from production, by table and column, in the changeset's order and each once."""
    wanted: dict[tuple[TableName, str], dict[ProvisionalKey, None]] = {}
    for write in writes:
        for name, cell in write.cells.items():
            if isinstance(cell, ProvisionalKey) and (cell.table, cell.column) == (write.table, name):
                wanted.setdefault((cell.table, cell.column), {})[cell] = None
    return {place: list(keys) for place, keys in wanted.items()}


def replace(writes: Iterable[RowWrite], assigned: Assigned) -> None:
    """Put production's values in place of every provisional key. Raises UnknownProvisionalKey."""
    for write in writes:
        for name, cell in write.cells.items():
            if isinstance(cell, ProvisionalKey):
                write.cells[name] = _value(cell, assigned)
        write.key = tuple(_value(cell, assigned) if isinstance(cell, ProvisionalKey) else cell for cell in write.key)


def _value(cell: ProvisionalKey, assigned: Assigned) -> str:
    if cell not in assigned:
        raise UnknownProvisionalKey(f"{cell.table}.{cell.column} {cell.text}")
    return assigned[cell]


def lookalikes(writes: Iterable[RowWrite], catalog: Catalog) -> list[Finding]:
    """Cells that hold a provisional key's text where no foreign key lets us rewrite it.

    Only columns named like a reference (`…_id`, `…_ids`) and documents (json, arrays) are looked at: small numbers
    would match everywhere.
    """
    writes = list(writes)
    texts = {key.text for keys in needed(writes).values() for key in keys}
    findings: list[Finding] = []
    for write in writes:
        shape = catalog[write.table].shape
        for name, cell in write.cells.items():
            if not isinstance(cell, str) or not _may_hold_key(shape.column(name).type, name):
                continue
            words = set(cell.replace(",", " ").replace("{", " ").replace("}", " ").replace('"', " ").split())
            matches = {word.strip("[]:") for word in words} & texts
            if matches:
                findings.append(
                    Finding(
                        "lookalike_key",
                        f"{name} holds {', '.join(sorted(matches))}, the sandbox's number of a new row. "
                        "Production will number that row anew and no foreign key says that this cell should follow.",
                        table=str(write.table),
                        row=write.id,
                        key=shown_key(shape.primary_key, write.key),
                        column=name,
                        wanted=cell,
                        blocks=False,
                    )
                )
        if len(findings) >= LOOKALIKES_MAX:
            break
    return findings


def _may_hold_key(type_name: str, column: str) -> bool:
    is_document = type_name in ("json", "jsonb") or type_name.endswith("[]")
    return is_document or column.endswith(("_id", "_ids"))
