"""How Python values stand in the sandbox in memory: as PostgreSQL prints them, exactly, zones and digits included.

SQLite's own types in SQLAlchemy drop time zones, round decimals and know neither arrays nor intervals. These stand in
for them, so that mapped classes and plain parameters read and write the rows of a PostgreSQL without loss.
"""

# The processors' signatures are SQLAlchemy's.
# ruff: noqa: ARG002

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from orchestrator.core.changeset.shape import Column
from orchestrator.core.rowmodels.values import to_python
from orchestrator.shadow.cells import postgres_to_sqlite
from orchestrator.shadow.errors import InvalidShadow

Bind = Callable[[Any], Any]
_NUMERIC = Column("value", "numeric", base="numeric")
_INSTANT = Column("value", "timestamptz", base="timestamptz")
_PLAIN_ITEM = re.compile(r"[A-Za-z0-9_.+:/@-]+")
_SPAN = re.compile(r"(-?\d+) (year|mon|day)s?|([+-])?(\d+):(\d\d):(\d\d(?:\.\d+)?)")
_DAYS = {"year": 365, "mon": 30, "day": 1}  # as the PostgreSQL driver reads them


def stored(value: Any) -> Any:
    """A Python value as the sandbox keeps it. Raises InvalidShadow for what has no place in a column."""
    if value is None or (isinstance(value, bool | int | float | str | bytes) and not isinstance(value, Enum)):
        return value
    for kind, convert in _STORED.items():
        if isinstance(value, kind):
            return convert(value)
    raise InvalidShadow(f"A {type(value).__name__} cannot be stored in a column.")


def _number(value: Decimal) -> Any:
    return postgres_to_sqlite(_NUMERIC, format(value, "f") if value.is_finite() else str(value))


def _moment(value: datetime) -> str:
    text = (value.astimezone(UTC) if value.tzinfo else value).replace(tzinfo=None).isoformat(" ")
    text = text.rstrip("0") if "." in text else text
    return f"{text}+00" if value.tzinfo else text


def _clock(value: time) -> str:
    text = value.replace(tzinfo=None).isoformat()
    return text.rstrip("0") if "." in text else text


