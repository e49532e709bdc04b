"""The builder: an empty instance, a restored database owned by the prepared role."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

from orchestrator.core.masking.plan import ColumnFact
from orchestrator.core.ports.engine import Engine, Mount
from orchestrator.core.ports.servers import APP_DATABASE, PREPARED_ROLE, SUPERUSER, Servers, ServerSpec
from orchestrator.core.ports.snapshots import Dumped, Offer, Progress, SnapshotFailed, SourceFacts
from orchestrator.drivers.postgres import snapshot_facts as catalog
from orchestrator.drivers.postgres.roles import prepare_roles
from orchestrator.drivers.postgres.settings import RESTORER_ROLE
from orchestrator.drivers.postgres.snapshot_source import DUMP, LEAVE_OUT, dump_damaged, dump_path, row_counts
from orchestrator.drivers.postgres.tools import Binaries, ToolFailed, ToolRun, run_tool
from orchestrator.errors import OutsideFailure

RESTORE_TIMEOUT_S = 6 * 3600.0
START_TIMEOUT_S = 60.0
DAMAGED = ("could not read from input file", "unexpected end of file", "could not uncompress", "corrupt",
           "could not open input file", "could not open TOC", "not appear to be a valid archive",
           "could not find where to insert", "unrecognized data block", "invalid input", "unexpected EOF",
           "could not stat file", "could not seek")  # fmt: skip


class Builder:
    """Steps on the running builder `spec`."""

    def __init__(self, engine: Engine, servers: Servers, binaries: Binaries, *, jobs: int = 2) -> None:
        self.engine = engine
        self.servers = servers
        self.binaries = binaries
        self.jobs = jobs

    def open(self, spec: ServerSpec) -> Offer:
        """Create and start an empty instance; what an earlier try left is deleted."""
        self.servers.remove(spec.name)
        shutil.rmtree(spec.data, ignore_errors=True)
        self.servers.create(spec)
        self.servers.start(spec, timeout_s=START_TIMEOUT_S)
        with self.connection(spec, "postgres", "reading what the image offers") as connection:
            collations = connection.execute(
                "SELECT collname, collprovider::text FROM pg_catalog.pg_collation"
            ).fetchall()
            extensions = connection.execute("SELECT name FROM pg_catalog.pg_available_extensions").fetchall()
            return Offer(
                major=connection.info.server_version // 10000,
                extensions=frozenset(row[0] for row in extensions),
                collations=frozenset(row[0] for row in collations),
                locales=frozenset(row[0] for row in collations if row[1] == "c"),
            )

    def restore(self, spec: ServerSpec, dumped: Dumped, facts: SourceFacts, progress: Progress) -> None:
        """Create the database like the source's, restore, and give everything to the prepared role."""
        with self.connection(spec, "postgres", "preparing the database") as connection:
            prepare_roles(connection)
            connection.execute(f"CREATE ROLE {RESTORER_ROLE} LOGIN SUPERUSER")
            for role in facts.roles:
                connection.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(role)))
            connection.execute(_create_database(facts, connection.info.server_version // 10000))
        self._run_restore(spec, dumped, facts, progress)
        self._hand_to_prepared(spec, facts.settings)
        shutil.rmtree(dump_path(spec), ignore_errors=True)

    def columns(self, spec: ServerSpec) -> tuple[ColumnFact, ...]:
        with self.connection(spec, APP_DATABASE, "reading the catalog") as connection:
            return catalog.columns(connection)

    def row_counts(self, spec: ServerSpec) -> Mapping[str, int]:
        with self.connection(spec, APP_DATABASE, "counting rows") as connection:
            return row_counts(connection)

    @contextmanager
    def connection(self, spec: ServerSpec, database: str, what: str) -> Iterator[catalog.Connected]:
        """As superuser, every statement its own transaction. Raises SnapshotFailed or DiskFull."""
        try:
            with catalog.explained(what):
                dsn = self.servers.dsn(spec.sockets, user=SUPERUSER, database=database)
                with psycopg.connect(dsn, autocommit=True) as connection:
                    connection.execute(
                        "SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'"
                    )
                    yield connection
        except SnapshotFailed:
            # A server that could not write its log for want of space ends without telling its clients why.
            if self._ran_out_of_space(spec):
                raise catalog.disk_full(what) from None
            raise

    def _ran_out_of_space(self, spec: ServerSpec) -> bool:
        try:
            return catalog.NO_SPACE in self.engine.logs(spec.name, lines=50)
        except OutsideFailure:
            return False

    def _run_restore(self, spec: ServerSpec, dumped: Dumped, facts: SourceFacts, progress: Progress) -> None:
        dsn = self.servers.dsn(spec.sockets, database=APP_DATABASE)

        def tick() -> None:
            with psycopg.connect(dsn) as connection:
                row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
            size = int(row[0]) if row else 0
            progress(min(0.95, size / max(facts.size_bytes, 1)), f"restored {size >> 20} MB")

        try:
            run_tool(
                self.engine,
                self.binaries,
                ToolRun(
                    name=f"{spec.name}-restore",
                    image=spec.image,
                    program="pg_restore",
                    arguments=(
                        "--exit-on-error",
                        f"--jobs={self.jobs}",
                        *LEAVE_OUT,
                        f"--dbname=host=/sockets user={RESTORER_ROLE} dbname={APP_DATABASE}",
                        f"{DUMP}/d",
                    ),
                    uid=spec.uid,
                    mounts=(Mount(dumped.path, DUMP, read_only=True), Mount(spec.sockets, "/sockets")),
                    timeout_s=RESTORE_TIMEOUT_S,
                ),
                on_tick=lambda: _unless_starting(tick),
            )
        except ToolFailed as error:
            raise self._restore_failed(spec, error) from None

    def _restore_failed(self, spec: ServerSpec, error: ToolFailed) -> Exception:
        text = catalog.without_values(error.effect)
        if catalog.NO_SPACE in text or self._ran_out_of_space(spec):
            return catalog.disk_full("restoring")
        if "could not execute query" not in text and any(sign in text for sign in DAMAGED):
            return dump_damaged(text)
        return SnapshotFailed("Restoring the dump failed.", effect=text[-1200:])

    def _hand_to_prepared(self, spec: ServerSpec, settings: Sequence[tuple[str, str]]) -> None:
        with self.connection(spec, APP_DATABASE, "giving the database to its role") as connection:
            for drop in _DROPS:
                for (statement,) in connection.execute(drop).fetchall():
                    connection.execute(statement)
            connection.execute(f"REASSIGN OWNED BY {RESTORER_ROLE} TO {PREPARED_ROLE}")
            connection.execute(f"DROP OWNED BY {RESTORER_ROLE}")
            connection.execute(f"ALTER SCHEMA public OWNER TO {PREPARED_ROLE}")
            for name, value in settings:
                # FROM CURRENT spares guessing how each setting's value must be quoted.
                connection.execute("SELECT set_config(%s, %s, false)", (name, value))
                connection.execute(
                    sql.SQL("ALTER DATABASE {} SET {} FROM CURRENT").format(
                        sql.Identifier(APP_DATABASE), sql.Identifier(name)
                    )
                )
        with self.connection(spec, "postgres", "ending the restore") as connection:
            connection.execute(f"DROP ROLE {RESTORER_ROLE}")


# What needs a superuser as its owner, or reaches other servers with production's passwords.
_DROPS = (
    "SELECT format('DROP EVENT TRIGGER %I', evtname) FROM pg_catalog.pg_event_trigger",
    "SELECT format('DROP PUBLICATION %I', pubname) FROM pg_catalog.pg_publication",
    "SELECT format('DROP SERVER %I CASCADE', srvname) FROM pg_catalog.pg_foreign_server",
    "SELECT format('SELECT lo_unlink(%s)', oid) FROM pg_catalog.pg_largeobject_metadata",
)


def _unless_starting(tick: Any) -> None:
    """Progress is told as well as can be; a refused connection must not end a restore."""
    try:
        tick()
    except psycopg.Error:
        return


def _create_database(facts: SourceFacts, major: int) -> sql.Composed:
    options = {"ENCODING": facts.encoding, "LC_COLLATE": facts.collate, "LC_CTYPE": facts.ctype}
    if facts.provider == "i":
        options |= {"LOCALE_PROVIDER": "icu", "ICU_LOCALE": facts.locale or "und"}
    elif facts.provider == "b":
        options |= {"LOCALE_PROVIDER": "builtin", "BUILTIN_LOCALE": facts.locale or "C"}
    elif major >= 15:
        options["LOCALE_PROVIDER"] = "libc"
    words = sql.SQL(" ").join(
        sql.SQL("{} = {}").format(sql.SQL(name), sql.Literal(value)) for name, value in options.items()
    )
    return sql.SQL("CREATE DATABASE {} TEMPLATE template0 {}").format(sql.Identifier(APP_DATABASE), words)
