"""What the catalog says about a database's tables, read without touching a table and without casting tenant types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from psycopg import Connection

from orchestrator.core.changeset.shape import TableName

FIRST_USER_OID = 16384
TYPE_DEPTH_MAX = 16

_RELATIONS = """
SELECT c.oid, n.nspname, c.relname, c.relkind, c.relfilenode, c.relpersistence, c.relispartition,
       i.inhparent, c.reltablespace, pg_catalog.pg_get_expr(c.relpartbound, c.oid), c.relrowsecurity
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid AND c.relispartition
 WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
   AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
                      AND d.deptype = 'e')
"""

# The sequence behind a default is found through pg_depend, so `nextval() + 1000` and `'X' || nextval()` count too.
_COLUMNS = """
SELECT a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attnotnull, a.attisdropped, a.attidentity,
       a.attgenerated, a.attcollation, a.attmissingval, pg_catalog.format_type(a.atttypid, a.atttypmod),
       pg_catalog.pg_get_expr(d.adbin, d.adrelid), s.nspname, s.relname, co.collname
  FROM pg_catalog.pg_attribute a
  JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
  LEFT JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_collation co ON co.oid = a.attcollation AND a.attcollation <> t.typcollation
  LEFT JOIN LATERAL (
        SELECT sn.nspname, sc.relname
          FROM pg_catalog.pg_depend p
          JOIN pg_catalog.pg_class sc ON sc.oid = p.refobjid AND sc.relkind = 'S'
          JOIN pg_catalog.pg_namespace sn ON sn.oid = sc.relnamespace
         WHERE p.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND p.objid = d.oid
           AND p.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
        UNION ALL
        SELECT sn.nspname, sc.relname
          FROM pg_catalog.pg_depend p
          JOIN pg_catalog.pg_class sc ON sc.oid = p.objid AND sc.relkind = 'S'
          JOIN pg_catalog.pg_namespace sn ON sn.oid = sc.relnamespace
         WHERE a.attidentity <> '' AND p.deptype = 'i' AND p.refobjid = a.attrelid AND p.refobjsubid = a.attnum
           AND p.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
           AND p.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
         LIMIT 1) s ON d.oid IS NOT NULL OR a.attidentity <> ''
 WHERE a.attnum > 0 AND c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't'
   AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
 ORDER BY a.attrelid, a.attnum
"""

_INDEXES = """
SELECT i.indrelid, ic.relname, i.indisprimary, i.indisunique, i.indisexclusion, i.indimmediate,
       i.indpred IS NOT NULL, i.indexprs IS NOT NULL, {nulls_not_distinct},
       ARRAY(SELECT k.n::pg_catalog.int4 FROM pg_catalog.unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY k(n, o)
              WHERE k.o <= i.indnkeyatts ORDER BY k.o),
       pg_catalog.pg_get_indexdef(i.indexrelid), k.contype, k.condeferrable, k.condeferred, k.conname,
       pg_catalog.pg_get_constraintdef(k.oid)
  FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
  JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')
                                      AND k.conrelid = i.indrelid
 WHERE (i.indisunique OR i.indisexclusion) AND i.indisvalid AND c.relkind IN ('r', 'p')
   AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
 ORDER BY i.indrelid, ic.relname
"""

_REFERENCES = """
SELECT k.conrelid, k.conname, k.conkey, k.confrelid, k.confkey, k.confupdtype, k.confdeltype, k.confmatchtype,
       k.condeferrable, k.condeferred, k.convalidated, {enforced}
  FROM pg_catalog.pg_constraint k
  JOIN pg_catalog.pg_namespace n ON n.oid = k.connamespace
 WHERE k.contype = 'f' AND k.conparentid = 0
   AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
 ORDER BY k.conrelid, k.conname
"""

# Columns that older servers do not have, since when, and what was so before.
_NEWER = (
    ("nulls_not_distinct", "i.indnullsnotdistinct", 150000, "false"),
    ("enforced", "k.conenforced", 180000, "true"),
)

_TYPES = """
SELECT t.oid, n.nspname, t.typname, t.typtype, t.typbasetype, t.typtypmod, t.typelem, t.typrelid, t.typnotnull,
       t.typcategory
  FROM pg_catalog.pg_type t
  JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
