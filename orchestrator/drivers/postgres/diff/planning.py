"""Pairs the tables of two catalogs, names what differs in the schema, and says which tables block lists can serve."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from orchestrator.core.changeset.changeset import SchemaChange, SchemaChangeKind
from orchestrator.core.changeset.shape import Column, TableName, TableShape
from orchestrator.drivers.postgres.diff.catalog import Attribute, Catalog, Relation
from orchestrator.drivers.postgres.diff.shapes import table_shape


@dataclass(frozen=True)
class PartPlan:
    """Stored tables compared with each other: usually one on each side. `why` full, or empty when blocks will do."""

    name: TableName
    base: tuple[Relation, ...]
    live: tuple[Relation, ...]
    why: str = ""
    same_files: bool = True


@dataclass(frozen=True)
class TablePlan:
    """One table under its base name. `columns` pairs base and live column names; `shape` holds those columns only."""

    shape: TableShape
    columns: tuple[tuple[str, str], ...]
    parts: tuple[PartPlan, ...]

    @property
    def base_columns(self) -> tuple[str, ...]:
        return tuple(base for base, _ in self.columns)

    @property
    def live_columns(self) -> tuple[str, ...]:
        return tuple(live for _, live in self.columns)


@dataclass(frozen=True)
class Plan:
    tables: tuple[TablePlan, ...]
    schema_changes: tuple[SchemaChange, ...]


def make_plan(base: Catalog, live: Catalog) -> Plan:
    changes: list[SchemaChange] = []
    tables: list[TablePlan] = []
    for base_relation, live_relation in _pairs(base, live, changes):
        tables.append(_plan_table(base, live, base_relation, live_relation, changes))
    return Plan(tuple(tables), tuple(changes))


def _pairs(base: Catalog, live: Catalog, changes: list[SchemaChange]) -> Iterator[tuple[Relation, Relation]]:
    """By name first; what is left by oid (a physical copy keeps oids): those were renamed."""
    base_tables, live_tables = base.tables(), live.tables()
    for name in sorted(base_tables.keys() & live_tables.keys()):
        yield base_tables.pop(name), live_tables.pop(name)
    live_by_oid = {relation.oid: relation for relation in live_tables.values()}
    for name, relation in sorted(base_tables.items()):
        renamed = live_by_oid.pop(relation.oid, None)
        if renamed is None:
            changes.append(SchemaChange(name, SchemaChangeKind.TABLE_DROPPED, "the table is gone"))
        else:
            changes.append(SchemaChange(name, SchemaChangeKind.TABLE_RENAMED, f"is now {renamed.name}"))
            yield relation, renamed
    for relation in live_by_oid.values():
        origin = base.relations.get(relation.oid)
        detail = "a new table" if origin is None else "a partition made a table of its own"
        changes.append(SchemaChange(relation.name, SchemaChangeKind.TABLE_CREATED, detail))


def _plan_table(base: Catalog, live: Catalog, old: Relation, new: Relation, changes: list[SchemaChange]) -> TablePlan:
    old_shape, new_shape = table_shape(base, old), table_shape(live, new)
    pairs = _column_pairs(old, new)
    compared = _compare_columns(base, live, old, old_shape, new_shape, pairs, changes)
    names = {old_name for old_name, _ in compared}
    primary = old_shape.primary_key
    in_live = dict(compared)
    if tuple(in_live.get(name) for name in primary) != new_shape.primary_key:
        shown = ", ".join(primary) or "no key", ", ".join(new_shape.primary_key) or "no key"
        changes.append(SchemaChange(old.name, SchemaChangeKind.KEY_CHANGED, f"was {shown[0]}, is {shown[1]}"))
        primary = ()
    shape = replace(
        old_shape,
        columns=tuple(column for column in old_shape.columns if column.name in names),
        primary_key=primary,
        unique_keys=tuple(key for key in old_shape.unique_keys if names.issuperset(key.columns)),
        foreign_keys=tuple(key for key in old_shape.foreign_keys if names.issuperset(key.columns)),
    )
    stored = tuple(pair for pair in compared if not _is_virtual(old_shape.column(pair[0])))
    return TablePlan(shape, stored, tuple(_parts(base, live, old, new, changes)))


def _is_virtual(column: Column) -> bool:
    return column.generated == "virtual"


def _column_pairs(old: Relation, new: Relation) -> list[tuple[Attribute, Attribute | None]]:
    """Each base column with its live one: by name, else (same table, same number, unknown name) renamed."""
    by_name = {attribute.name: attribute for attribute in new.live}
    known = {attribute.name for attribute in old.live}
    by_number = {a.number: a for a in new.live if a.name not in known} if old.oid == new.oid else {}
    return [(attribute, by_name.get(attribute.name) or by_number.get(attribute.number)) for attribute in old.live]


def _compare_columns(
    base: Catalog,
    live: Catalog,
    old: Relation,
    old_shape: TableShape,
    new_shape: TableShape,
    pairs: Sequence[tuple[Attribute, Attribute | None]],
    changes: list[SchemaChange],
) -> list[tuple[str, str]]:
    """Report what differs; return the pairs whose values can be compared (same type)."""
    compared: list[tuple[str, str]] = []

    def report(kind: SchemaChangeKind, detail: str) -> None:
        changes.append(SchemaChange(old.name, kind, detail))

    for attribute, other in pairs:
        if other is None:
            report(SchemaChangeKind.COLUMN_DROPPED, attribute.name)
            continue
        if other.name != attribute.name:
            report(SchemaChangeKind.COLUMN_RENAMED, f"{attribute.name} is now {other.name}")
        old_column, new_column = old_shape.column(attribute.name), new_shape.column(other.name)
        differences = _column_differences(old_column, new_column)
        if differences:
            report(SchemaChangeKind.COLUMN_CHANGED, f"{attribute.name}: {differences}")
        if _readable_alike(old_column, new_column):
            compared.append((attribute.name, other.name))
            if base.type_signature(attribute.type_oid) != live.type_signature(other.type_oid):
                report(SchemaChangeKind.TYPE_CHANGED, f"{attribute.name}: {_type_difference(old_column, new_column)}")
    matched = {other.name for _, other in pairs if other is not None}
    for column in new_shape.columns:
        if column.name not in matched:
            report(SchemaChangeKind.COLUMN_ADDED, f"{column.name} {column.type}")
    return compared


def _readable_alike(old: Column, new: Column) -> bool:
    return (old.cast, old.typmod, old.kind, _is_virtual(old)) == (new.cast, new.typmod, new.kind, _is_virtual(new))


def _column_differences(old: Column, new: Column) -> str:
    fields = ("type", "nullable", "generated", "default", "collation")
    return "; ".join(
        f"{field} was {getattr(old, field)!s}, is {getattr(new, field)!s}"
        for field in fields
        if getattr(old, field) != getattr(new, field)
    )


def _type_difference(old: Column, new: Column) -> str:
    if old.labels != new.labels:
        return f"labels were {', '.join(old.labels)}; are {', '.join(new.labels)}"
    return f"the type {old.type} was defined anew"


def _parts(
    base: Catalog, live: Catalog, old: Relation, new: Relation, changes: list[SchemaChange]
) -> Iterator[PartPlan]:
    old_leaves, new_leaves = base.leaves(old), live.leaves(new)
    if [_partition(leaf) for leaf in old_leaves] != [
        _partition(leaf) for leaf in new_leaves
    ] and "p" in old.kind + new.kind:
        lost = sorted(str(leaf.name) for leaf in old_leaves if leaf.oid not in {other.oid for other in new_leaves})
        come = sorted(str(leaf.name) for leaf in new_leaves if leaf.oid not in {other.oid for other in old_leaves})
        detail = "; ".join(f"{word} {', '.join(names)}" for word, names in (("without", lost), ("with", come)) if names)
        changes.append(SchemaChange(old.name, SchemaChangeKind.PARTITIONS_CHANGED, detail or "other bounds"))
        yield PartPlan(old.name, tuple(old_leaves), tuple(new_leaves), "its partitions differ", same_files=False)
        return
    for old_leaf, new_leaf in zip(old_leaves, new_leaves, strict=True):
        same = old_leaf.oid == new_leaf.oid and old_leaf.file == new_leaf.file
        why = _why_full(base, live, old_leaf, new_leaf)
        yield PartPlan(old_leaf.name, (old_leaf,), (new_leaf,), why, same_files=same)


def _partition(leaf: Relation) -> tuple[int, int | None, str | None]:
    return (leaf.oid, leaf.parent, leaf.bound)


def _why_full(base: Catalog, live: Catalog, old: Relation, new: Relation) -> str:
    if old.oid != new.oid:
        return "it was made anew"
    if old.file != new.file:
        return "it was rewritten"
    if old.unlogged or new.unlogged:
        return "it is unlogged"
    if base.storage(old) != live.storage(new):
        return "its columns or types differ"
    return ""
