"""A plan: the rules matched with the columns production really has. Fails closed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core.masking.rules import InvalidMasking, Masking, Method, Profile, Rule
from orchestrator.errors import InvalidInput


class Unclassified(InvalidInput):
    """Production has columns the masking file says nothing about; `fields["columns"]` lists them all."""

    code = "invalid.unclassified_columns"


class TypeFamily(StrEnum):
    TEXT = "text"
    NUMBER = "number"
    DATE = "date"
    TIME = "time"  # timestamps
    JSON = "json"
    BYTES = "bytes"
    UUID = "uuid"
    ARRAY = "array"
    OTHER = "other"


ANY = frozenset(TypeFamily)
ALLOWED: Mapping[Method, frozenset[TypeFamily]] = {
    Method.KEEP: ANY,
    Method.NULL: ANY,
    Method.CONSTANT: ANY,
    Method.EMPTY: frozenset({TypeFamily.TEXT, TypeFamily.JSON, TypeFamily.BYTES, TypeFamily.ARRAY}),
    Method.HASH: frozenset({TypeFamily.TEXT, TypeFamily.BYTES, TypeFamily.UUID}),
    Method.FIRST_NAME: frozenset({TypeFamily.TEXT}),
    Method.LAST_NAME: frozenset({TypeFamily.TEXT}),
    Method.FULL_NAME: frozenset({TypeFamily.TEXT}),
    Method.EMAIL: frozenset({TypeFamily.TEXT}),
    Method.PHONE: frozenset({TypeFamily.TEXT}),
    Method.REDACT: frozenset({TypeFamily.TEXT}),
    Method.SHIFT_DATE: frozenset({TypeFamily.DATE, TypeFamily.TIME}),
    Method.NOISE: frozenset({TypeFamily.NUMBER}),
    Method.JSON: frozenset({TypeFamily.JSON}),
}


@dataclass(frozen=True)
class ColumnFact:
    """One column of an ordinary or partitioned (never a partition) table, as the catalog tells it."""

    table: str  # schema.table
    name: str
    type: str  # as format_type() writes it
    base_type: str  # of a domain the type below it, without a length
    length_max: int | None  # varchar(n), char(n)
    is_not_null: bool
    is_generated: bool

    @property
    def family(self) -> TypeFamily:
        return family(self.base_type)


@dataclass(frozen=True)
class PlannedColumn:
    fact: ColumnFact
    rule: Rule


@dataclass(frozen=True)
class MaskingPlan:
    """What will be done, by table; only masked columns are listed. `notes` are rules for what production lacks."""

    profile: Profile
    masked: Mapping[str, tuple[PlannedColumn, ...]]
    notes: tuple[str, ...]

    @property
    def methods(self) -> dict[str, str]:
        """schema.table.column -> method, for the manifest and for the promote's refusal of masked cells."""
        return {
            f"{table}.{column.fact.name}": str(column.rule.method)
            for table, columns in sorted(self.masked.items())
            for column in columns
        }


def family(type_name: str) -> TypeFamily:
    if type_name.endswith("[]"):
        return TypeFamily.ARRAY
    name = type_name.split("(")[0]
    families = {
        TypeFamily.TEXT: {"text", "character varying", "character", "citext", "bpchar", "name"},
        TypeFamily.NUMBER: {"smallint", "integer", "bigint", "numeric", "real", "double precision"},
        TypeFamily.DATE: {"date"},
        TypeFamily.TIME: {"timestamp without time zone", "timestamp with time zone"},
        TypeFamily.JSON: {"json", "jsonb"},
        TypeFamily.BYTES: {"bytea"},
        TypeFamily.UUID: {"uuid"},
    }
    for found, names in families.items():
        if name in names:
            return found
    return TypeFamily.OTHER


def plan(masking: Masking, profile: str, columns: Iterable[ColumnFact]) -> MaskingPlan:
    """Match rules and columns.

    Raises Unclassified when any column has no rule (generated columns follow from theirs and need none), and
    InvalidMasking when a rule cannot work on its column's type.
    """
    chosen = masking.profile(profile)
    facts = list(columns)
    missing: list[str] = []
    masked: dict[str, list[PlannedColumn]] = {}
    for fact in facts:
        rule = masking.columns.get(fact.table, {}).get(fact.name)
        if fact.is_generated:
            continue
        if rule is None:
            missing.append(f"{fact.table}.{fact.name}")
            continue
        _check(fact, rule, facts)
        if rule.method is not Method.KEEP:
            masked.setdefault(fact.table, []).append(PlannedColumn(fact, rule))
    if missing:
        shown = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
        raise Unclassified(
            f"{len(missing)} column(s) are not classified: {shown}.",
            effect="No snapshot was made; the last good one stays in force.",
            next_step="Add each to `keep` or `mask` of its table in configs/masking.yaml.",
            columns=missing,
        )
    return MaskingPlan(
        chosen,
        {table: tuple(found) for table, found in masked.items()},
        _notes(masking, chosen, facts),
    )


def _check(fact: ColumnFact, rule: Rule, facts: list[ColumnFact]) -> None:
    where = f"{fact.table}.{fact.name}"
    if fact.family not in ALLOWED[rule.method]:
        raise InvalidMasking(
            f"{where} is {fact.type}: the method {rule.method} does not work on it.",
            next_step="Methods that work on every type: keep, null, constant.",
        )
    if rule.method is Method.NULL and fact.is_not_null:
        raise InvalidMasking(f"{where} cannot be null.", next_step="Use the method constant, empty or hash.")
    if rule.by is not None and not any(other.table == fact.table and other.name == rule.by for other in facts):
        raise InvalidMasking(f"{where}: `by` names {ascii(rule.by)[:60]}, which is no column of the table.")


def _notes(masking: Masking, profile: Profile, facts: list[ColumnFact]) -> tuple[str, ...]:
    known = {(fact.table, fact.name) for fact in facts}
    tables = {fact.table for fact in facts}
    for table in profile.filters:
        if table not in tables:
            raise InvalidMasking(
                f"The profile {profile.name} filters {table}, which production does not have.",
                effect="No snapshot was made: rows could be kept that the profile leaves out.",
            )
    return tuple(
        f"{table}.{column} has a rule but production does not have it"
        for table, rules in sorted(masking.columns.items())
        for column in sorted(rules)
        if (table, column) not in known
    )
