"""Values as cells: text that loses nothing, for SQLite's storage classes and for PostgreSQL rows kept in SQLite."""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation
from typing import TypeAlias

from orchestrator.core.changeset.shape import Column, TypeKind
from orchestrator.shadow.errors import InvalidShadow

# What SQLite stores. Text arrives as `SqlText`, for it need not be UTF-8.
Raw: TypeAlias = int | float | bytes | str | None

_INTEGERS = frozenset({"int2", "int4", "int8", "oid"})
_FLOATS = frozenset({"float4", "float8"})
_UNUSUAL = "\0"  # marks a value of another storage class than its column's
_EXACT_DIGITS = 15  # a decimal of so many digits survives SQLite's 8-byte floats


def sqlite_cell(column: Column, raw: Raw) -> str | None:
    """A SQLite value as text: 1, 1.0, '1' and x'31' stay four different cells in one column."""
    if raw is None:
        return None
    expected = _expected(column)
    if isinstance(raw, str):
        return raw if expected is str and not raw.startswith(_UNUSUAL) else f"{_UNUSUAL}text:{raw}"
    if isinstance(raw, bytes):
        return "\\x" + raw.hex() if expected is bytes else f"{_UNUSUAL}blob:{raw.hex()}"
    if isinstance(raw, float):
        return repr(raw) if expected in (float, Decimal) else f"{_UNUSUAL}real:{raw!r}"
    if column.base == "bool" and raw in (0, 1):
        return "t" if raw else "f"
    return str(raw) if expected in (int, Decimal, bool) else f"{_UNUSUAL}integer:{raw}"


def sqlite_raw(column: Column, cell: str | None) -> Raw:
    """The value a cell of `sqlite_cell` came from."""
    if cell is None:
        return None
    if cell.startswith(_UNUSUAL):
        kind, _, body = cell[1:].partition(":")
        return {"text": str, "blob": bytes.fromhex, "real": float, "integer": int}[kind](body)  # type: ignore[operator,no-any-return]
    expected = _expected(column)
    if expected is str:
        return cell
    if expected is bytes:
        return bytes.fromhex(cell[2:])
    if expected is bool:
        return {"t": 1, "f": 0}[cell] if cell in ("t", "f") else int(cell)
    if expected is float:
        return float(cell)
    return float(cell) if any(mark in cell for mark in ".einEIN") else int(cell)


def _expected(column: Column) -> type:
    if column.kind is not TypeKind.BUILT_IN:
        return str
    if column.base in _INTEGERS:
        return int
    if column.base in _FLOATS:
        return float
    return {"numeric": Decimal, "bool": bool, "bytea": bytes}.get(column.base, str)


def postgres_to_sqlite(column: Column, cell: str | None) -> Raw:
    """How SQLite keeps a PostgreSQL cell: numbers as numbers when they are exact, all else as its text."""
    if cell is None:
        return None
    expected = _expected(column)
    if expected is int:
        return int(cell)
    if expected is bool:
        return 1 if cell in ("t", "true") else 0
    if expected is bytes:
        return bytes.fromhex(cell.removeprefix("\\x"))
    if expected is float:
        number = float(cell)
        return cell if math.isnan(number) else number  # SQLite would make a NaN NULL
    if expected is Decimal:
        return _exact_number(cell)
    return cell


def _exact_number(cell: str) -> Raw:
    value = Decimal(cell)
    if not value.is_finite():
        return cell
    digits = len(value.normalize().as_tuple().digits)
    if value == value.to_integral_value() and abs(value) < 2**63:
        return int(value)
    return float(value) if digits <= _EXACT_DIGITS and Decimal(repr(float(value))) == value else cell


def sqlite_to_postgres(column: Column, raw: Raw) -> str | None:
    """What was written in SQLite, as PostgreSQL would print it. Raises InvalidShadow for what cannot be meant."""
    if raw is None:
        return None
    expected = _expected(column)
    try:
        if isinstance(raw, bytes):
            return "\\x" + raw.hex() if expected is bytes else raw.decode("utf-8", "surrogateescape")
        if expected is bool:
            return _boolean(raw)
        if expected is int:
            return str(int(raw)) if not isinstance(raw, float) or raw.is_integer() else str(raw)
        if expected is Decimal:
            return _decimal_text(column, raw)
        if expected is float:
            return _float_text(float(raw))
        return str(raw)
    except (ValueError, InvalidOperation) as error:
        raise InvalidShadow(f"{raw!r:.60} is not a value of type {column.type} ({column.name}).") from error


def _boolean(raw: int | float | str) -> str:
    if raw in (1, "1", "t", "true", "TRUE", "True"):
        return "t"
    if raw in (0, "0", "f", "false", "FALSE", "False"):
        return "f"
    raise ValueError(raw)


def _float_text(number: float) -> str:
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    if math.isnan(number):
        return "NaN"
    text = repr(number)
    return text.removesuffix(".0")


def _decimal_text(column: Column, raw: int | float | str) -> str:
    """Digits behind the point are filled up to the column's scale, as PostgreSQL does; never cut here."""
    value = Decimal(raw if isinstance(raw, str) else repr(raw))
    if not value.is_finite():
        return "NaN" if value.is_nan() else "Infinity" if value > 0 else "-Infinity"
    if column.typmod >= 4:
        scale = (column.typmod - 4) & 0x7FF
        exponent = value.as_tuple().exponent
        if not scale & 0x400 and isinstance(exponent, int) and -exponent < scale:
            value = value.quantize(Decimal(1).scaleb(-scale))
    return format(value, "f")
