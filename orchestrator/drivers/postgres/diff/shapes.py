"""From catalog rows to the shape of a table as rows, reviews and promotes see it."""

from __future__ import annotations

import re
from typing import Any

from orchestrator.core.changeset.shape import (
    Column,
    ForeignKey,
    Generated,
    KeyKind,
    TableName,
    TableShape,
    TypeKind,
    UniqueKey,
)
from orchestrator.drivers.postgres.diff.catalog import Attribute, Catalog, Relation, TypeRow

_ACTIONS = {"a": "no action", "r": "restrict", "c": "cascade", "n": "set null", "d": "set default"}
_MATCHES = {"s": "simple", "f": "full", "p": "partial"}
_CONSTRAINT_KINDS = {"p": KeyKind.PRIMARY, "u": KeyKind.UNIQUE, "x": KeyKind.EXCLUSION}
_TYPE_KINDS = {"e": TypeKind.ENUM, "c": TypeKind.COMPOSITE, "r": TypeKind.RANGE, "m": TypeKind.RANGE}


def table_shapes(catalog: Catalog) -> dict[TableName, TableShape]:
    """Every plain or partitioned table that is not itself a partition."""
    return {name: table_shape(catalog, relation) for name, relation in catalog.tables().items()}


def table_shape(catalog: Catalog, relation: Relation) -> TableShape:
    names = {attribute.number: attribute.name for attribute in relation.live}
    keys = tuple(_unique_key(row, names) for row in catalog.indexes.get(relation.oid, ()))
    primary = next((key.columns for key in keys if key.kind is KeyKind.PRIMARY), ())
    references = (_foreign_key(catalog, row, names) for row in catalog.references.get(relation.oid, ()))
    return TableShape(
        relation.name,
        tuple(_column(catalog, attribute) for attribute in relation.live),
        primary,
        keys,
        tuple(key for key in references if key is not None),
        relation.kind == "p",
    )


def _column(catalog: Catalog, attribute: Attribute) -> Column:
    own = catalog.types[attribute.type_oid]
    base, typmod, domain = _without_domains(catalog, own, attribute.typmod)
    element = catalog.types.get(base.element) if base.category == "A" else None
    if element is not None:
        inner, inner_typmod, _ = _without_domains(catalog, element, typmod)
        return _built(attribute, own, inner, inner_typmod, domain, TypeKind.ARRAY, catalog.labels.get(inner.oid, ()))
    kind = _TYPE_KINDS.get(base.type, TypeKind.BUILT_IN)
    return _built(attribute, own, base, typmod, domain, kind, catalog.labels.get(base.oid, ()))


def _built(
    attribute: Attribute,
    own: TypeRow,
    base: TypeRow,
    typmod: int,
    domain: str | None,
    kind: TypeKind,
    labels: tuple[str, ...],
) -> Column:
    return Column(
        name=attribute.name,
        type=attribute.type_text,
        cast=f"{_identifier(own.schema)}.{_identifier(own.name)}",
        base=base.name,
        kind=kind,
        typmod=typmod,
        nullable=not attribute.not_null,
        generated=_generated(attribute),
        default=attribute.default if not attribute.generated else None,
        sequence=attribute.sequence,
        labels=labels,
        domain=domain,
        collation=attribute.collation,
    )


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _without_domains(catalog: Catalog, row: TypeRow, typmod: int) -> tuple[TypeRow, int, str | None]:
    domain = None
    while row.type == "d" and row.base in catalog.types:
        domain = domain or str(TableName(row.schema, row.name))
        typmod = row.typmod if row.typmod >= 0 else typmod
        row = catalog.types[row.base]
    return row, typmod, domain


def _generated(attribute: Attribute) -> Generated:
    if attribute.generated:
        return Generated.STORED if attribute.generated == "s" else Generated.VIRTUAL
    if attribute.identity:
        return Generated.IDENTITY_ALWAYS if attribute.identity == "a" else Generated.IDENTITY_DEFAULT
    return Generated.SEQUENCE if attribute.sequence is not None else Generated.NO


def _unique_key(row: tuple[Any, ...], names: dict[int, str]) -> UniqueKey:
    (_, index_name, primary, _unique, exclusion, immediate, partial, expressions, nulls_not_distinct, numbers) = row[
        :10
    ]
    index_definition, contype, deferrable, deferred, constraint_name, constraint_definition = row[10:]
    if contype is None:
        kind = KeyKind.PRIMARY if primary else KeyKind.EXCLUSION if exclusion else KeyKind.INDEX
    else:
        kind = _CONSTRAINT_KINDS[contype]
    return UniqueKey(
        constraint_name or index_name,
        kind,
        tuple(names[number] for number in numbers if number in names) if not expressions else (),
        constraint_definition or re.sub(r"^CREATE ", "", index_definition),
        partial,
        expressions,
        nulls_not_distinct,
        bool(deferrable) or not immediate,
        bool(deferred),
    )


def _foreign_key(catalog: Catalog, row: tuple[Any, ...], names: dict[int, str]) -> ForeignKey | None:
    (_, name, numbers, target_oid, target_numbers, update, delete, match, deferrable, deferred, valid, enforced) = row
    target = catalog.relations.get(target_oid)
    if target is None:
        return None
    target_names = {attribute.number: attribute.name for attribute in target.live}
    return ForeignKey(
        name,
        tuple(names[number] for number in numbers),
        target.name,
        tuple(target_names[number] for number in target_numbers),
        _ACTIONS[update],
        _ACTIONS[delete],
        _MATCHES[match],
        deferrable,
        deferred,
        enforced,
        valid,
    )
