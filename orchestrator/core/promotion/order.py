"""The order given to production: exactly what to write, under which guard."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from orchestrator.core.changeset import shape
from orchestrator.core.changeset.changeset import Changeset

TableName = shape.TableName


class CellName(NamedTuple):
    """One cell of a changeset: the row's id and the column."""

    row: str
    column: str


@dataclass(frozen=True, slots=True)
class Scope:
    """The tenant guard of one table: every row touched must hold `value` (as text) in `column`."""

    column: str
    value: str


@dataclass(frozen=True, slots=True)
class Migration:
    """One SQL file of the change, run before its rows. `path` decides the order."""

    path: str
    text: str

    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class WriteLimits:
    lock_timeout_s: float = 2.0
    statement_timeout_s: float = 60.0
    transaction_timeout_s: float = 120.0
    lock_tries: int = 20
    transaction_tries: int = 4


@dataclass(frozen=True)
class PromotionOrder:
    """One changeset with everything that bounds its effect.

    `derived` cells are left to production's triggers and must come out as proposed; `decided` ones are left to them
    whatever they write. `masked` columns are never compared with the base and never written by an update. With
    `strict`, a row somebody touched in any column is a conflict. `settings` are set for the transaction (row-level
    security keys, for example).
    """

    id: str
    changeset: Changeset
    scopes: Mapping[TableName, Scope] = field(default_factory=dict)
    unguarded: frozenset[TableName] = frozenset()
    masked: frozenset[tuple[TableName, str]] = frozenset()
    derived: frozenset[CellName] = frozenset()
    decided: frozenset[CellName] = frozenset()
    migrations: tuple[Migration, ...] = ()
    migration_role: str = ""  # taken for the migrations alone
    strict: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    limits: WriteLimits = WriteLimits()

    @property
    def left_out(self) -> frozenset[CellName]:
        return self.derived | self.decided