def _span(value: timedelta) -> str:
    """As PostgreSQL prints it: `1 day 02:00:00`."""
    days = int(value / timedelta(days=1))
    rest = value - timedelta(days=days)
    sign = "-" if rest < timedelta(0) else ""
    seconds, micros = divmod(abs(rest) // timedelta(microseconds=1), 1_000_000)
    clock = f"{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    if micros:
        clock += f".{micros:06}".rstrip("0")
    if not days:
        return clock
    name = f"{days} day{'' if days == 1 else 's'}"
    return name if not rest else f"{name} {'+' if days < 0 and not sign else ''}{clock}"


def _array(value: list[Any] | tuple[Any, ...]) -> str:
    return "{" + ",".join(map(_item, value)) + "}"


def _item(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, list | tuple):
        return _array(value)
    text = {True: "t", False: "f"}[value] if isinstance(value, bool) else str(stored(value))
    if _PLAIN_ITEM.fullmatch(text) and text.upper() != "NULL":
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


_STORED: Mapping[type[Any], Bind] = {
    Decimal: _number,
    datetime: _moment,
    date: date.isoformat,
    time: _clock,
    timedelta: _span,
    UUID: str,
    Enum: lambda value: value.name,
    bytearray: bytes,
    memoryview: bytes,
    list: _array,
    tuple: _array,
    dict: lambda value: json.dumps(value, ensure_ascii=False),
}


def read_span(text: str) -> timedelta:
    """Raises ValueError for what is no interval."""
    total, found = timedelta(), False
    for count, unit, sign, hours, minutes, seconds in _SPAN.findall(text):
        found = True
        if unit:
            total += int(count) * timedelta(days=_DAYS[unit])
        else:
            clock = timedelta(hours=int(hours), minutes=int(minutes)) + timedelta(
                microseconds=int(Decimal(seconds) * 1_000_000)
            )
            total += -clock if sign == "-" else clock
    if not found:
        raise ValueError(f"{text[:60]!r} is not an interval")
    return total


def read_array(text: str, read: Bind) -> list[Any]:
    """A PostgreSQL array as nested lists; bounds that are not the usual ones are not kept here."""
    body = text[text.index("{") :]
    lists: list[list[Any]] = [[]]
    for match in re.finditer(r'\{|\}|"((?:[^"\\]|\\.)*)"|([^{},]+)', body, re.DOTALL):
        part = match[0]
        if part == "{":
            lists.append([])
        elif part == "}":
            done = lists.pop()
            lists[-1].append(done)
        elif match[1] is not None:
            lists[-1].append(read(re.sub(r"\\(.)", r"\1", match[1], flags=re.DOTALL)))
        else:
            lists[-1].append(None if part.upper() == "NULL" else read(part))
    nested: list[Any] = lists[0][0]
    return nested


class _Exact(sa.Numeric[Any]):
    def bind_processor(self, dialect: Dialect) -> Bind:
        return stored

    def result_processor(self, dialect: Dialect, coltype: object) -> Bind:
        as_decimal = self.asdecimal

        def read(value: Any) -> Any:
            if value is None:
                return None
            exact = Decimal(value if isinstance(value, str) else repr(value))
            return exact if as_decimal else float(exact)

        return read


class _Moment(sa.DateTime):
    def bind_processor(self, dialect: Dialect) -> Bind:
        has_zone = self.timezone

        def write(value: Any) -> Any:
            if isinstance(value, datetime) and has_zone and value.tzinfo is None:
                value = value.replace(tzinfo=UTC)
            elif isinstance(value, datetime) and not has_zone and value.tzinfo is not None:
                value = value.astimezone(UTC).replace(tzinfo=None)
            return stored(value)

        return write

    def result_processor(self, dialect: Dialect, coltype: object) -> Bind:
        return lambda value: None if value is None else to_python(_INSTANT, str(value))


class _Clock(sa.Time):
    def bind_processor(self, dialect: Dialect) -> Bind:
        return stored

    def result_processor(self, dialect: Dialect, coltype: object) -> Bind:
        return lambda value: None if value is None else time.fromisoformat(str(value))


class _Span(sa.types.TypeEngine[timedelta]):
    def __init__(self, **_: Any) -> None:
        """Takes what an Interval is made with; nothing of it matters here."""

    def bind_processor(self, dialect: Dialect) -> Bind:
        return stored

    def result_processor(self, dialect: Dialect, coltype: object) -> Bind:
        return lambda value: None if value is None else read_span(str(value))


class _Uuid(sa.Uuid[Any]):
    def bind_processor(self, dialect: Dialect) -> Bind:
        return lambda value: None if value is None else str(value)

    def result_processor(self, dialect: Dialect, coltype: object) -> Bind:
        as_uuid = self.as_uuid
        return lambda value: None if value is None else UUID(str(value)) if as_uuid else str(value)


class _Array(sa.ARRAY[Any]):
    def bind_processor(self, dialect: Dialect) -> Bind:
        return stored

    def result_processor(self, dialect: Dialect, coltype: object) -> Bind:
        read_item = self.item_type.dialect_impl(dialect).result_processor(dialect, coltype)
        number = self.item_type.python_type if isinstance(self.item_type, sa.Integer | sa.Float) else None

        def read(text: str) -> Any:
            if isinstance(self.item_type, sa.Boolean):
                return text == "t"
            return number(text) if number else read_item(text) if read_item else text

        return lambda value: None if value is None else read_array(str(value), read)


def teach(dialect: Dialect) -> None:
    """Let this dialect's engine store and read by the types above."""
    dialect.colspecs = {
        **dialect.colspecs,
        sa.Numeric: _Exact,
        sa.DateTime: _Moment,
        sa.TIMESTAMP: _Moment,
        sa.Time: _Clock,
        sa.Interval: _Span,
        sa.Uuid: _Uuid,
        sa.ARRAY: _Array,
    }
