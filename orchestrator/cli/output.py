"""Results on stdout, as a table for people or as JSON for programs; everything else on stderr."""

from __future__ import annotations

import dataclasses
import json
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum, StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.errors import InvalidInput

CELL_MAX = 120


class Form(StrEnum):
    TABLE = "table"
    JSON = "json"


FormOption = Annotated[Form, typer.Option("--output", "-o", help="table for people, json for programs")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="do not ask")]


class NotConfirmed(InvalidInput):
    code = "invalid.not_confirmed"


def show_rows(rows: Sequence[object], columns: Sequence[str], form: Form, *, empty: str = "nothing") -> None:
    """Many things: `columns` are the fields of the table; JSON has them all."""
    values = [plain(row) for row in rows]
    if form is Form.JSON:
        return write_json(values)
    if not values:
        return say(empty)
    write(table([[cell(row.get(column)) for column in columns] for row in values], columns))


def show_one(thing: object, form: Form, *, columns: Sequence[str] = ()) -> None:
    """One thing, a line a field."""
    values = plain(thing)
    if form is Form.JSON:
        return write_json(values)
    chosen = columns or list(values)
    width = max(len(name) for name in chosen)
    write("\n".join(f"{heading(name):<{width}}  {cell(values.get(name), cut=False)}" for name in chosen))


def write_json(value: object) -> None:
    write(json.dumps(plain(value), indent=2, ensure_ascii=True, default=str))


def write(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """Progress and remarks."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def confirm(question: str, yes: bool) -> None:
    """Ask before something is lost. Raises NotConfirmed when nobody agrees or nobody can be asked."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise NotConfirmed(f"{question} Nobody could be asked.", effect="Nothing was done.", next_step="Add --yes.")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise NotConfirmed("You did not agree.", effect="Nothing was done.")


def table(rows: Sequence[Sequence[str]], columns: Sequence[str]) -> str:
    """Aligned text; never cut to the terminal's width, so that it can be searched."""
    lines = [[heading(column).upper() for column in columns], *rows]
    widths = [max(shown_width(line[index]) for line in lines) for index in range(len(columns))]
    padded = (
        "  ".join(text + " " * (width - shown_width(text)) for text, width in zip(line, widths, strict=True))
        for line in lines
    )
    return "\n".join(line.rstrip() for line in padded)


def heading(name: str) -> str:
    return name.replace("_", " ")


def cell(value: object, *, cut: bool = True) -> str:
    """A value as people read it, without anything a terminal would obey."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    if isinstance(value, Mapping):
        value = ", ".join(f"{key}={cell(item)}" for key, item in value.items()) or "-"
    if isinstance(value, list | tuple):
        value = ", ".join(cell(item) for item in value) or "-"
    text = "".join(one if unicodedata.category(one)[0] != "C" else ascii(one)[1:-1] for one in str(value))
    return text if not cut or len(text) <= CELL_MAX else text[: CELL_MAX - 1] + "…"


def shown_width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text)


def plain(value: object) -> Any:
    """Records as JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if hasattr(value, "model_dump"):
        return plain(value.model_dump())
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, frozenset | set):
        return sorted(plain(item) for item in value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    if isinstance(value, Path):
        return str(value)
    return value