"""
_USER_TYPES = f" WHERE t.oid >= {FIRST_USER_OID} ORDER BY t.oid"
_LABELS = "SELECT enumtypid, enumlabel FROM pg_catalog.pg_enum ORDER BY enumtypid, enumsortorder"
_RANGES = f"SELECT rngtypid, rngsubtype FROM pg_catalog.pg_range WHERE rngtypid >= {FIRST_USER_OID} ORDER BY 1"
_COMPOSITES = """
SELECT c.reltype, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attisdropped
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
 WHERE c.relkind = 'c' AND a.attnum > 0 AND c.oid >= 16384 ORDER BY c.reltype, a.attnum
"""
_LARGE_OBJECTS = "SELECT pg_catalog.count(*), pg_catalog.max(oid) FROM pg_catalog.pg_largeobject_metadata"


@dataclass(frozen=True, slots=True)
class Attribute:
    number: int
    name: str
    type_oid: int
    typmod: int
    not_null: bool
    dropped: bool
    identity: str
    generated: str
    collation_oid: int
    missing: object
    type_text: str
    default: str | None
    sequence: TableName | None
    collation: str | None

    def storage(self) -> tuple[object, ...]:
        """All that decides how the bytes of a heap row read as text."""
        return (
            self.number,
            self.name,
            self.type_oid,
            self.typmod,
            self.dropped,
            self.generated,
            self.collation_oid,
            self.missing,
        )


@dataclass(frozen=True, slots=True)
class Relation:
    oid: int
    name: TableName
    kind: str  # r: plain, p: partitioned, f: foreign
    file: int
    unlogged: bool
    parent: int | None  # of a partition
    bound: str | None
    attributes: tuple[Attribute, ...]

    @property
    def live(self) -> tuple[Attribute, ...]:
        """Columns that exist."""
        return tuple(attribute for attribute in self.attributes if not attribute.dropped)


@dataclass(frozen=True, slots=True)
class TypeRow:
    oid: int
    schema: str
    name: str
    type: str  # b, c, d, e, p, r, m
    base: int
    typmod: int
    element: int
    relation: int
    not_null: bool
    category: str


@dataclass(frozen=True)
class Catalog:
    """One database's catalog as of one snapshot. `types` holds the user's own types and those its columns use."""

    database_oid: int
    server_version: int
    relations: Mapping[int, Relation]
    types: Mapping[int, TypeRow]
    labels: Mapping[int, tuple[str, ...]]
    indexes: Mapping[int, tuple[tuple[Any, ...], ...]] = field(repr=False)
    references: Mapping[int, tuple[tuple[Any, ...], ...]] = field(repr=False)
    ranges: Mapping[int, int] = field(repr=False)
    composites: Mapping[int, tuple[tuple[object, ...], ...]] = field(repr=False)
    large_objects: tuple[object, ...] = ()

    def leaves(self, relation: Relation) -> list[Relation]:
        """The stored tables behind a table: itself, or the leaves of a partitioned one in a stable order."""
        if relation.kind == "r":
            return [relation]
        found: list[Relation] = []
        for child in self.children.get(relation.oid, ()):
            found += self.leaves(child)
        return sorted(found, key=lambda leaf: leaf.oid)

    @cached_property
    def children(self) -> Mapping[int, list[Relation]]:
        found: dict[int, list[Relation]] = {}
        for relation in self.relations.values():
            if relation.parent is not None:
                found.setdefault(relation.parent, []).append(relation)
        return found

    def storage(self, relation: Relation) -> tuple[object, ...]:
        """Equal on both sides: the same heap bytes print the same text."""
        return tuple(
            (attribute.storage(), self.type_signature(attribute.type_oid)) for attribute in relation.attributes
        )

    def type_signature(self, oid: int, depth: int = 0) -> tuple[object, ...]:
        """Whatever decides how a user-defined type prints: labels, parts, modifiers, all the way down."""
        row = self.types.get(oid)
        if row is None or oid < FIRST_USER_OID or depth > TYPE_DEPTH_MAX:
            return (oid,)
        inner = [self.type_signature(part, depth + 1) for part in (row.base, row.element) if part]
        if oid in self.ranges:
            inner.append(self.type_signature(self.ranges[oid], depth + 1))
        if row.type == "c":
            inner += [(*part, self.type_signature(type_oid, depth + 1)) for *part, type_oid in self._parts(row)]
        return (oid, row.type, row.typmod, self.labels.get(oid, ()), *inner)

    def _parts(self, row: TypeRow) -> list[tuple[Any, ...]]:
        """number, name, dropped, modifier, type of a composite's attributes."""
        if row.oid in self.composites:
            return [(number, name, gone, typmod, oid) for number, name, oid, typmod, gone in self.composites[row.oid]]
        relation = self.relations.get(row.relation)
        return (
            []
            if relation is None
            else [(a.number, a.name, a.dropped, a.typmod, a.type_oid) for a in relation.attributes]
        )

    def tables(self) -> dict[TableName, Relation]:
        """Tables by name: plain ones and partitioned roots, without their partitions."""
        return {
            relation.name: relation
            for relation in self.relations.values()
            if relation.parent is None and relation.kind in "rp"
        }


