"""Sealing: stop, start once durably, trim the WAL, verify, sync; and the search for clear text."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import psycopg
from psycopg import sql

from orchestrator.core.ports.engine import Engine, Mount
from orchestrator.core.ports.servers import APP_DATABASE, ServerKind, Servers, ServerSpec
from orchestrator.core.ports.snapshots import Sealed, SnapshotFailed
from orchestrator.drivers.postgres.roles import INFO_SCHEMA, close_to_public
from orchestrator.drivers.postgres.snapshot_builder import START_TIMEOUT_S, Builder
from orchestrator.drivers.postgres.tools import Binaries, ToolRun, run_tool

CHECKSUMS_TIMEOUT_S = 1800.0
SEARCH_TIMEOUT_S = 1800.0
WAL_SEGMENT = re.compile(r"[0-9A-F]{24}")


class Sealer:
    def __init__(self, engine: Engine, servers: Servers, binaries: Binaries, builder: Builder) -> None:
        self.engine = engine
        self.servers = servers
        self.binaries = binaries
        self.builder = builder

    def seal(self, spec: ServerSpec, *, snapshot_id: str, taken_at: datetime) -> Sealed:
        """Raises SnapshotFailed when the server did not shut down cleanly or a checksum is wrong."""
        self._stamp(spec, snapshot_id, taken_at)
        self.close(spec)
        sealing = replace(spec, name=f"{spec.name}-seal", kind=ServerKind.SEAL)
        try:
            self.servers.start(sealing, timeout_s=START_TIMEOUT_S)
            with psycopg.connect(self.servers.dsn(sealing.sockets), autocommit=True) as connection:
                connection.execute("CHECKPOINT")
                connection.execute("SELECT pg_switch_wal()")
                connection.execute("CHECKPOINT")
            self.servers.stop(sealing.name)
        except psycopg.Error as error:
            raise SnapshotFailed("Sealing the snapshot failed.", effect=str(error).strip()) from error
        finally:
            self.servers.remove(sealing.name)
        control = self._control_data(spec)
        if control.get("Database cluster state") != "shut down":
            raise SnapshotFailed(
                "The snapshot's server did not shut down cleanly.", effect=control.get("Database cluster state", "")
            )
        _drop_spare_wal(spec.data / "pg_wal", control["Latest checkpoint's REDO WAL file"])
        for name in ("postmaster.opts", "postmaster.pid"):
            (spec.data / name).unlink(missing_ok=True)
        blocks = self._verify(spec)
        sync_tree(spec.data)
        return Sealed(
            origin_lsn=control["Latest checkpoint location"],
            system_id=control["Database system identifier"],
            checksummed_blocks=blocks,
        )

    def close(self, spec: ServerSpec) -> None:
        """Stop in order if it runs, then remove every container the builder may have."""
        observed = self.engine.observe(spec.name)
        if observed is not None and observed.running:
            self.servers.stop(spec.name)
        for suffix in ("", "-seal", "-initdb", "-dump", "-list", "-restore", "-control", "-checksums"):
            self.servers.remove(spec.name + suffix)

    def _stamp(self, spec: ServerSpec, snapshot_id: str, taken_at: datetime) -> None:
        """What the database says of itself; the tenant may read it and nobody may change it."""
        schema = sql.Identifier(INFO_SCHEMA)
        with self.builder.connection(spec, APP_DATABASE, "stamping the snapshot") as connection:
            for statement in (
                "CREATE SCHEMA {s}",
                "CREATE TABLE {s}.info (snapshot_id text PRIMARY KEY, taken_at timestamptz NOT NULL)",
                "REVOKE ALL ON SCHEMA {s} FROM PUBLIC",
                "GRANT USAGE ON SCHEMA {s} TO PUBLIC",
                "GRANT SELECT ON {s}.info TO PUBLIC",
            ):
                connection.execute(sql.SQL(statement).format(s=schema))
            connection.execute(sql.SQL("INSERT INTO {}.info VALUES (%s, %s)").format(schema), (snapshot_id, taken_at))
            close_to_public(connection)
            connection.execute(sql.SQL("VACUUM (FREEZE, ANALYZE) {}.info").format(schema))
            connection.execute("CHECKPOINT")

    def _control_data(self, spec: ServerSpec) -> dict[str, str]:
        output = self._tool(spec, "control", "pg_controldata", ("-D", "/data"), 60.0)
        pairs = (line.split(":", 1) for line in output.splitlines() if ":" in line)
        return {name.strip(): value.strip() for name, value in pairs}

    def _verify(self, spec: ServerSpec) -> int:
        output = self._tool(spec, "checksums", "pg_checksums", ("--check", "-D", "/data"), CHECKSUMS_TIMEOUT_S)
        found = re.search(r"Blocks scanned:\s+(\d+)", output)
        return int(found.group(1)) if found else 0

    def _tool(self, spec: ServerSpec, suffix: str, program: str, arguments: tuple[str, ...], timeout_s: float) -> str:
        run = ToolRun(
            name=f"{spec.name}-{suffix}",
            image=spec.image,
            program=program,
            arguments=arguments,
            uid=spec.uid,
            mounts=(Mount(spec.data, "/data"),),
            timeout_s=timeout_s,
        )
        return run_tool(self.engine, self.binaries, run)


def search(data: Path, samples: Sequence[bytes]) -> list[str]:
    """Names (relative to `data`) of files that hold any of `samples`. Raises SnapshotFailed.

    The samples go through a pipe: they are neither arguments nor files.
    """
    if not samples:
        return []
    try:
        found = subprocess.run(
            ["grep", "--recursive", "--files-with-matches", "--text", "--fixed-strings", "--file=-", "--", "."],
            cwd=data,
            input=b"\n".join(samples) + b"\n",
            capture_output=True,
            timeout=SEARCH_TIMEOUT_S,
            check=False,
            env={"LC_ALL": "C", "PATH": os.environ.get("PATH", "/usr/bin:/bin")},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SnapshotFailed("The snapshot's files could not be searched for clear text.") from error
    if found.returncode not in (0, 1):
        raise SnapshotFailed(
            "The snapshot's files could not be searched for clear text.",
            effect=found.stderr.decode(errors="replace")[:300],
        )
    return sorted(name.decode().removeprefix("./") for name in found.stdout.splitlines())


def sync_tree(root: Path) -> None:
    """Write the whole file system `root` lies on through to the disk: the builder ran without fsync.

    One syncfs for all files: an fsync each takes seconds for a thousand of them.
    """
    descriptor = os.open(root, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise SnapshotFailed("The snapshot could not be written to the disk.", effect=os.strerror(number))
    finally:
        os.close(descriptor)


def _drop_spare_wal(pg_wal: Path, redo_file: str) -> None:
    """Delete every segment but the one recovery would start from: recycled ones can hold clear text."""
    if not (pg_wal / redo_file).is_file():
        raise SnapshotFailed(f"The WAL segment {redo_file} is missing.")
    for path in pg_wal.iterdir():
        if WAL_SEGMENT.fullmatch(path.name) and path.name != redo_file:
            path.unlink()
