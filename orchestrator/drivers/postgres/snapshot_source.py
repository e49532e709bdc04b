"""Reading a source: facts first, then a parallel dump in one database snapshot."""

from __future__ import annotations

import os
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from psycopg import sql

from orchestrator.core.ports.engine import Engine, Mount, NetworkSpec
from orchestrator.core.ports.servers import ServerSpec
from orchestrator.core.ports.snapshots import (
    DumpDamaged,
    Dumped,
    Progress,
    SnapshotFailed,
    Source,
    SourceFacts,
    SourceRefused,
    SourceUnreachable,
)
from orchestrator.drivers.postgres import snapshot_facts as catalog
from orchestrator.drivers.postgres.reaching import PASSWORD_FILE, way_to
from orchestrator.drivers.postgres.tools import Binaries, ToolFailed, ToolRun, run_tool

DUMP_TIMEOUT_S = 6 * 3600.0
DUMP = "/dump"
# Left out: who owned and might do what in production means nothing here, and nothing may call home from a copy.
LEAVE_OUT = ("--no-owner", "--no-privileges", "--no-tablespaces", "--no-publications", "--no-subscriptions",
             "--no-security-labels")  # fmt: skip


class SourceReader:
    """`network` is joined by the dumping container when the mirror is reached over TCP, at `network_address`."""

    def __init__(
        self,
        engine: Engine,
        binaries: Binaries,
        *,
        network: NetworkSpec | None = None,
        network_address: str = "",
        jobs: int = 2,
    ) -> None:
        self.engine = engine
        self.binaries = binaries
        self.network = network
        self.network_address = network_address
        self.jobs = jobs

    def inspect(self, spec: ServerSpec, source: Source) -> SourceFacts:
        """Raises SourceUnreachable, SourceRefused or DumpDamaged."""
        if source.dsn is None:
            if source.dump is None:
                raise DumpDamaged("The source names neither a server nor a dump.")
            return self._inspect_dump(spec, source.dump)
        return read_facts(source.dsn, source.password)

    def dump(self, spec: ServerSpec, source: Source, facts: SourceFacts, progress: Progress) -> Dumped:
        """Count and dump in one exported database snapshot, in parallel."""
        target = dump_path(spec)
        if source.dsn is None:
            return Dumped(target, facts.taken_at or datetime.now(UTC), {})
        fresh_directory(target, spec.uid)
        with catalog.source_connection(source.dsn, source.password) as connection:
            for name in ("statement_timeout", "idle_in_transaction_session_timeout", "lock_timeout"):
                connection.execute(sql.SQL("SET {} = 0").format(sql.Identifier(name)))
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            exported, taken_at = _one(
                connection,
                "SELECT pg_export_snapshot(), coalesce(CASE WHEN pg_is_in_recovery()"
                " THEN pg_last_xact_replay_timestamp() END, now())",
            )
            self._run_dump(spec, source, facts, exported, progress)
            progress(0.9, "counting rows in the source")
            rows = row_counts(connection)
        return Dumped(target, taken_at, rows)

    def _run_dump(
        self, spec: ServerSpec, source: Source, facts: SourceFacts, exported: str, progress: Progress
    ) -> None:
        secret = spec.data.parent / "source.pgpass"
        write_secret(secret, _pgpass(source.password), spec.uid)
        standby = ("--no-unlogged-table-data",) if any("unlogged" in left for left in facts.left_out) else ()
        size = max(facts.size_bytes, 1)

        def tick() -> None:
            written = sum(file.stat().st_size for file in dump_path(spec).glob("*"))
            progress(min(0.89, 0.9 * written / size), f"read {written >> 20} MB")

        options = (
            "--format=directory",
            f"--file={DUMP}/d",
            f"--jobs={self.jobs}",
            "--compress=0",
            "--no-blobs",
            f"--snapshot={exported}",
            "--lock-wait-timeout=60000",
            *LEAVE_OUT,
            *standby,
        )
        reached = way_to(
            source.dsn or "",
            engine=self.engine,
            network=self.network,
            network_address=self.network_address,
            folder=spec.data.parent / "mirror",
            uid=spec.uid,
        )
        try:
            with reached as way:
                run = ToolRun(
                    name=f"{spec.name}-dump",
                    image=spec.image,
                    program="pg_dump",
                    arguments=(*options, f"--dbname={way.dsn}"),
                    uid=spec.uid,
                    mounts=(
                        Mount(dump_path(spec), DUMP),
                        Mount(secret, PASSWORD_FILE, read_only=True),
                        *way.mounts,
                    ),
                    environment={"PGPASSFILE": PASSWORD_FILE, "PGCONNECT_TIMEOUT": "10"},
                    networks=way.networks,
                    timeout_s=DUMP_TIMEOUT_S,
                )
                run_tool(self.engine, self.binaries, run, on_tick=tick)
        except ToolFailed as error:
            raise _dump_failed(error) from error
        finally:
            secret.unlink(missing_ok=True)

    def _inspect_dump(self, spec: ServerSpec, given: Path) -> SourceFacts:
        """Copy a given dump into the workshop and read its table of contents and the head of its schema."""
        target = dump_path(spec)
        fresh_directory(target, spec.uid)
        copy_dump(given, target, spec.uid)
        contents = self._read_dump(spec, "--list")
        self._read_dump(spec, "--schema-only", "--file=/dump/schema.sql")
        text = (target / "schema.sql").read_text(errors="replace")
        (target / "schema.sql").unlink()
        encoding = _found(r"client_encoding = '([^']+)'", text) or "UTF8"
        made = _found(r"Archive created at (\S+ \S+)", contents)
        version = _found(r"Dumped from database version: (\S+)", contents) or "0"
        is_unicode = encoding.upper() in ("UTF8", "UNICODE")
        return SourceFacts(
            version=version,
            major=int(version.split(".")[0]),
            encoding=encoding,
            collate="C.UTF-8" if is_unicode else "C",
            ctype="C.UTF-8" if is_unicode else "C",
            provider="c",
            locale=None,
            extensions=dict.fromkeys(re.findall(r"^\d+; \d+ \d+ EXTENSION - (\S+)", contents, re.M), ""),
            collations=frozenset(re.findall(r'COLLATE pg_catalog\."([^"]+)"', text)),
            columns=(),
            roles=tuple(sorted(set(re.findall(r"^CREATE POLICY .* TO (\w+)", text, re.M)) - {"PUBLIC"})),
            left_out=tuple(f"event trigger {name}" for name in re.findall(r"^CREATE EVENT TRIGGER (\S+)", text, re.M)),
            size_bytes=sum(file.stat().st_size for file in target.rglob("*") if file.is_file()),
            taken_at=datetime.fromisoformat(made).replace(tzinfo=UTC) if made else _changed(given),
        )

    def _read_dump(self, spec: ServerSpec, *arguments: str) -> str:
        try:
            return run_tool(
                self.engine,
                self.binaries,
                ToolRun(
                    name=f"{spec.name}-list",
                    image=spec.image,
                    program="pg_restore",
                    arguments=(*arguments, f"{DUMP}/d"),
                    uid=spec.uid,
                    mounts=(Mount(dump_path(spec), DUMP),),
                    environment={"TZ": "UTC"},
                    timeout_s=300.0,
                ),
            )
        except ToolFailed as error:
            raise dump_damaged(catalog.without_values(error.effect)) from None


