"""The order of updates that hand a unique value over: whoever frees it goes before whoever takes it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from orchestrator.core.changeset.rows import Cell, RowKind
from orchestrator.core.changeset.shape import KeyKind, UniqueKey
from orchestrator.core.promotion.catalog import Catalog, ProductionTable
from orchestrator.core.promotion.findings import Finding, shown_key
from orchestrator.core.promotion.planning import RowWrite

Values = tuple[Cell, ...]


@dataclass
class Waves:
    """`wave_of` numbers the updates from 0; `placeholders` are set to NULL first to open a circle."""

    wave_of: dict[str, int] = field(default_factory=dict)
    placeholders: list[tuple[RowWrite, str]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def count(self) -> int:
        return 1 + max(self.wave_of.values(), default=0)


@dataclass
class _Wait:
    """`taker` waits until `holder` has let go of the value guarded by `key`."""

    holder: RowWrite
    key: UniqueKey


def order_updates(writes: Iterable[RowWrite], catalog: Catalog) -> Waves:
    """Number the updates. Deletes come before all of them and inserts after, so neither needs a number."""
    updates = [write for write in writes if write.kind is RowKind.UPDATE]
    waves = Waves(wave_of={write.id: 0 for write in updates})
    waits: dict[str, list[_Wait]] = {}
    for name in {write.table for write in updates}:
        _collect_waits([write for write in updates if write.table == name], catalog[name], waits)
    if waits:
        _number(updates, waits, catalog, waves)
    return waves


def _collect_waits(updates: Sequence[RowWrite], table: ProductionTable, waits: dict[str, list[_Wait]]) -> None:
    for key in table.shape.unique_keys:
        if key.deferrable or key.has_expressions or key.kind is KeyKind.EXCLUSION or not key.columns:
            continue  # checked at the statement's end, or nothing we can compute here
        moved = [write for write in updates if any(name in write.cells for name in key.columns)]
        holders: dict[Values, RowWrite] = {}
        for write in moved:
            values = tuple((write.now or {}).get(name) for name in key.columns)
            if _occupies(values, key):
                holders[values] = write
        for write in moved:
            values = tuple(write.cells.get(name, (write.now or {}).get(name)) for name in key.columns)
            holder = holders.get(values)
            if _occupies(values, key) and holder is not None and holder is not write:
                waits.setdefault(write.id, []).append(_Wait(holder, key))


def _occupies(values: Values, key: UniqueKey) -> bool:
    return key.nulls_not_distinct or all(value is not None for value in values)


def _number(updates: Sequence[RowWrite], waits: dict[str, list[_Wait]], catalog: Catalog, waves: Waves) -> None:
    by_id = {write.id: write for write in updates}
    open_waits = {taker: list(items) for taker, items in waits.items()}
    waiting_for: dict[str, list[str]] = {}
    for taker, items in open_waits.items():
        for item in items:
            waiting_for.setdefault(item.holder.id, []).append(taker)
    ready = [write.id for write in updates if write.id not in open_waits and write.id in waiting_for]
    while True:
        while ready:
            done = ready.pop()
            for taker in waiting_for.pop(done, ()):
                if taker not in open_waits:
                    continue
                waves.wave_of[taker] = max(waves.wave_of[taker], waves.wave_of[done] + 1)
                open_waits[taker] = [item for item in open_waits[taker] if item.holder.id != done]
                if not open_waits[taker]:
                    del open_waits[taker]
                    ready.append(taker)
        if not open_waits:
            return
        circle = _find_circle(open_waits)
        released = _open_circle(circle, catalog, waves)
        if released is None:
            waves.findings.append(_refuse(circle, by_id, catalog))
            return
        taker, wait = released
        open_waits[taker] = [item for item in open_waits[taker] if item is not wait]
        if not open_waits[taker]:
            del open_waits[taker]
            ready.append(taker)


def _find_circle(open_waits: dict[str, list[_Wait]]) -> list[tuple[str, _Wait]]:
    """Walk from taker to holder until a row is met again; returns that circle as (taker, wait) pairs."""
    at = next(iter(open_waits))
    path: list[tuple[str, _Wait]] = []
    seen: dict[str, int] = {}
    while at not in seen:
        seen[at] = len(path)
        wait = next(item for item in open_waits[at] if item.holder.id in open_waits)
        path.append((at, wait))
        at = wait.holder.id
    return path[seen[at] :]


def _open_circle(circle: list[tuple[str, _Wait]], catalog: Catalog, waves: Waves) -> tuple[str, _Wait] | None:
    """Find a wait that can be ended by setting the holder's value to NULL beforehand, or that may not be real."""
    for taker, wait in circle:
        column = _nullable(wait, catalog)
        if column is not None:
            if (wait.holder, column) not in waves.placeholders:
                waves.placeholders.append((wait.holder, column))
            return taker, wait
    for taker, wait in circle:
        if wait.key.is_partial:
            return taker, wait  # the index may not even hold these rows; the server has the last word
    return None


def _nullable(wait: _Wait, catalog: Catalog) -> str | None:
    if wait.key.kind is KeyKind.PRIMARY or wait.key.nulls_not_distinct:
        return None
    shape = catalog[wait.holder.table].shape
    pointed_at = {name for item in catalog.references_to(shape.table) for name in item.key.referenced_columns}
    for name in wait.key.columns:
        if shape.column(name).nullable and name not in pointed_at and name not in shape.primary_key:
            return name
    return None


def _refuse(circle: list[tuple[str, _Wait]], by_id: dict[str, RowWrite], catalog: Catalog) -> Finding:
    table = catalog[circle[0][1].holder.table].shape
    rows = "; ".join(shown_key(table.primary_key, by_id[taker].key) for taker, _ in circle[:10])
    return Finding(
        "unique_cycle",
        f"Rows {rows} exchange their values of {circle[0][1].key.name} in a circle, and none can wait.",
        table=str(table.table),
        row=circle[0][0],
        key=shown_key(table.primary_key, by_id[circle[0][0]].key),
        column=", ".join(circle[0][1].key.columns),
    )
