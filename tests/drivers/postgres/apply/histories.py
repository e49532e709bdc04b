"""Random histories of a sandbox and of production, and an oracle that merges them in memory."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import psycopg

from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.changeset.rows import Cell, Key, ProvisionalKey, RowChange, RowKind
from orchestrator.core.changeset.shape import TableName
from tests.support.proposals import Rows

ACTIONS = ("NO ACTION", "RESTRICT", "CASCADE", "SET NULL")
PEOPLE, ORDERS, TAGS = (TableName("public", name) for name in ("people", "orders", "tags"))
NAMES = [f"n{number}" for number in range(8)]


@dataclass
class History:
    """One schema, one starting state and two lists of statements."""

    ddl: list[str]
    sandbox: list[str] = field(default_factory=list)
    production: list[str] = field(default_factory=list)


def make_history(seed: int) -> History:
    dice = random.Random(seed)
    history = History(_schema(dice))
    touched: list[int] = []
    for _ in range(dice.randint(2, 9)):
        key = dice.randint(1, 7)
        touched.append(key)
        history.sandbox.append(_statement(dice, key, letter="s"))
    for _ in range(dice.choice((0, 0, 1, 2, 4))):
        key = dice.choice(touched) if dice.random() < 0.7 else dice.randint(1, 8)
        history.production.append(_statement(dice, key, letter="p"))
    return history


def _schema(dice: random.Random) -> list[str]:
    def defer() -> str:
        return dice.choice(("", "", "DEFERRABLE", "DEFERRABLE INITIALLY DEFERRED"))

    unique = dice.choice(("", "", "NOT NULL"))
    identity = dice.choice(("BY DEFAULT AS IDENTITY", "ALWAYS AS IDENTITY"))
    key = f"bigint GENERATED {identity} PRIMARY KEY" if dice.random() < 0.7 else "serial PRIMARY KEY"
    return [
        f"CREATE TABLE people (id {key}, code text {unique} UNIQUE {dice.choice(('', '', 'DEFERRABLE'))}, "
        "name text, boss bigint, main_order bigint)",
        "CREATE TABLE orders (id serial PRIMARY KEY, person bigint, tag text, total numeric(8,2) DEFAULT 0, "
        "UNIQUE (person, tag))",
        "CREATE TABLE tags (tag text PRIMARY KEY, note json)",
        "INSERT INTO people (code, name) SELECT 'c' || i, 'n' || i FROM generate_series(1, 6) i",
        "INSERT INTO tags SELECT 't' || i, '{\"a\": 1}' FROM generate_series(1, 4) i",
        "INSERT INTO orders (person, tag, total) SELECT i % 5 + 1, 't' || (i % 3 + 1), i FROM generate_series(1, 6) i",
        "UPDATE people SET main_order = id WHERE id IN (2, 3)",
        "UPDATE people SET boss = 1 WHERE id IN (2, 4)",
        "ALTER TABLE people ADD CONSTRAINT boss FOREIGN KEY (boss) REFERENCES people "
        f"ON DELETE {dice.choice(ACTIONS)} {defer()}",
        f"ALTER TABLE people ADD CONSTRAINT main FOREIGN KEY (main_order) REFERENCES orders "
        f"ON DELETE {dice.choice(ACTIONS)} {defer()}",
        f"ALTER TABLE orders ADD CONSTRAINT person FOREIGN KEY (person) REFERENCES people "
        f"ON DELETE {dice.choice(ACTIONS)} {defer()}",
        f"ALTER TABLE orders ADD CONSTRAINT tag FOREIGN KEY (tag) REFERENCES tags "
        f"ON DELETE {dice.choice(ACTIONS)} ON UPDATE {dice.choice(('CASCADE', 'NO ACTION'))} {defer()}",
    ]


def _statement(dice: random.Random, key: int, *, letter: str) -> str:
    other = dice.randint(1, 7)
    return dice.choice(
        (
            f"UPDATE people SET name = '{letter}{dice.randint(0, 3)}' WHERE id = {key}",
            f"UPDATE people SET name = '{dice.choice(NAMES)}' WHERE id = {key}",
            f"UPDATE people SET code = '{letter}{dice.randint(0, 5)}' WHERE id = {key}",
            f"UPDATE people SET code = 'moving' WHERE id = {key}; UPDATE people SET code = 'c{key}' WHERE id = {other}",
            f"UPDATE people SET code = 'x' WHERE id = {key}; UPDATE people SET code = 'c{key}' WHERE id = {other}; "
            f"UPDATE people SET code = 'c{other}' WHERE id = {key}",
            f"UPDATE people SET boss = {other} WHERE id = {key}",
            f"UPDATE people SET main_order = {other} WHERE id = {key}",
            f"DELETE FROM people WHERE id = {key}",
            f"DELETE FROM orders WHERE id = {key}",
            f"DELETE FROM tags WHERE tag = 't{key}'",
            f"UPDATE orders SET total = total + {dice.randint(1, 3)} WHERE id = {key}",
            f"UPDATE orders SET person = {other} WHERE id = {key}",
            f"UPDATE orders SET tag = 't{other}' WHERE id = {key}",
            f"UPDATE tags SET note = '{{\"b\":{other}}}' WHERE tag = 't{key}'",
            f"UPDATE tags SET tag = 'u{other}' WHERE tag = 't{key}'",
            f"INSERT INTO tags VALUES ('{letter}{dice.randint(0, 2)}', '1')",
            f"INSERT INTO tags VALUES ('both{dice.randint(0, 1)}', '{{\"both\": 1}}')",
            f"INSERT INTO people (code, name, boss) VALUES ('{letter}new{dice.randint(0, 9)}', 'new', {key})",
            f"WITH p AS (INSERT INTO people (code, name) VALUES ('{letter}q{dice.randint(0, 9)}', 'q') RETURNING id), "
            "o AS (INSERT INTO orders (person, total) SELECT id, 7 FROM p RETURNING id, person) SELECT FROM o",
            f"INSERT INTO orders (person, tag, total) VALUES ({key}, 't{other % 4 + 1}', 5)",
            f"UPDATE people SET boss = (SELECT max(id) FROM people) WHERE id = {key}",
            f"UPDATE people SET main_order = (SELECT max(id) FROM orders) WHERE id = {key}",
        )
    )


def run(dsn: str, statements: list[str]) -> None:
    """Each statement in a transaction of its own; one the constraints refuse changes nothing."""
    with psycopg.connect(dsn) as connection:
        for statement in statements:
            try:
                connection.execute(statement.encode())
                connection.commit()
            except psycopg.Error:
                connection.rollback()


State = dict[TableName, Rows]
# name → (table, columns, target, target columns)
REFERENCES = {
    "boss": (PEOPLE, "boss", PEOPLE, "id"),
    "main": (PEOPLE, "main_order", ORDERS, "id"),
    "person": (ORDERS, "person", PEOPLE, "id"),
    "tag": (ORDERS, "tag", TAGS, "tag"),
}
UNIQUES = {PEOPLE: [("code",)], ORDERS: [("person", "tag")], TAGS: []}


@dataclass
class Verdict:
    """What must happen: either refused, for these reasons, or this final state (new keys still provisional)."""

    refused: list[str]
    state: State


def judge(changeset: Changeset, now: State, no_action: frozenset[str]) -> Verdict:
    """Merge in memory, with no regard for order, and check what stands at the end."""
    reasons: list[str] = []
    merged: State = {name: {key: dict(row) for key, row in rows.items()} for name, rows in now.items()}
    arriving: list[tuple[TableName, Key, dict[str, Cell]]] = []
    leaving: list[tuple[TableName, dict[str, object], bool]] = []
    for change in changeset.rows:
        row = now[change.table].get(change.key)
        if change.kind is RowKind.INSERT:
            reasons += _arrive(change, row, arriving)
        elif row is None:
            reasons += [f"gone {change.key}"] if change.kind is RowKind.UPDATE else []
        elif change.kind is RowKind.DELETE:
            reasons += [] if dict(row) == dict(change.old or {}) else [f"changed {change.key}"]
            merged[change.table].pop(change.key, None)
            leaving.append((change.table, dict(row), True))
        else:
            reasons += _update(change, row, merged[change.table][change.key])
    for name, key, row in arriving:
        reasons += [f"taken {key}"] if key in merged[name] else []
        merged[name][key] = row
    reasons += _unseen(changeset, now, merged, leaving, no_action)
    reasons += _invalid(merged)
    return Verdict(reasons, merged)


def _arrive(change: RowChange, row: dict[str, Cell] | None, arriving: list[Any]) -> list[str]:
    is_numbered = any(isinstance(cell, ProvisionalKey) for cell in change.key)
    if row is None or is_numbered:
        arriving.append((change.table, change.key, dict(change.new or {})))
        return []
    return [] if dict(row) == dict(change.new or {}) else [f"exists {change.key}"]


def _update(change: RowChange, row: dict[str, Cell], merged: dict[str, Cell]) -> list[str]:
    old, new, reasons = change.old or {}, change.new or {}, []
    for name in change.changed_columns:
        if row[name] not in (old[name], new[name]):
            reasons.append(f"cell {change.key} {name}")
        merged[name] = new[name]
    return reasons


def _unseen(changeset, now, merged, leaving, no_action) -> list[str]:
    handled = set()
    for change in changeset.rows:
        if change.kind is RowKind.DELETE:
            handled.add((change.table, change.key, None))
        elif change.kind is RowKind.UPDATE:
            handled |= {(change.table, change.key, name) for name in change.changed_columns}
    reasons = []
    for table, row, _ in leaving:
        for name, (child, column, target, target_column) in REFERENCES.items():
            if target != table or row[target_column] is None:
                continue
            again = any(other[target_column] == row[target_column] for other in merged[target].values())
            if again and name in no_action:
                continue
            for key, candidate in now[child].items():
                seen = (child, key, None) in handled or (child, key, column) in handled
                if candidate[column] == row[target_column] and not seen:
                    reasons.append(f"unseen child {child} {key} of {table}")
    return reasons


def _invalid(state: State) -> list[str]:
    reasons = []
    for name, uniques in UNIQUES.items():
        for columns in uniques:
            seen: set[tuple[object, ...]] = set()
            for row in state[name].values():
                values = tuple(row[column] for column in columns)
                if None not in values and values in seen:
                    reasons.append(f"twice {name} {values}")
                seen.add(values)
    for child, column, target, target_column in REFERENCES.values():
        present = {row[target_column] for row in state[target].values()}
        reasons += [
            f"orphan {child} {row[column]!r}"
            for row in state[child].values()
            if row[column] is not None and row[column] not in present
        ]
    return reasons


def with_assigned(state: State, assigned: dict[str, dict[str, str]]) -> dict[TableName, list[dict[str, object]]]:
    """The expected state once production's keys stand in place of the provisional ones."""

    def settle(cell: object) -> object:
        if isinstance(cell, ProvisionalKey):
            return assigned[f"{cell.table}.{cell.column}"][cell.text]
        return cell

    return {
        name: sorted(({column: settle(cell) for column, cell in row.items()} for row in rows.values()), key=repr)
        for name, rows in state.items()
    }
