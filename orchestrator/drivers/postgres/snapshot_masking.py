"""Filtering, masking and rewriting inside the builder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.core.masking import statements
from orchestrator.core.masking.plan import MaskingPlan
from orchestrator.core.masking.statements import quoted, quoted_table
from orchestrator.core.ports.servers import APP_DATABASE, ServerSpec
from orchestrator.core.ports.snapshots import Masked, Progress, ReferencesBroken, SnapshotFailed
from orchestrator.drivers.postgres.snapshot_builder import Builder
from orchestrator.drivers.postgres.snapshot_facts import Connected

CASCADE_ROUNDS_MAX = 100
FOREIGN_KEYS = """
    SELECT cn.nspname || '.' || c.relname, pn.nspname || '.' || p.relname, k.confdeltype::text,
           ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u (num, i)
                 JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num ORDER BY u.i),
           ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u (num, i)
                 JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.num ORDER BY u.i),
           (SELECT bool_or(a.attnotnull) FROM pg_catalog.pg_attribute a
            WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey))
    FROM pg_catalog.pg_constraint k
    JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace cn ON cn.oid = c.relnamespace
    JOIN pg_catalog.pg_class p ON p.oid = k.confrelid JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
    WHERE k.contype = 'f' AND NOT c.relispartition AND NOT p.relispartition ORDER BY 1, 2, k.conname"""


@dataclass(frozen=True)
class ForeignKey:
    child: str
    parent: str
    on_delete: str
    child_columns: tuple[str, ...]
    parent_columns: tuple[str, ...]
    is_not_null: bool

    @property
    def orphans(self) -> str:
        """The condition of a child row `c` whose parent is missing; a reference with a NULL in it refers to nothing."""
        given = " AND ".join(f"c.{quoted(name)} IS NOT NULL" for name in self.child_columns)
        pairs = zip(self.child_columns, self.parent_columns, strict=True)
        equal = " AND ".join(f"p.{quoted(parent)} = c.{quoted(child)}" for child, parent in pairs)
        return f"{given} AND NOT EXISTS (SELECT FROM {quoted_table(self.parent)} p WHERE {equal})"


class Masker:
    """Masks the builder's database in one session, with triggers and foreign keys switched off and checked after."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder

    def mask(self, spec: ServerSpec, plan: MaskingPlan, key: bytes, progress: Progress) -> Masked:
        """Sample the clear text, filter, mask, check references, refresh materialized views."""
        with self.builder.connection(spec, APP_DATABASE, "masking") as connection:
            partitioned = _partitioned(connection)
            _open_session(connection, key)
            samples = _samples(connection, plan, partitioned)
            keys = [_foreign_key(*row) for row in connection.execute(FOREIGN_KEYS)]
            shrunk = _filter(connection, plan, keys, partitioned, progress)
            for number, (table, columns) in enumerate(plan.masked.items()):
                progress(0.3 + 0.5 * number / len(plan.masked), f"masking {table}")
                connection.execute(statements.update(table, columns, is_partitioned=table in partitioned))
            progress(0.8, "checking references")
            _check_references(connection, keys, plan, shrunk)
            progress(0.9, "refreshing materialized views")
            views = connection.execute(
                "SELECT format('REFRESH MATERIALIZED VIEW %I.%I', schemaname, matviewname)"
                " FROM pg_catalog.pg_matviews ORDER BY 1"
            ).fetchall()
            for (statement,) in views:
                connection.execute(statement)
        return Masked(samples, tuple(sorted({*plan.masked, *shrunk})))

    def rewrite(self, spec: ServerSpec, tables: Sequence[str], progress: Progress) -> None:
        """VACUUM FULL what was touched, freeze and analyze everything, then rewrite the statistics too."""
        with self.builder.connection(spec, APP_DATABASE, "rewriting masked tables") as connection:
            for number, table in enumerate(tables):
                progress(0.6 * number / max(len(tables), 1), f"rewriting {table}")
                connection.execute(f"VACUUM (FULL, FREEZE) {quoted_table(table)}")
            progress(0.6, "freezing and analyzing")
            connection.execute("VACUUM (FREEZE, ANALYZE)")
            # The statistics hold most common values; replaced ones must not stay in dead rows.
            connection.execute("VACUUM (FULL, FREEZE) pg_catalog.pg_statistic")
            connection.execute("VACUUM (FULL, FREEZE) pg_catalog.pg_statistic_ext_data")