def dump_path(spec: ServerSpec) -> Path:
    """Beside the builder's data directory; the dump itself is `d` in it."""
    return spec.data.parent / "dump"


def row_counts(connection: catalog.Connected) -> dict[str, int]:
    """Exact counts of every table, partitions in their root's."""
    counts = {}
    for name in catalog.table_names(connection):
        schema, _, table = name.partition(".")
        counts[name] = _one(connection, sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(schema, table)))[0]
    return counts


def fresh_directory(path: Path, uid: int) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    path.chmod(0o700)
    if path.stat().st_uid != uid:
        os.chown(path, uid, uid)


def copy_dump(given: Path, target: Path, uid: int) -> None:
    """Raises DumpDamaged when it is missing or plain SQL."""
    copy = target / "d"
    if given.is_dir():
        shutil.copytree(given, copy)
    elif given.is_file():
        with given.open("rb") as file:
            if file.read(5) != b"PGDMP" and given.suffix != ".tar":
                raise DumpDamaged(
                    f"{given} is not a dump pg_restore can read.",
                    next_step="Make it with `pg_dump --format=custom` or `--format=directory`; plain SQL is not taken.",
                )
        shutil.copyfile(given, copy)
    else:
        raise DumpDamaged(f"There is no dump at {given}.")
    for path in (copy, *copy.rglob("*")):
        os.chown(path, uid, uid)
        path.chmod(0o700 if path.is_dir() else 0o600)


def write_secret(path: Path, text: str, uid: int) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)
    if path.stat().st_uid != uid:
        os.chown(path, uid, uid)


