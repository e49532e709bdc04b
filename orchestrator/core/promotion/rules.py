"""configs/promotion.yaml: which tables and columns may go back to production, how many rows, with whose consent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from orchestrator.core.changeset.rows import RowKind
from orchestrator.core.changeset.shape import TableName
from orchestrator.errors import InvalidInput

Operation = Literal["insert", "update", "delete"]


class InvalidPromotionRules(InvalidInput):
    code = "invalid.promotion_rules"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Caps(_Part):
    """The most rows one change may hold, by operation; None is no cap of its own."""

    insert: int | None = Field(None, ge=0)
    update: int | None = Field(None, ge=0)
    delete: int | None = Field(None, ge=0)
    total: int | None = Field(None, ge=0)

    def of(self, kind: RowKind) -> int | None:
        return {RowKind.INSERT: self.insert, RowKind.UPDATE: self.update, RowKind.DELETE: self.delete}[kind]


class TableRule(_Part):
    """One table that may be promoted.

    `columns` are those an update may change. `guard` names the tenant column; `unguarded: true` opens the table to
    every tenant. With `written_by: production` its rows follow from other rows there (a history kept by a trigger),
    so a change leaves them out. `production_writes` are columns a trigger sets (`updated_at`): never written, never
    compared.
    """

    operations: tuple[Operation, ...] = ("insert", "update", "delete")
    columns: Literal["all"] | tuple[str, ...] = "all"
    guard: str | None = None
    unguarded: bool = False
    caps: Caps = Caps()
    written_by: Literal["tenant", "production"] = "tenant"
    production_writes: tuple[str, ...] = ()

    def allows(self, column: str) -> bool:
        return column in self.production_writes or self.columns == "all" or column in self.columns


class ApprovalRules(_Part):
    """How many people must approve. The highest number that applies counts."""

    default: int = Field(1, ge=1, le=5)
    second_above_rows: int = Field(500, ge=1)
    risks: Mapping[str, int] = Field(default_factory=dict)
    code: int = Field(1, ge=1, le=5)
    migrations: int = Field(2, ge=1, le=5)


class AutoApproval(_Part):
    """Small, safe changes may pass without a person. Off unless switched on."""

    enabled: bool = False
    rows_max: int = Field(5, ge=1, le=1000)
    operations: tuple[Operation, ...] = ("update",)
    tables: tuple[str, ...] = ()


class Expiry(_Part):
    """Days after which a submission, or an approval nobody used, lapses."""

    submitted_days: int = Field(14, ge=1, le=365)
    approved_days: int = Field(3, ge=1, le=365)


class MigrationRules(_Part):
    """SQL files below `migrations/` of the branch. `role` is taken for them alone (SET ROLE); empty: as we are."""

    allowed: bool = True
    role: str = ""


class PromotionRules(_Part):
    """The whole file. With no table named nothing can be promoted."""

    guard: str | None = None
    tables: Mapping[str, TableRule] = Field(default_factory=dict)
    caps: Caps = Caps(insert=5000, update=20000, delete=500)
    approvals: ApprovalRules = ApprovalRules()
    auto_approval: AutoApproval = AutoApproval()
    expiry: Expiry = Expiry()
    migrations: MigrationRules = MigrationRules()
    strict: bool = False
    settings: Mapping[str, str] = Field(default_factory=dict)

    @field_validator("tables", mode="after")
    @classmethod
    def _tables_have_names(cls, tables: Mapping[str, TableRule]) -> Mapping[str, TableRule]:
        for written, rule in tables.items():
            TableName.parse(written)
            if rule.unguarded and rule.guard:
                raise ValueError(f"{written}: a table is either guarded or unguarded")
        return tables

    def rule(self, table: TableName) -> TableRule | None:
        for written, rule in self.tables.items():
            if TableName.parse(written) == table:
                return rule
        return None

    def guard_of(self, table: TableName) -> str | None:
        """The column that names the tenant; None for an unguarded table or one without a rule of its own."""
        rule = self.rule(table)
        if rule is None or rule.unguarded:
            return None
        return rule.guard or self.guard

    @property
    def promotable(self) -> tuple[TableName, ...]:
        return tuple(sorted(TableName.parse(name) for name, rule in self.tables.items() if rule.written_by == "tenant"))


def parse_rules(document: Mapping[str, Any]) -> PromotionRules:
    """Read the file's content. Raises InvalidPromotionRules, which lists every mistake."""
    try:
        return PromotionRules.model_validate(document)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors(include_url=False)]
        raise InvalidPromotionRules(
            "The promotion rules are not valid: " + "; ".join(problems[:10]),
            effect="Nothing can be submitted or promoted.",
            next_step="Correct configs/promotion.yaml; `orchestrator config check` reads it again.",
            problems=problems,
        ) from error
