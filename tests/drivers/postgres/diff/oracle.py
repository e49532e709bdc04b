"""The brute-force answer: read every row of both sides and compare, sharing no code with the differ."""

from __future__ import annotations

from collections import Counter
from typing import Any

import psycopg
from psycopg import sql

from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.changeset.rows import ProvisionalKey

Rows = Counter[tuple[object, ...]]
Difference = dict[str, tuple[Rows, Rows]]

_COLUMNS = """
SELECT n.nspname || '.' || c.relname, c.oid, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attgenerated
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attnum > 0 AND NOT a.attisdropped
   AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'
 ORDER BY c.oid, a.attnum
"""


def brute_force(base_dsn: str, live_dsn: str) -> Difference:
    """Per table of the base: rows that are only there, rows that are only in the live one, over common columns."""
    with psycopg.connect(base_dsn) as base, psycopg.connect(live_dsn) as live:
        old_tables, new_tables = _tables(base), _tables(live)
        by_oid = {oid: name for name, (oid, _) in new_tables.items() if name not in old_tables}
        found: Difference = {}
        for name, (oid, columns) in old_tables.items():
            other = name if name in new_tables else by_oid.get(oid)
            if other is None:
                continue
            new_oid, new_columns = new_tables[other]
            pairs = _pairs(columns, new_columns, same=oid == new_oid)
            if not pairs:
                continue
            old = _read(base, name, [pair[0] for pair in pairs])
            new = _read(live, other, [pair[1] for pair in pairs])
            if old != new:
                names = [pair[0] for pair in pairs]
                found[name] = (_named(names, old - new), _named(names, new - old))
        return found


def _tables(connection: psycopg.Connection[Any]) -> dict[str, tuple[int, list[tuple[int, str, str]]]]:
    found: dict[str, tuple[int, list[tuple[int, str, str]]]] = {}
    for table, oid, number, name, type_text, generated in connection.execute(_COLUMNS):
        columns = found.setdefault(table, (oid, []))[1]
        if generated != "v":
            columns.append((number, name, type_text))
    return found


def _pairs(old: list[tuple[int, str, str]], new: list[tuple[int, str, str]], *, same: bool) -> list[tuple[str, str]]:
    names = {name: type_text for _, name, type_text in new}
    known = {name for _, name, _ in old}
    numbers = {number: (name, type_text) for number, name, type_text in new if name not in known}
    pairs = []
    for number, name, type_text in old:
        if name in names:
            if names[name] == type_text:
                pairs.append((name, name))
        elif same and number in numbers and numbers[number][1] == type_text:
            pairs.append((name, numbers[number][0]))
    return pairs


def _read(connection: psycopg.Connection[Any], table: str, columns: list[str]) -> Rows:
    schema, _, name = table.partition(".")
    query = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT (FORMAT csv, NULL '~null~', FORCE_QUOTE *)").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(schema, name)
    )
    rows: Rows = Counter()
    with connection.cursor().copy(query) as copy:
        for piece in copy:
            rows[bytes(piece)] += 1  # type: ignore[index]
    return rows


def _named(names: list[str], rows: Rows) -> Rows:
    """Lines parsed by the csv module, as sets of (column, value)."""
    import csv
    import io

    found: Rows = Counter()
    for line, count in rows.items():
        text = line.decode()  # type: ignore[attr-defined]
        quoted = next(csv.reader(io.StringIO(text, newline="")))
        raw = _unquoted_nulls(text, len(names))
        cells = [None if null else value for value, null in zip(quoted, raw, strict=True)]
        found[tuple(zip(names, cells, strict=True))] += count
    return found


def _unquoted_nulls(text: str, columns: int) -> list[bool]:
    """Which fields are NULL: with FORCE_QUOTE only they stand without quotes."""
    nulls: list[bool] = []
    position = 0
    for _ in range(columns):
        if text.startswith("~null~", position):
            nulls.append(True)
            position += len("~null~") + 1
            continue
        nulls.append(False)
        position += 1
        while not (text[position] == '"' and text[position + 1] != '"'):
            position += 2 if text[position] == '"' else 1
        position += 2
    return nulls


def flattened(changeset: Changeset) -> Difference:
    """A changeset as rows gone and rows come, the form the oracle answers in."""
    found: Difference = {}
    for row in changeset.rows:
        gone, come = found.setdefault(f"{row.table.schema}.{row.table.name}", (Counter(), Counter()))
        if row.old is not None:
            gone[_plain(row.old)] += 1
        if row.new is not None:
            come[_plain(row.new)] += 1
    return found


def _plain(row: Any) -> tuple[object, ...]:
    return tuple((name, cell.text if isinstance(cell, ProvisionalKey) else cell) for name, cell in row.items())