def _foreign_key(
    child: str, parent: str, on_delete: str, child_columns: list[str], parent_columns: list[str], is_not_null: bool
) -> ForeignKey:
    return ForeignKey(child, parent, on_delete, tuple(child_columns), tuple(parent_columns), is_not_null)


def _partitioned(connection: Connected) -> set[str]:
    rows = connection.execute(
        "SELECT n.nspname || '.' || c.relname FROM pg_catalog.pg_class c"
        " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'p'"
    )
    return {row[0] for row in rows}


def _open_session(connection: Connected, key: bytes) -> None:
    inner, outer = statements.pads(key)
    connection.execute("SET session_replication_role = replica")
    connection.execute("SET search_path = pg_catalog, public")
    connection.execute(
        "SELECT set_config(%s, %s, false), set_config(%s, %s, false)",
        (statements.INNER_PAD, inner, statements.OUTER_PAD, outer),
    )
    for function in statements.functions():
        connection.execute(function)


def _samples(connection: Connected, plan: MaskingPlan, partitioned: set[str]) -> tuple[bytes, ...]:
    found: set[bytes] = set()
    for table, columns in plan.masked.items():
        for column in columns:
            query = statements.canary_query(column, is_partitioned=table in partitioned)
            if query is not None:
                found.update(bytes(row[0]) for row in connection.execute(query))
    return tuple(sorted(found))


def _filter(
    connection: Connected, plan: MaskingPlan, keys: list[ForeignKey], partitioned: set[str], progress: Progress
) -> set[str]:
    """Apply the profile's filters, then follow the foreign keys until nothing refers to a row left out."""
    shrunk: set[str] = set()
    for table in plan.profile.filters:
        progress(0.05, f"filtering {table}")
        deleted = connection.execute(statements.deletion(plan, table, is_partitioned=table in partitioned)).rowcount
        if deleted:
            shrunk.add(table)
    waiting = set(shrunk)
    for _ in range(CASCADE_ROUNDS_MAX):
        if not waiting:
            return shrunk
        parents, waiting = waiting, set()
        for key in keys:
            if key.parent not in parents | waiting:
                continue
            progress(0.15, f"following references of {key.child}")
            child = quoted_table(key.child)
            if key.on_delete == "n" and not key.is_not_null:
                columns = ", ".join(f"{quoted(name)} = NULL" for name in key.child_columns)
                if connection.execute(f"UPDATE {child} AS c SET {columns} WHERE {key.orphans}").rowcount:
                    shrunk.add(key.child)
            elif connection.execute(f"DELETE FROM {child} AS c WHERE {key.orphans}").rowcount:
                shrunk.add(key.child)
                waiting.add(key.child)
    raise SnapshotFailed(f"Rows still refer to rows left out after {CASCADE_ROUNDS_MAX} rounds.")


def _check_references(connection: Connected, keys: list[ForeignKey], plan: MaskingPlan, shrunk: set[str]) -> None:
    """Only keys that filtering or masking can have broken are looked at."""
    changed = {(table, column.fact.name) for table, columns in plan.masked.items() for column in columns}
    for key in keys:
        ends = {(key.child, name) for name in key.child_columns} | {(key.parent, name) for name in key.parent_columns}
        if not ({key.child, key.parent} & shrunk or ends & changed):
            continue
        row = connection.execute(f"SELECT count(*) FROM {quoted_table(key.child)} c WHERE {key.orphans}").fetchone()
        if row and row[0]:
            raise ReferencesBroken(
                f"{row[0]} row(s) of {key.child} refer to rows of {key.parent} that are not in the snapshot.",
                next_step="Mask both ends of a reference with the method hash, or filter the referring table too.",
            )