def dump_damaged(text: str) -> DumpDamaged:
    return DumpDamaged(
        "The dump cannot be read to its end: it is cut off or corrupt.",
        effect=text[-800:],
        next_step="Make it again; the last good snapshot stays in force.",
    )


def read_facts(dsn: str, password: str | None) -> SourceFacts:
    """What a server has, in one read-only transaction. Raises SourceUnreachable or SourceRefused."""
    with catalog.source_connection(dsn, password) as connection:
        connection.execute("SET search_path = ''")
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        return _facts(connection)


def _facts(connection: catalog.Connected) -> SourceFacts:
    version = str(_one(connection, "SHOW server_version")[0])
    major = connection.info.server_version // 10000
    provider = "'c'" if major < 15 else "datlocprovider"
    locale = "NULL" if major < 15 else ("daticulocale" if major < 17 else "datlocale")
    encoding, collate, ctype, found_provider, found_locale, size = _one(
        connection,
        f"SELECT pg_encoding_to_char(encoding), datcollate, datctype, {provider}, {locale}, pg_database_size(oid)"
        " FROM pg_catalog.pg_database WHERE datname = current_database()",
    )
    for query, lack, cure in (
        (catalog.UNREADABLE, "may not read", "GRANT USAGE ON SCHEMA and SELECT ON ALL TABLES IN SCHEMA to it"),
        (catalog.ROW_SECURITY, "is under row security for", "ALTER ROLE … BYPASSRLS for it"),
    ):
        names = [row[0] for row in connection.execute(query)]
        if names:
            raise SourceRefused(
                f"The mirror's credential {lack} {len(names)} table(s): {', '.join(names[:10])}.",
                effect="Nothing was read: a snapshot has every row of every table.",
                next_step=f"{cure}; configs/production-roles.sql has all it needs.",
            )
    return SourceFacts(
        version=version,
        major=major,
        encoding=encoding,
        collate=collate,
        ctype=ctype,
        provider=found_provider,
        locale=found_locale,
        extensions=dict(
            connection.execute("SELECT extname, extversion FROM pg_catalog.pg_extension WHERE extname <> 'plpgsql'")
        ),
        collations=frozenset(
            row[0]
            for row in connection.execute(
                "SELECT DISTINCT c.collname FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_collation c"
                " ON c.oid = a.attcollation JOIN pg_catalog.pg_class r ON r.oid = a.attrelid"
                " WHERE r.oid >= 16384 AND c.oid < 16384 AND c.collname <> 'default' AND NOT a.attisdropped"
            )
        ),
        columns=catalog.columns(connection),
        roles=tuple(
            row[0]
            for row in connection.execute(
                "SELECT DISTINCT r.rolname FROM pg_catalog.pg_policy p, pg_catalog.pg_roles r"
                " WHERE r.oid = ANY (p.polroles)"
            )
        ),
        left_out=tuple(row[0] for row in connection.execute(catalog.LEFT_OUT)),
        size_bytes=size,
        taken_at=None,
        settings=tuple(connection.execute(catalog.SETTINGS, (list(catalog.CARRIED_SETTINGS),)).fetchall()),
        excess=tuple(row[0] for row in connection.execute(catalog.EXCESS)),
    )


def _one(connection: catalog.Connected, query: Any) -> tuple[Any, ...]:
    row = connection.execute(query).fetchone()
    return tuple(row or ())


def _pgpass(password: str | None) -> str:
    if password is None:
        return ""
    escaped = password.replace("\\", "\\\\").replace(":", "\\:")
    return f"*:*:*:*:{escaped}\n"


def _dump_failed(error: ToolFailed) -> SnapshotFailed:
    if catalog.NO_SPACE in error.effect:
        raise catalog.disk_full("reading the mirror") from error
    lost = ("server closed the connection", "could not connect", "connection to server", "terminating connection")
    if any(sign in error.effect for sign in lost):
        return SourceUnreachable(
            "The mirror was lost while it was being read, or the container that reads it cannot reach it.",
            effect=error.effect[-800:],
            next_step="Containers reach it by its address from the network in configs/networks.yaml (edge): let it"
            " through this host's firewall and into the mirror's pg_hba.conf.",
        )
    if "SSL support is not compiled in" in error.effect or "sslmode value" in error.effect:
        return SnapshotFailed(
            "The tenants' PostgreSQL image has no TLS, which the mirror's address asks for.",
            effect=error.effect[-400:],
            next_step="Name an official image (postgres:18) under images.postgres, then make setup.",
        )
    return SnapshotFailed("Reading the mirror failed.", effect=error.effect[-800:])


def _found(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text)
    return match.group(1) if match else None


def _changed(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)
