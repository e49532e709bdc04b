"""The types a flag's value or a positional may have. An allowlist's author names a type; patterns live only in here."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from orchestrator.core.allowlist.paths import Place
from orchestrator.core.allowlist.texts import LINES
from orchestrator.core.statement import statement_problem

Check = Callable[[str, Place], str | None]
"""Why a token is not of the type, None when it is."""

_SHAPES: dict[str, tuple[re.Pattern[str], str]] = {
    "rev": (re.compile(r"[A-Za-z0-9_@][A-Za-z0-9_./@{}^~:+-]{0,250}"), "a git revision"),
    "date": (re.compile(r"[0-9A-Za-z][0-9A-Za-z :.+-]{0,40}"), "a date"),
    "date_format": (re.compile(r"\+[%A-Za-z0-9 :./_-]{1,60}"), "a date format (+%Y-%m-%d)"),
    "host": (re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?(?::[0-9]{1,5})?"), "a host name"),
    "line_range": (re.compile(r"[0-9]{1,9}(?:,(?:[0-9]{1,9}|\$))?p"), "a range of lines to print (5p or 1,20p)"),
    "fields": (re.compile(r"[0-9]{0,6}(?:[,-][0-9]{1,6})*-?"), "a list of fields (1,3-5)"),
    "character": (re.compile(r"[^\x00-\x1f\x7f-]|\\t"), "one character"),
    "sort_key": (
        re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,4})?[bdfghinMrRV]*(?:,[0-9]{1,4}(?:\.[0-9]{1,4})?[bdfghinMrRV]*)?"),
        "a sort key (2,2n)",
    ),
    "quantity": (re.compile(r"[+-]?[0-9]{1,9}[bcwkMG]?"), "a quantity (+10k, -7)"),
    "identifier": (re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,120}"), "an identifier"),
}


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PathValue(_Value):
    """A path below the declared roots; `stdin: true` also takes `-`."""

    type: Literal["path"]
    access: Literal["ro", "rw"] = "ro"
    roots: tuple[str, ...] | None = None
    root_itself: bool = True
    stdin: bool = False
    suffixes: tuple[str, ...] | None = None

    def check(self) -> Check:
        write, names, root_itself = (
            self.access == "rw",
            None if self.roots is None else frozenset(self.roots),
            self.root_itself,
        )
        suffixes, stdin = self.suffixes, self.stdin

        def path(token: str, place: Place) -> str | None:
            if token == "-":  # noqa: S105
                return None if stdin else "would read from standard input; a file of that name is ./-"
            if suffixes is not None and not token.endswith(suffixes):
                return "does not end in " + " or ".join(suffixes)
            return place.problem(token, write=write, names=names, root_itself=root_itself)

        return path


class IntValue(_Value):
    type: Literal["int"]
    min: int = 0
    max: int = 1_000_000

    @model_validator(mode="after")
    def _ordered(self) -> IntValue:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is greater than max {self.max}")
        return self

    def check(self) -> Check:
        low, high = self.min, self.max
        shape = re.compile(r"-?[0-9]{1,12}")

        def integer(token: str, _place: Place) -> str | None:
            if not token.isascii() or not shape.fullmatch(token):
                return "is not a whole number"
            return None if low <= int(token) <= high else f"is not between {low} and {high}"

        return integer


class EnumValue(_Value):
    type: Literal["enum"]
    values: tuple[str, ...] = Field(min_length=1)

    def check(self) -> Check:
        values = frozenset(self.values)
        listed = ", ".join(self.values)
        return lambda token, _place: None if token in values else f"is not one of {listed}"


class TextValue(_Value):
    """Inert text: a search pattern, a message. `lines: true` lets it hold newlines and tabs."""

    type: Literal["text", "pattern"]
    max_bytes: int = Field(default=4_096, ge=1, le=65_536)
    lines: bool = False
    empty: bool = True

    def check(self) -> Check:
        most, lines, empty = self.max_bytes, self.lines, self.empty

        def text(token: str, _place: Place) -> str | None:
            if not token and not empty:
                return "is empty"
            if len(token) > most or (not token.isascii() and len(token.encode()) > most):
                return f"is longer than {most} bytes"
            if not lines and LINES.search(token):
                return "holds a line break or a tab"
            return None

        return text


class StatementValue(_Value):
    """One SQL statement for the tenant's own database, without session or transaction commands."""

    type: Literal["statement"]

    def check(self) -> Check:
        return lambda token, _place: statement_problem(token)


class ShapeValue(_Value):
    """A type that is one fixed shape: rev, date, host, line_range and the like."""

    type: Literal[
        "rev",
        "date",
        "date_format",
        "host",
        "line_range",
        "fields",
        "character",
        "sort_key",
        "quantity",
        "identifier",
    ]

    def check(self) -> Check:
        shape, meaning = _SHAPES[self.type]
        full = shape.fullmatch
        is_rev = self.type == "rev"

        def shaped(token: str, _place: Place) -> str | None:
            if not full(token):
                return f"is not {meaning}"
            return "climbs out with `..`" if is_rev and _climbs(token) else None

        return shaped


def _climbs(token: str) -> bool:
    """`a..b` and `a...b` are ranges, `../b` and `a/../b` are not."""
    return ".." in re.split(r"[/:]", token)


def _long_form(value: object) -> object:
    """`int` is short for `{type: int}`."""
    return {"type": value} if isinstance(value, str) else value


Value = Annotated[
    Annotated[PathValue | IntValue | EnumValue | TextValue | StatementValue | ShapeValue, Field(discriminator="type")],
    BeforeValidator(_long_form),
]
