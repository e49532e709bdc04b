"""ShadowDB: one tenant's rows of production in a sandbox of their own, and the guarded way back."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Protocol

import sqlalchemy as sa
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session

from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.changeset.joining import TextCells, join_rows
from orchestrator.core.changeset.provisional import mark_provisional
from orchestrator.core.changeset.rows import RowChange
from orchestrator.core.changeset.shape import TableName, TableShape
from orchestrator.core.names import new_id
from orchestrator.core.rowmodels import RowModels
from orchestrator.errors import Conflict
from orchestrator.shadow.changeset import ShadowChangeset
from orchestrator.shadow.committing import CommitResult, commit
from orchestrator.shadow.errors import InvalidRows, InvalidShadow, ShadowTooLarge
from orchestrator.shadow.memory import MemorySandbox
from orchestrator.shadow.postgres import PostgresSandbox
from orchestrator.shadow.production import (
    DEFAULT_SCHEMA,
    ProductionTables,
    Scope,
    check_dialect,
    is_postgres,
    pin,
    read_rows,
    read_tables,
    stored_columns,
    table_of,
)
from orchestrator.shadow.scratch import ScratchServer, find_binaries

ROWS_MAX = 200_000


class ShadowSpent(Conflict):
    """A sandbox is committed once; afterwards its base is no longer production's state."""

    code = "conflict.shadow_spent"


class Sandbox(Protocol):
    engine: Engine

    def load(self, shape: TableShape, rows: Iterable[TextCells]) -> int: ...

    def ready(self) -> None: ...

    def rows(self, shape: TableShape) -> Iterable[TextCells]: ...

    def parameters(self, given: Any) -> Any: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class CloneStats:
    """How many rows of each table were copied, and how long it took."""

    rows: Mapping[str, int]
    duration_s: float

    @property
    def total(self) -> int:
        return sum(self.rows.values())


