"""The model every table has: derived from its columns, strict, unknown fields refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, create_model

from orchestrator.core.changeset.shape import Column, TableShape, TypeKind
from orchestrator.core.rowmodels.values import INTEGERS

_HEADER = 4  # what PostgreSQL adds to a type modifier
_UNPRINTABLE_DATE = Annotated[str, StringConstraints(pattern=r"^-?infinity$|BC$|^\d{5,}-|^24:")]
_FIXED: dict[str, Any] = {
    "bool": bool,
    "float4": Annotated[float, Field(allow_inf_nan=True)],
    "float8": Annotated[float, Field(allow_inf_nan=True)],
    "bytea": bytes,
    "uuid": UUID,
    "oid": Annotated[int, Field(ge=0, lt=2**32)],
    "date": date | _UNPRINTABLE_DATE,
    "timestamp": datetime | _UNPRINTABLE_DATE,
    "timestamptz": datetime | _UNPRINTABLE_DATE,
    "time": time | _UNPRINTABLE_DATE,
    "json": Any,
    "jsonb": Any,
}


@lru_cache(maxsize=512)
def derived_model(shape: TableShape) -> type[BaseModel]:
    """A strict model of a whole row: types, lengths, labels, NOT NULL and digits as the schema has them.

    Columns the database computes or assigns may be missing; virtual ones are never part of a row.
    """
    fields: dict[str, Any] = {}
    for position, column in enumerate(shape.columns):
        if column.generated == "virtual":
            continue
        kind = value_type(column)
        if column.nullable or column.is_computed:
            kind = kind | None
        # Column names are the tenant's: they become aliases, never attribute names.
        fields[f"column_{position}"] = (kind, Field(alias=column.name))
    config = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)
    return create_model(f"Row of {shape.table}", __config__=config, **fields)


def value_type(column: Column) -> Any:
    """The annotation for one column's values."""
    if column.kind is TypeKind.ENUM and column.labels:
        return Literal[column.labels]
    if column.kind is not TypeKind.BUILT_IN:
        return str
    if column.base in INTEGERS:
        low, high = INTEGERS[column.base]
        return Annotated[int, Field(ge=low, le=high)]
    if column.base == "numeric":
        return Annotated[Decimal, Field(allow_inf_nan=True), AfterValidator(_digits(column.typmod))]
    if column.base in {"varchar", "bpchar"} and column.typmod >= _HEADER:
        length = column.typmod - _HEADER
        return Annotated[str, AfterValidator(_length(length, padded=column.base == "bpchar"))]
    if column.base in {"bit", "varbit"} and column.typmod > 0:
        exact = column.typmod if column.base == "bit" else None
        return Annotated[str, StringConstraints(min_length=exact, max_length=column.typmod, pattern="^[01]*$")]
    return _FIXED.get(column.base, str)


def _length(length: int, *, padded: bool) -> Callable[[str], str]:
    def check(text: str) -> str:
        if len(text.rstrip(" ") if padded else text) > length:
            raise ValueError(f"longer than {length} characters")
        return text

    return check


def _digits(typmod: int) -> Callable[[Decimal], Decimal]:
    """numeric(p,s) would round silently, so digits are checked first. NaN always fits, infinity only without digits."""
    if typmod < _HEADER:
        return lambda value: value
    precision, scale = ((typmod - _HEADER) >> 16) & 0xFFFF, (typmod - _HEADER) & 0x7FF
    scale = scale - 0x800 if scale & 0x400 else scale

    def check(value: Decimal) -> Decimal:
        if value.is_nan():
            return value
        if value.is_infinite():
            raise ValueError(f"numeric({precision},{scale}) has no infinity")
        _, digits, exponent = value.as_tuple()
        if isinstance(exponent, int) and value:
            trailing = len(digits) - len("".join(map(str, digits)).rstrip("0"))
            if -(exponent + trailing) > scale:
                raise ValueError(f"more than {scale} digits after the point")
            if value.adjusted() + 1 > precision - scale:
                raise ValueError(f"more than {precision - scale} digits before the point")
        return value

    return check