def read_catalog(connection: Connection[Any]) -> Catalog:
    """Read it in the connection's transaction; the first statement takes a REPEATABLE READ snapshot."""
    version = connection.info.server_version
    database_oid = _rows(
        connection,
        "SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()",
    )[0][0]
    attributes = _attributes(_rows(connection, _COLUMNS))
    relations: dict[int, Relation] = {}
    for oid, schema, name, kind, file, persistence, _, parent, _space, bound, _rls in _rows(connection, _RELATIONS):
        relations[oid] = Relation(
            oid,
            TableName(schema, name),
            kind,
            file,
            persistence == "u",
            parent,
            bound,
            tuple(attributes.get(oid, ())),
        )
    used = {attribute.type_oid for relation in relations.values() for attribute in relation.attributes}
    user_types = [TypeRow(*row) for row in _rows(connection, _TYPES + _USER_TYPES)]
    labels: dict[int, list[str]] = {}
    for oid, label in _rows(connection, _LABELS):
        labels.setdefault(oid, []).append(label)
    return Catalog(
        database_oid,
        version,
        relations,
        _types(connection, user_types, used),
        {oid: tuple(names) for oid, names in labels.items()},
        _grouped(_rows(connection, for_version(_INDEXES, version))),
        _grouped(_rows(connection, for_version(_REFERENCES, version))),
        dict(_rows(connection, _RANGES)),
        {oid: tuple(row[1:] for row in rows) for oid, rows in _grouped(_rows(connection, _COMPOSITES)).items()},
        _rows(connection, _LARGE_OBJECTS)[0],
    )


def for_version(query: str, version: int) -> str:
    """The query without the columns that a server of `version` (as 140023) does not have."""
    return query.format(
        **{name: column if version >= since else otherwise for name, column, since, otherwise in _NEWER}
    )


def _rows(connection: Connection[Any], query: str) -> list[tuple[Any, ...]]:
    return connection.execute(query.encode(), prepare=False).fetchall()


def _attributes(rows: Iterable[tuple[Any, ...]]) -> dict[int, list[Attribute]]:
    found: dict[int, list[Attribute]] = {}
    for row in rows:
        (relation, number, name, type_oid, typmod, not_null, dropped, identity, generated, collation_oid) = row[:10]
        missing, type_text, default, sequence_schema, sequence_name, collation = row[10:]
        sequence = None if sequence_name is None else TableName(sequence_schema, sequence_name)
        found.setdefault(relation, []).append(
            Attribute(
                number,
                name,
                type_oid,
                typmod,
                not_null,
                dropped,
                identity,
                generated,
                collation_oid,
                missing,
                type_text,
                default,
                sequence,
                collation,
            )
        )
    return found


def _types(connection: Connection[Any], user_types: list[TypeRow], used: set[int]) -> dict[int, TypeRow]:
    """The user's types and every built-in one they or the columns lead to."""
    types = {row.oid: row for row in user_types}
    wanted = used | {row.base for row in user_types} | {row.element for row in user_types}
    for _ in range(8):  # array of domain over domain of array … ends long before
        missing = sorted(wanted - types.keys() - {0})
        if not missing:
            break
        rows = connection.execute((_TYPES + " WHERE t.oid = ANY(%s)").encode(), [missing], prepare=False).fetchall()
        types |= {row[0]: TypeRow(*row) for row in rows}
        wanted = {oid for row in rows for oid in (row[4], row[6])} | (wanted & types.keys())
        if not rows:
            break
    return types


def _grouped(rows: Iterable[tuple[Any, ...]]) -> dict[int, tuple[tuple[Any, ...], ...]]:
    found: dict[int, list[tuple[Any, ...]]] = {}
    for row in rows:
        found.setdefault(row[0], []).append(row)
    return {oid: tuple(items) for oid, items in found.items()}
