"""Small pieces of SQL every step of the apply shares: names, casts, key joins, parameters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from psycopg import sql

from orchestrator.core.changeset.rows import Cell, Key
from orchestrator.core.changeset.shape import TableName
from orchestrator.core.promotion.catalog import ProductionTable
from orchestrator.drivers.postgres.apply.session import array


class Parameters:
    """Numbers $1… as values are added."""

    def __init__(self) -> None:
        self.values: list[str | None] = []

    def add(self, value: str | None) -> sql.SQL:
        self.values.append(value)
        return sql.SQL("$" + str(len(self.values)))

    def array(self, texts: Sequence[str | None]) -> sql.Composed:
        return sql.SQL("{}::pg_catalog.text[]").format(self.add(array(texts)))


def relation(table: ProductionTable) -> sql.Composed:
    """The table as FROM, UPDATE and DELETE name it: without inheriting tables unless it is partitioned."""
    name = identifier(table.name)
    return name if table.shape.partitioned else sql.SQL("ONLY {}").format(name)


def identifier(name: TableName) -> sql.Composed:
    return sql.Composed([sql.Identifier(name.schema, name.name)])


def cast(table: ProductionTable, column: str) -> sql.SQL:
    """The column's type without its modifier."""
    return sql.SQL(table.cast(column))


def unnest(arrays: Sequence[sql.Composable], names: Sequence[str], *, alias: str = "o") -> sql.Composed:
    """`unnest($1, …) AS o(names…)`: one row per index, one parameter per column.

    Only the bare name takes several arrays; pg_catalog comes first in every search path.
    """
    return sql.SQL("unnest({}) AS {}({})").format(
        sql.SQL(", ").join(arrays), sql.Identifier(alias), sql.SQL(", ").join(map(sql.Identifier, names))
    )


def key_names(table: ProductionTable) -> list[str]:
    return [f"k{position}" for position in range(len(table.shape.primary_key))]


def key_match(table: ProductionTable) -> sql.Composed:
    """`x.id = o.k0::bigint AND …`, in the key's own type so that its index is used."""
    return sql.SQL(" AND ").join(
        sql.SQL("x.{} = o.{}::{}").format(sql.Identifier(column), sql.Identifier(name), cast(table, column))
        for column, name in zip(table.shape.primary_key, key_names(table), strict=True)
    )


def key_arrays(parameters: Parameters, keys: Sequence[Key]) -> list[sql.Composed]:
    return [parameters.array(list(column)) for column in zip(*(map(plain, key) for key in keys), strict=True)]


def plain(cell: Cell) -> str | None:
    """The text of a cell that can be sent. Raises TypeError for a key that is still provisional."""
    if cell is None or isinstance(cell, str):
        return cell
    raise TypeError(f"{cell.table}.{cell.column} {cell.text} is still provisional")


def columns_of(names: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.SQL("x.{}").format(sql.Identifier(name)) for name in names)


def stored(table: ProductionTable) -> list[str]:
    """Columns that are stored: virtual ones are left out."""
    return [column.name for column in table.shape.columns if column.generated != "virtual"]
