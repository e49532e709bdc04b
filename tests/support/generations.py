"""A frozen server and physical copies of it, as plain processes: what a snapshot and its generations are made of."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from tests.support.cluster import wheel_root

START_DEADLINE_S = 60
MEMORY_WANTED_BYTES = 2 * 1024**3
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "40",
    "shared_buffers": "32MB",
    "listen_addresses": "",
    "wal_level": "replica",
    "summarize_wal": "on",
    "max_locks_per_transaction": "256",
    "log_min_messages": "warning",
}


@dataclass
class Server:
    """One data directory and, while it runs, its postmaster."""

    directory: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    family: list[Server] = field(default_factory=list)  # every copy made, to be stopped at the end

    @property
    def data(self) -> Path:
        return self.directory / "d"

    def dsn(self, database: str = "postgres", user: str = "postgres") -> str:
        return f"host={self.directory} user={user} dbname={database}"

    def start(self) -> None:
        wanted = {**SETTINGS, "unix_socket_directories": str(self.directory), **self.settings}
        options = [part for name, value in wanted.items() for part in ("-c", f"{name}={value}")]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [wheel_root() / "bin/postgres", "-D", self.data, *options], stdout=log, stderr=log, **_as_nobody()
            )
        for _ in range(START_DEADLINE_S * 20):
            assert self.process.poll() is None, (self.directory / "log").read_text()[-2000:]
            try:
                psycopg.connect(self.dsn(), connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                try:
                    self.process.wait(0.05)
                except subprocess.TimeoutExpired:
                    continue
        raise AssertionError("the test server did not start in time")

    def stop(self, *, crash: bool = False) -> None:
        """A fast shutdown; `crash` is an immediate one, after which the next start recovers."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT if crash else signal.SIGINT)
            self.process.wait(60)
            self.process = None

    def copy(self, name: str) -> Server:
        """A physical copy of the stopped server, beside it."""
        assert self.process is None, "only a stopped server may be copied"
        copied = Server(self.directory.parent / name, self.settings, family=self.family)
        self.family.append(copied)
        subprocess.run(["cp", "-a", "--reflink=auto", self.directory, copied.directory], check=True)
        (copied.data / "postmaster.opts").unlink(missing_ok=True)
        return copied

    def checkpoint_lsn(self) -> str:
        """Of the stopped server, from pg_control: where a copy's own history begins."""
        shown = subprocess.run(
            [wheel_root() / "bin/pg_controldata", self.data],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "LC_ALL": "C"},
            **_as_nobody(),
        ).stdout
        found = re.search(r"Latest checkpoint location:\s+(\S+)", shown)
        assert found is not None
        return found[1]


def _as_nobody() -> dict[str, Any]:
    return {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}


def _place() -> str:
    """Memory where there is plenty of it: these are thousands of small files, gone in a minute."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > MEMORY_WANTED_BYTES else "/tmp"


@contextmanager
def servers(place: str | None = None, **settings: str) -> Iterator[Server]:
    """A fresh, stopped server with the role `reader`; its copies live beside it and go with it."""
    root = Path(tempfile.mkdtemp(prefix="gen", dir=place or _place()))
    if os.geteuid() == 0:
        shutil.chown(root, "nobody", "nogroup")
    origin = Server(root / "origin", settings)
    try:
        subprocess.run(["mkdir", origin.directory], check=True, **_as_nobody())
        subprocess.run(
            [
                *(wheel_root() / "bin/initdb", "-D", origin.data, "-U", "postgres", "-A", "trust"),
                *("-E", "UTF8", "--locale=C.UTF-8", "--no-sync"),
            ],
            check=True,
            capture_output=True,
            cwd=root,
            **_as_nobody(),
        )
        origin.start()
        with psycopg.connect(origin.dsn(), autocommit=True) as connection:
            connection.execute("CREATE ROLE reader LOGIN BYPASSRLS")
            connection.execute("GRANT pg_read_all_data TO reader")
        origin.stop()
        yield origin
    finally:
        for server in [origin, *origin.family]:
            server.stop(crash=True)
        shutil.rmtree(root, ignore_errors=True)