class ShadowDB:
    """Copies `tables` (rows with `tenant_column` = `tenant_id`) into a sandbox, and writes back what was accepted.

        with ShadowDB(engine, tables=["customers", "orders"], tenant_id=7, tenant_column="tenant_id") as sandbox:
            sandbox.execute("UPDATE orders SET status = 'paid' WHERE id = :id", {"id": 12})
            changes = sandbox.diff()
            changes.print()
            if changes.is_valid:
                sandbox.commit_to_production(changes)

    `reference_tables` lack the tenant column: copied whole, only read. `sandbox` is "memory" (SQLite), "postgres" (a
    scratch server, for a PostgreSQL production) or "auto": postgres where it can be started. Without a
    `tenant_column` every row is copied and may be changed. `scratch` is a started ScratchServer to share between
    sandboxes, which saves a second each. Nothing touches production before `commit_to_production`.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        tables: Sequence[str | sa.Table | type],
        tenant_id: Any = None,
        tenant_column: str | None = None,
        reference_tables: Sequence[str | sa.Table | type] = (),
        sandbox: Literal["auto", "memory", "postgres"] = "auto",
        scratch: ScratchServer | None = None,
        models: RowModels | None = None,
        rows_max: int = ROWS_MAX,
    ) -> None:
        check_dialect(engine)
        if tenant_column is not None and tenant_id is None:
            raise InvalidShadow("A tenant column needs a tenant id.", next_step="Pass tenant_id.")
        if sandbox == "postgres" and not is_postgres(engine):
            raise InvalidShadow("A scratch PostgreSQL can only hold rows of a PostgreSQL.", next_step='Use "memory".')
        self._engine = engine
        self._names = [_name(table) for table in tables]
        self._reference_names = [_name(table) for table in reference_tables]
        self._scope = Scope(tenant_column, tenant_id)
        self._kind = sandbox
        self._scratch = scratch
        self._models = models
        self._rows_max = rows_max
        self._sandbox: Sandbox | None = None
        self._production: ProductionTables | None = None
        self._base: dict[TableName, list[TextCells]] = {}
        self._base_id = new_id("x")
        self._stats = CloneStats({}, 0.0)
        self._spent = False

    def __enter__(self) -> ShadowDB:
        started = time.monotonic()
        rows: dict[str, int] = {}
        with self._engine.connect() as connection:
            if is_postgres(connection):
                connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            pin(connection)
            tables = read_tables(connection, [*self._names, *self._reference_names])
            self._check_scope(tables)
            self._sandbox = self._make_sandbox(connection, tables)
            try:
                for shape in tables.shapes.values():
                    copied = self._copy(connection, shape)
                    rows[_label(shape.table)] = self._sandbox.load(shape, copied)
                self._sandbox.ready()
            except BaseException:
                self._sandbox.close()
                raise
            connection.rollback()
        self._production = tables
        self._stats = CloneStats(rows, time.monotonic() - started)
        return self

    def _make_sandbox(self, connection: sa.Connection, tables: ProductionTables) -> Sandbox:
        if is_postgres(connection) and (
            self._kind == "postgres" or (self._kind == "auto" and find_binaries() is not None)
        ):
            try:
                return PostgresSandbox(tables.shapes, self._scratch)
            except InvalidShadow:
                if self._kind == "postgres":
                    raise
        return MemorySandbox(connection, tables.shapes)

    def _check_scope(self, tables: ProductionTables) -> None:
        references = set(self._reference_names)
        for shape in tables.shapes.values():
            if self._scope.column is not None and not self._scope.holds(shape) and shape.table not in references:
                raise InvalidShadow(
                    f"{shape.table} has no column {self._scope.column}.",
                    next_step="Name it in reference_tables: it is then copied whole and only read.",
                )

    def _copy(self, connection: sa.Connection, shape: TableShape) -> Iterator[TextCells]:
        condition = None
        if self._scope.holds(shape) and self._scope.column is not None:
            table = table_of(shape, postgres=is_postgres(connection))
            condition = table.c[self._scope.column] == self._scope.value
        kept = self._base.setdefault(shape.table, [])
        for cells in read_rows(connection, shape, condition):
            kept.append(cells)
            if len(kept) > self._rows_max:
                raise ShadowTooLarge(
                    f"{shape.table} has more than {self._rows_max:,} rows of this tenant.",
                    next_step="Raise rows_max, or use a sandbox with a database of its own.",
                )
            yield cells

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._sandbox is not None:
            self._sandbox.close()
            self._sandbox = None

    @property
    def engine(self) -> Engine:
        """The sandbox's own engine. Raises InvalidShadow outside the `with` block."""
        return self._open().engine

    def _open(self) -> Sandbox:
        if self._sandbox is None:
            raise InvalidShadow("The sandbox is closed.", next_step="Use it inside its `with` block.")
        return self._sandbox

    def execute(self, statement: str | sa.Executable, parameters: Any = None) -> int:
        """Run a statement in the sandbox and commit it there. Returns how many rows it met (-1 if that is unknown)."""
        with self.engine.begin() as connection:
            result = connection.execute(_executable(statement), self._plain(statement, parameters))
            return int(getattr(result, "rowcount", -1))

    def query(self, statement: str | sa.Executable, parameters: Any = None) -> list[dict[str, Any]]:
        """Rows of a query in the sandbox as dictionaries."""
        given = self._plain(statement, parameters)
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(_executable(statement), given).mappings()]

    def _plain(self, statement: str | sa.Executable, parameters: Any) -> Any:
        """Parameters of plain SQL carry no type to convert them by."""
        is_plain = isinstance(statement, str | sa.TextClause)
        return self._open().parameters(parameters) if is_plain else parameters

    @contextmanager
    def session(self) -> Iterator[Session]:
        """An ORM session on the sandbox; committed at the end, rolled back on an error."""
        with Session(self.engine) as session, session.begin():
            yield session

    @property
    def tables(self) -> dict[str, sa.Table]:
        """The sandbox's tables, reflected, by name."""
        metadata = sa.MetaData()
        postgres = is_postgres(self.engine)
        found: dict[str, sa.Table] = {}
        for name in self._tables().shapes:
            schema = name.schema if postgres else None
            found[_label(name)] = sa.Table(
                name.name, metadata, schema=schema, autoload_with=self.engine, resolve_fks=False
            )
        return found

    @property
    def clone_stats(self) -> CloneStats:
        return self._stats

    def _tables(self) -> ProductionTables:
        self._open()
        if self._production is None:
            raise InvalidShadow("The sandbox is closed.")
        return self._production

    def diff(self) -> ShadowChangeset:
        """What differs from the copied rows now."""
        shapes = self._tables().shapes
        changes: list[RowChange] = []
        for name, shape in shapes.items():
            names = [column.name for column in stored_columns(shape)]
            changes += join_rows(shape, names, self._base.get(name, ()), self._open().rows(shape))
        content = Changeset.build(self._base_id, shapes, mark_provisional(shapes, changes))
        return ShadowChangeset(content, self._scope, self._models)

    def commit_to_production(self, changeset: ShadowChangeset | None = None) -> CommitResult:
        """Write exactly `changeset` (by default what differs now) in one transaction of production.

        Raises InvalidRows for broken rules, CommitConflict when production moved or refuses, ShadowSpent after a
        commit; nothing is written then.
        """
        tables = self._tables()
        if self._spent:
            raise ShadowSpent("This sandbox has been committed.", next_step="Open a new one for further work.")
        wanted = self.diff() if changeset is None else changeset
        if wanted.content.base_snapshot_id != self._base_id or wanted.scope != self._scope:
            raise InvalidShadow("The difference was taken from another sandbox.", next_step="Take it from this one.")
        violations = wanted.validate_all()
        if violations:
            raise InvalidRows(violations)
        result = commit(self._engine, tables, wanted.content, self._scope)
        self._spent = not wanted.is_empty
        return result


def _name(table: str | sa.Table | type) -> TableName:
    if isinstance(table, type):
        table = sa.inspect(table).local_table
    if isinstance(table, sa.Table):
        return TableName(table.schema or DEFAULT_SCHEMA, table.name)
    try:
        return TableName.parse(str(table), schema=DEFAULT_SCHEMA)
    except ValueError as error:
        raise InvalidShadow(f"{table!r} is not a table name.") from error


def _label(name: TableName) -> str:
    return name.name if name.schema == DEFAULT_SCHEMA else f"{name.schema}.{name.name}"


def _executable(statement: str | sa.Executable) -> sa.Executable:
    return sa.text(statement) if isinstance(statement, str) else statement
