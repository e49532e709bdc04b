"""What configs/masking.yaml says: one rule per column, and the profiles' row filters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from orchestrator.errors import InvalidInput

DEFAULT_PROFILE = "full"
SHIFT_DAYS = 180
NOISE_PERCENT = 20


class InvalidMasking(InvalidInput):
    """The masking file is not well formed; the message names the key."""

    code = "invalid.masking"


class UnknownProfile(InvalidInput):
    code = "invalid.snapshot_profile"


class Method(StrEnum):
    KEEP = "keep"
    NULL = "null"
    CONSTANT = "constant"
    EMPTY = "empty"  # '' for text and bytea, no elements for arrays, {} for json
    HASH = "hash"
    FIRST_NAME = "first_name"
    LAST_NAME = "last_name"
    FULL_NAME = "full_name"
    EMAIL = "email"
    PHONE = "phone"
    REDACT = "redact"  # letters become x, digits 0; length and punctuation stay
    SHIFT_DATE = "shift_date"
    NOISE = "noise"
    JSON = "json"  # only the keys named stay


@dataclass(frozen=True)
class Rule:
    """How one column is treated. `by` takes the mask from another column of the row (dates that must move together)."""

    method: Method
    value: str | None = None  # constant
    days: int = SHIFT_DAYS  # shift_date: at most this far in either direction
    percent: int = NOISE_PERCENT  # noise
    keys: tuple[str, ...] = ()  # json
    by: str | None = None
    is_canary: bool = True  # search the snapshot's files for samples of the clear text


KEEP = Rule(Method.KEEP)


@dataclass(frozen=True)
class Profile:
    """A kind of snapshot: the rows that fulfil each table's condition, and what refers to them."""

    name: str
    description: str = ""
    filters: Mapping[str, str] = field(default_factory=dict)  # schema.table -> SQL condition of the rows kept


@dataclass(frozen=True)
class Masking:
    """The whole file. `columns` is keyed by `schema.table` and then by column."""

    columns: Mapping[str, Mapping[str, Rule]]
    profiles: Mapping[str, Profile]

    def profile(self, name: str) -> Profile:
        """Raises UnknownProfile."""
        if name not in self.profiles:
            raise UnknownProfile(
                f"There is no snapshot profile {ascii(name)[:60]}.",
                next_step=f"Defined in masking.yaml: {', '.join(sorted(self.profiles))}.",
            )
        return self.profiles[name]


def parse(document: Any) -> Masking:
    """Read the parsed YAML. Raises InvalidMasking with the key that is wrong and what is allowed there."""
    top = _mapping(document or {}, "masking.yaml", {"tables", "profiles"})
    columns = {
        name: _table(entry, f"tables.{name}") for name, entry in _mapping(top.get("tables") or {}, "tables").items()
    }
    profiles = {DEFAULT_PROFILE: Profile(DEFAULT_PROFILE, "Everything, masked")}
    for name, entry in _mapping(top.get("profiles") or {}, "profiles").items():
        profiles[name] = _profile(name, entry)
    return Masking(columns, profiles)


def _profile(name: str, entry: Any) -> Profile:
    where = f"profiles.{name}"
    values = _mapping(entry or {}, where, {"description", "filters"})
    filters = _mapping(values.get("filters") or {}, f"{where}.filters")
    for table, condition in filters.items():
        _check_table_name(table, f"{where}.filters")
        if not isinstance(condition, str) or not condition.strip() or ";" in condition:
            raise InvalidMasking(f"{where}.filters.{table} must be one SQL condition without a semicolon.")
    return Profile(name, str(values.get("description", "")), filters)


def _table(entry: Any, where: str) -> dict[str, Rule]:
    _check_table_name(where.removeprefix("tables."), "tables")
    values = _mapping(entry, where, {"keep", "mask"})
    kept = values.get("keep") or []
    if not isinstance(kept, list) or not all(isinstance(column, str) for column in kept):
        raise InvalidMasking(
            f"{where}.keep must be a list of column names.",
            next_step="Name every column: a column production adds later must not slip through.",
        )
    rules = dict.fromkeys(kept, KEEP)
    for column, rule in _mapping(values.get("mask") or {}, f"{where}.mask").items():
        if column in rules:
            raise InvalidMasking(f"{where}: the column {column} is both kept and masked.")
        rules[column] = _rule(rule, f"{where}.mask.{column}")
    return rules


def _rule(entry: Any, where: str) -> Rule:
    if isinstance(entry, str) or entry is None:
        entry = {"method": entry or "null"}
    values = _mapping(entry, where, {"method", "value", "days", "percent", "keys", "by", "canary"})
    name = "null" if values.get("method") is None else str(values["method"])
    if name not in set(Method) - {"keep"}:
        allowed = ", ".join(sorted(set(Method) - {"keep"}))
        raise InvalidMasking(f"{where}: {ascii(name)[:40]} is no masking method.", next_step=f"Allowed: {allowed}.")
    method = Method(name)
    if method is Method.CONSTANT and "value" not in values:
        raise InvalidMasking(f"{where}: the method constant needs a value.")
    value = values.get("value")
    return Rule(
        method,
        value=None if value is None else str(value),
        days=_positive(values.get("days", SHIFT_DAYS), f"{where}.days", 36_500),
        percent=_positive(values.get("percent", NOISE_PERCENT), f"{where}.percent", 99),
        keys=tuple(str(key) for key in values.get("keys") or ()),
        by=values.get("by"),
        is_canary=bool(values.get("canary", True)),
    )


def _positive(value: Any, where: str, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise InvalidMasking(f"{where} must be a whole number from 1 to {most}.")
    return value


def _check_table_name(name: str, where: str) -> None:
    if name.count(".") != 1 or not all(name.split(".")):
        raise InvalidMasking(f"{where}: {ascii(name)[:80]} must be written schema.table.")


def _mapping(value: Any, where: str, allowed: set[str] | None = None) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InvalidMasking(f"{where} must be a mapping.")
    unknown = sorted(set(value) - allowed) if allowed else []
    if unknown:
        raise InvalidMasking(
            f"{where}: the key {ascii(unknown[0])[:60]} is not known.",
            next_step=f"Allowed: {', '.join(sorted(allowed or ()))}.",
        )
    return value
