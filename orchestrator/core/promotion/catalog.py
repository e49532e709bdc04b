"""What planning needs to know about production's tables beyond their shape. Pure data; a driver reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from orchestrator.core.changeset.shape import ForeignKey, TableName, TableShape


@dataclass(frozen=True, slots=True)
class Reference:
    """One foreign key seen from both of its ends."""

    table: TableName
    key: ForeignKey
    is_indexed: bool = True  # whether the referring side has an index that starts with the key's columns

    @property
    def target(self) -> TableName:
        return self.key.references


@dataclass(frozen=True)
class ProductionTable:
    """A table of production."""

    shape: TableShape
    triggers: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    row_security: bool = False
    estimated_rows: float = 0.0

    @property
    def name(self) -> TableName:
        return self.shape.table

    def cast(self, column: str) -> str:
        """The type's name without a modifier: an assignment of its value raises where a cast would cut."""
        return self.shape.column(column).cast


@dataclass(frozen=True)
class Catalog:
    tables: Mapping[TableName, ProductionTable]
    references: tuple[Reference, ...] = ()
    _from: Mapping[TableName, tuple[Reference, ...]] = field(init=False)
    _to: Mapping[TableName, tuple[Reference, ...]] = field(init=False)

    def __post_init__(self) -> None:
        outgoing: dict[TableName, list[Reference]] = {}
        incoming: dict[TableName, list[Reference]] = {}
        for reference in self.references:
            outgoing.setdefault(reference.table, []).append(reference)
            incoming.setdefault(reference.target, []).append(reference)
        object.__setattr__(self, "_from", {name: tuple(keys) for name, keys in outgoing.items()})
        object.__setattr__(self, "_to", {name: tuple(keys) for name, keys in incoming.items()})

    def references_to(self, table: TableName) -> tuple[Reference, ...]:
        return self._to.get(table, ())

    def references_from(self, table: TableName) -> tuple[Reference, ...]:
        return self._from.get(table, ())

    def __getitem__(self, name: TableName) -> ProductionTable:
        return self.tables[name]

    def __contains__(self, name: object) -> bool:
        return name in self.tables

    def __iter__(self) -> Iterator[ProductionTable]:
        return iter(self.tables.values())
