"""From PostgreSQL's text of a value to the Python value a model checks, without loss or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from orchestrator.core.changeset.shape import Column, TypeKind

INTEGERS = {"int2": (-(2**15), 2**15 - 1), "int4": (-(2**31), 2**31 - 1), "int8": (-(2**63), 2**63 - 1)}
_SHORT_OFFSET = re.compile(r"([+-]\d\d)$")


class Unreadable(ValueError):
    """The text is not a value of the column's type."""


def to_python(column: Column, text: str) -> object:
    """The value as Python has it; text where Python has no such value (infinity dates, BC, 24:00, ranges, arrays).

    Raises Unreadable.
    """
    if column.kind is not TypeKind.BUILT_IN:
        return text
    reader = _READERS.get(column.base)
    if reader is None:
        return text
    try:
        return reader(text)
    except (ValueError, ArithmeticError) as error:
        raise Unreadable(f"{text[:60]!r} is not a value of type {column.type}") from error


def _boolean(text: str) -> bool:
    return {"t": True, "f": False, "true": True, "false": False, "1": True, "0": False}[text]


def _checked_boolean(text: str) -> bool:
    try:
        return _boolean(text)
    except KeyError:
        raise ValueError(text) from None


def _bytes(text: str) -> bytes:
    if not text.startswith("\\x"):
        raise ValueError("bytea is written in hexadecimal")
    return bytes.fromhex(text[2:])


def _or_text(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """PostgreSQL has dates that Python has not; those stay text, and only models that accept text accept them."""

    def reader(text: str) -> Any:
        if text in {"infinity", "-infinity"} or text.endswith(" BC") or text.startswith("24:") or len(text) > 40:
            return text
        if re.match(r"\d{5,}-", text):
            return text
        return read(text)

    return reader


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(_SHORT_OFFSET.sub(r"\1:00", text))


def _json(text: str) -> Any:
    return json.loads(text, parse_float=Decimal)


_READERS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(INTEGERS, int),
    "oid": int,
    "numeric": Decimal,
    "float4": float,
    "float8": float,
    "bool": _checked_boolean,
    "bytea": _bytes,
    "uuid": UUID,
    "date": _or_text(date.fromisoformat),
    "timestamp": _or_text(datetime.fromisoformat),
    "timestamptz": _or_text(_instant),
    "time": _or_text(time.fromisoformat),
    "json": _json,
    "jsonb": _json,
}
