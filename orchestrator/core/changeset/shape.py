"""The shape of a table as far as rows depend on it: columns, keys and references. Read from the catalog."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

PLAIN_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_$]*")


def quoted(identifier: str) -> str:
    """An identifier for people to read: bare when it is plain, else in double quotes."""
    if PLAIN_IDENTIFIER.fullmatch(identifier):
        return identifier
    return '"' + identifier.replace('"', '""') + '"'


@dataclass(frozen=True, order=True, slots=True)
class TableName:
    schema: str
    name: str

    def __str__(self) -> str:
        return f"{quoted(self.schema)}.{quoted(self.name)}" if self.schema else quoted(self.name)

    @classmethod
    def parse(cls, written: str, *, schema: str = "public") -> TableName:
        """Read `schema.table` or `table`; double quotes protect dots and capitals. Raises ValueError."""
        part = r'("(?:[^"]|"")+"|[^".]+)'
        match = re.fullmatch(rf"(?:{part}\.)?{part}", written)
        if match is None:
            raise ValueError(f"{written!r} is not a table name")
        first, second = (_bare(piece) for piece in match.groups())
        return cls(first if first is not None else schema, second or "")


def _bare(written: str | None) -> str | None:
    if written is None or not written.startswith('"'):
        return written
    return written[1:-1].replace('""', '"')


class Generated(StrEnum):
    """Who writes a column's value."""

    NO = ""
    IDENTITY_ALWAYS = "identity_always"
    IDENTITY_DEFAULT = "identity_default"
    SEQUENCE = "sequence"  # a default that draws from a sequence, however it is spelled
    STORED = "stored"  # GENERATED ALWAYS AS (…) STORED
    VIRTUAL = "virtual"


ASSIGNED = frozenset({Generated.IDENTITY_ALWAYS, Generated.IDENTITY_DEFAULT, Generated.SEQUENCE})
COMPUTED = frozenset({Generated.STORED, Generated.VIRTUAL})


class TypeKind(StrEnum):
    """What stands behind a column's type once domains are taken off."""

    BUILT_IN = "built_in"
    ENUM = "enum"
    COMPOSITE = "composite"
    RANGE = "range"
    ARRAY = "array"


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `type` is for people and carries the modifier: numeric(12,2), character varying(40), public.mood.

    `cast` is the qualified, quoted type name without a modifier ("pg_catalog"."varchar"): casts through it never cut
    or round. `base` is the type's own name with domains taken off (varchar, int4, numeric, mood); for an array it is
    the element's. `typmod` belongs to `base` and is PostgreSQL's raw number, -1 for none.
    """

    name: str
    type: str
    cast: str = ""
    base: str = ""
    kind: TypeKind = TypeKind.BUILT_IN
    typmod: int = -1
    nullable: bool = True
    generated: Generated = Generated.NO
    default: str | None = None
    sequence: TableName | None = None
    labels: tuple[str, ...] = ()  # of an enum, in order
    domain: str | None = None
    collation: str | None = None

    @property
    def is_assigned(self) -> bool:
        """Production chooses the value at insert: identity and sequence columns."""
        return self.generated in ASSIGNED

    @property
    def is_computed(self) -> bool:
        """Never written by anybody: the database computes it."""
        return self.generated in COMPUTED


class KeyKind(StrEnum):
    PRIMARY = "primary"
    UNIQUE = "unique"  # a constraint
    INDEX = "index"  # a unique index without a constraint
    EXCLUSION = "exclusion"


@dataclass(frozen=True, slots=True)
class UniqueKey:
    """What may not clash. `columns` is empty when the key is made of expressions; `definition` always says it all."""

    name: str
    kind: KeyKind
    columns: tuple[str, ...]
    definition: str = ""
    is_partial: bool = False
    has_expressions: bool = False
    nulls_not_distinct: bool = False
    deferrable: bool = False
    initially_deferred: bool = False

    @property
    def is_plain(self) -> bool:
        """Clashes can be worked out from the cells alone."""
        return self.kind is not KeyKind.EXCLUSION and not self.is_partial and not self.has_expressions


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A reference. Actions are `no action`, `restrict`, `cascade`, `set null`, `set default`."""

    name: str
    columns: tuple[str, ...]
    references: TableName
    referenced_columns: tuple[str, ...]
    on_update: str = "no action"
    on_delete: str = "no action"
    match: str = "simple"
    deferrable: bool = False
    initially_deferred: bool = False
    enforced: bool = True
    validated: bool = True


@dataclass(frozen=True, slots=True)
class TableShape:
    """A table rows can be promoted to. A partitioned table is its root; its leaves are not tables of their own."""

    table: TableName
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ()
    unique_keys: tuple[UniqueKey, ...] = ()  # the primary key included
    foreign_keys: tuple[ForeignKey, ...] = ()
    partitioned: bool = False

    @property
    def has_key(self) -> bool:
        """Rows of a table without a primary key are shown but can never be promoted."""
        return bool(self.primary_key)

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @property
    def computed(self) -> frozenset[str]:
        """Names of the columns that nobody writes."""
        return frozenset(column.name for column in self.columns if column.is_computed)

    def column(self, name: str) -> Column:
        """Raises KeyError."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)
