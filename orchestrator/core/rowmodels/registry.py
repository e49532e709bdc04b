"""The company's own models by table: subclass RowModel, name the table, done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from orchestrator.core.changeset.shape import TableName
from orchestrator.errors import InvalidInput


class InvalidRowModel(InvalidInput):
    code = "invalid.row_model"


class RowModels:
    """Models by table. Several models may name one table; a row has to pass all of them."""

    def __init__(self) -> None:
        self._models: dict[TableName, list[type[RowModel]]] = {}

    def add(self, table: TableName, model: type[RowModel]) -> None:
        models = self._models.setdefault(table, [])
        # A module loaded anew defines the same class again: the newer one counts.
        models[:] = [known for known in models if _address(known) != _address(model)]
        models.append(model)

    def of(self, table: TableName) -> tuple[type[RowModel], ...]:
        return tuple(self._models.get(table, ()))

    def tables(self) -> tuple[TableName, ...]:
        return tuple(sorted(self._models))

    def remove(self, model: type[RowModel]) -> None:
        for models in self._models.values():
            if model in models:
                models.remove(model)


REGISTRY = RowModels()


def _address(model: type) -> tuple[str, str]:
    return model.__module__, model.__qualname__


class RowModel(BaseModel):
    """A company's rules for one table. Fields are columns (an alias names one that Python cannot); it is strict.

    It may name only the columns it has rules for; the derived model checks the others. Values arrive as Python
    values (Decimal, date, …), a NULL as None. `check` may look at the row before and after.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    table_name: ClassVar[TableName | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Takes `table` and `registry`, which are read once the fields are known."""
        super().__init_subclass__(**{name: kwargs[name] for name in kwargs.keys() - {"table", "registry"}})

    @classmethod
    def __pydantic_init_subclass__(
        cls, *, table: str | None = None, registry: RowModels | None = REGISTRY, **kwargs: Any
    ) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if table is None:
            return
        try:
            cls.table_name = TableName.parse(table)
        except ValueError as error:
            raise InvalidRowModel(f"{cls.__name__} names no table: {error}.") from error
        if registry is not None:
            registry.add(cls.table_name, cls)

    @classmethod
    def columns(cls) -> Mapping[str, str]:
        """Column name → field name."""
        return {field.alias or name: name for name, field in cls.model_fields.items()}

    @classmethod
    def check(cls, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> Iterable[str]:
        """Override to judge the change itself: yield one sentence per objection. `old` and `new` hold every column."""
        del old, new
        return ()
