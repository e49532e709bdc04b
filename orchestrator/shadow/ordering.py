"""In which order rows are written: what is referred to first, and circles as one. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.core.changeset.rows import Cell, ProvisionalKey, Row, RowChange
from orchestrator.core.changeset.shape import TableName, TableShape

Place = tuple[TableName, tuple[str, ...], tuple[Cell, ...]]


def parents_first(rows: Sequence[RowChange], shapes: Mapping[TableName, TableShape]) -> list[list[RowChange]]:
    """Groups of new rows, each after the groups it refers to. More than one row in a group is a circle; a row that
    refers to itself by a key it does not have yet stands alone and is named by `refers_to_itself`."""
    return _groups(rows, shapes, [row.new or {} for row in rows])


def children_first(rows: Sequence[RowChange], shapes: Mapping[TableName, TableShape]) -> list[list[RowChange]]:
    """The same for rows that go: each group before those it refers to."""
    return _groups(rows, shapes, [row.old or {} for row in rows])[::-1]


def refers_to_itself(row: RowChange) -> bool:
    """By a key that production has yet to assign, in another column than the key's own."""
    return any(
        isinstance(cell, ProvisionalKey) and cell.table == row.table and cell.column != name and cell in row.key
        for name, cell in (row.new or {}).items()
    )


def _groups(
    rows: Sequence[RowChange], shapes: Mapping[TableName, TableShape], sides: Sequence[Row]
) -> list[list[RowChange]]:
    edges = _references(rows, shapes, sides)
    return [[rows[at] for at in group] for group in _components(edges)]


def _references(
    rows: Sequence[RowChange], shapes: Mapping[TableName, TableShape], sides: Sequence[Row]
) -> list[list[int]]:
    """For each row the others among `rows` that it refers to, by its foreign keys and by provisional keys."""
    wanted: dict[TableName, set[tuple[str, ...]]] = {}
    for name in {row.table for row in rows}:
        for key in shapes[name].foreign_keys:
            wanted.setdefault(key.references, set()).add(key.referenced_columns)
    places: dict[Place, int] = {}
    owners: dict[ProvisionalKey, int] = {}
    for at, (row, side) in enumerate(zip(rows, sides, strict=True)):
        for columns in wanted.get(row.table, ()):
            places[(row.table, columns, tuple(side.get(name) for name in columns))] = at
        for column, cell in side.items():
            if isinstance(cell, ProvisionalKey) and (cell.table, cell.column) == (row.table, column):
                owners[cell] = at
    edges: list[list[int]] = []
    for at, (row, side) in enumerate(zip(rows, sides, strict=True)):
        found = {owners[cell] for cell in side.values() if isinstance(cell, ProvisionalKey) and cell in owners}
        for key in shapes[row.table].foreign_keys:
            place = (key.references, key.referenced_columns, tuple(side.get(name) for name in key.columns))
            if place in places:
                found.add(places[place])
        edges.append(sorted(found - {at}))
    return edges


def _components(edges: Sequence[Sequence[int]]) -> list[list[int]]:
    """Tarjan's strongly connected components without recursion: each after all it leads to."""
    number: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    found: list[list[int]] = []
    for start in range(len(edges)):
        if start in number:
            continue
        path: list[tuple[int, int]] = [(start, 0)]
        while path:
            node, at = path.pop()
            if at == 0:
                number[node] = low[node] = len(number)
                stack.append(node)
                on_stack.add(node)
            for position in range(at, len(edges[node])):
                other = edges[node][position]
                if other not in number:
                    path += [(node, position + 1), (other, 0)]
                    break
                if other in on_stack:
                    low[node] = min(low[node], number[other])
            else:
                if low[node] == number[node]:
                    found.append(_popped(stack, on_stack, node))
                if path:
                    above = path[-1][0]
                    low[above] = min(low[above], low[node])
    return found


def _popped(stack: list[int], on_stack: set[int], node: int) -> list[int]:
    group: list[int] = []
    while True:
        top = stack.pop()
        on_stack.discard(top)
        group.append(top)
        if top == node:
            return sorted(group)
