"""Writing clients in a process of their own (pgbench), with the time of every transaction."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from tests.support.cluster import wheel_root

# A short transaction that reads and writes, as an application does.
SCRIPT = """\\set id random(1, {rows})
UPDATE accounts SET balance = balance + 1 WHERE id = :id RETURNING balance;
"""
RUN_MAX_S = 3600
STARTED_S = 30.0


@dataclass
class Clients:
    """`count` clients of a tenant's pool, until the block ends; a client that fails is aborted and counted."""

    dsn: str
    count: int
    rows: int = 65_536
    waits: list[tuple[float, float]] = field(default_factory=list)  # wall time of the end, seconds it took
    failures: list[str] = field(default_factory=list)

    def __enter__(self) -> Clients:
        self._directory = tempfile.TemporaryDirectory(prefix="clients")
        folder = Path(self._directory.name)
        (folder / "script.sql").write_text(SCRIPT.format(rows=self.rows))
        parts = {name: str(value) for name, value in conninfo_to_dict(self.dsn).items()}
        self._errors = (folder / "errors").open("w+")
        self._process = subprocess.Popen(
            [
                str(wheel_root() / "bin/pgbench"),
                *("-n", "-c", str(self.count), "-j", "2", "-T", str(RUN_MAX_S), "-M", "prepared"),
                *("-f", str(folder / "script.sql"), "-l", f"--log-prefix={folder / 'log'}"),
            ],
            env={
                **os.environ,
                "PGHOST": parts["host"],
                "PGUSER": parts["user"],
                "PGDATABASE": parts["dbname"],
                "PGPASSWORD": parts["password"],
            },
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
        )
        deadline = time.monotonic() + STARTED_S
        while not any(path.stat().st_size for path in folder.glob("log.*")):
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise TimeoutError(f"the clients do not write: {self._read_errors()}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(1.0)  # what they logged is written in blocks
        self._process.send_signal(signal.SIGINT)
        self._process.wait(30)
        for path in Path(self._directory.name).glob("log.*"):
            for line in path.read_text().splitlines()[:-1]:
                parts = line.split()
                if len(parts) >= 6 and parts[2].isdigit():
                    self.waits.append((int(parts[4]) + int(parts[5]) / 1e6, int(parts[2]) / 1e6))
        self.failures += [line for line in self._read_errors().splitlines() if "aborted" in line or "error" in line]
        self._errors.close()
        self._directory.cleanup()

    def _read_errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read()
