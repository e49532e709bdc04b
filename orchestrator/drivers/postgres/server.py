"""Every PostgreSQL instance as a container over a Unix socket."""

from __future__ import annotations

import os
import time
from pathlib import Path

import psycopg

from orchestrator.core.ports.engine import ContainerSpec, Engine, Mount
from orchestrator.core.ports.servers import (
    SUPERUSER,
    DataDirectoryLocked,
    OtherVersion,
    ServerFailed,
    ServerSpec,
    SocketPathTooLong,
)
from orchestrator.drivers.postgres.settings import account_names, passwd, pg_hba, pg_ident, server_settings
from orchestrator.drivers.postgres.tools import Binaries, ToolRun, run_tool
from orchestrator.errors import OutsideFailure

SOCKET_NAME = ".s.PGSQL.5432"
SOCKET_PATH_BYTES_MAX = 107  # sun_path, less its closing zero
LOCKED_EXIT_CODE = 75
OTHER_VERSION = "database files are incompatible with server"
ACCOUNTS_FILE = "orchestrator.passwd"
POLL_S = 0.01
LOOPBACK_UNNEEDED_SINCE = 15  # before, its own statistics travelled over the loopback interface


class PostgresServers:
    """The Servers port on a container engine."""

    def __init__(self, engine: Engine, binaries: Binaries) -> None:
        self.engine = engine
        self.binaries = binaries
        self.uid = os.geteuid()

    def create(self, spec: ServerSpec) -> None:
        """initdb into `spec.data` when it is empty. Raises ServerFailed."""
        if (spec.data / "PG_VERSION").exists():
            return
        spec.data.mkdir(parents=True, exist_ok=True)
        self._own(spec.data, spec.uid, 0o700)
        names = spec.sockets.parent / f"{spec.name}.passwd"
        names.parent.mkdir(parents=True, exist_ok=True)
        names.write_text(passwd(account_names(spec, self.uid)))
        durable = () if spec.kind != "builder" else ("--no-sync",)
        try:
            run_tool(
                self.engine,
                self.binaries,
                ToolRun(
                    name=f"{spec.name}-initdb",
                    image=spec.image,
                    program="initdb",
                    arguments=(
                        "-D",
                        "/data",
                        "-U",
                        SUPERUSER,
                        "-A",
                        "reject",
                        "-E",
                        "UTF8",
                        "--locale=C.UTF-8",
                        "--data-checksums",
                        *durable,
                    ),
                    uid=spec.uid,
                    mounts=(Mount(spec.data, "/data"), Mount(names, "/etc/passwd", read_only=True)),
                ),
            )
        finally:
            names.unlink(missing_ok=True)

    def start(self, spec: ServerSpec, *, timeout_s: float = 30.0) -> None:
        """Start and wait until it accepts connections; raises ServerFailed with the end of its log."""
        self.launch(spec)
        self.wait(spec, timeout_s=timeout_s)

    def launch(self, spec: ServerSpec) -> None:
        """Start without waiting."""
        socket = spec.sockets / SOCKET_NAME
        if len(os.fsencode(socket)) > SOCKET_PATH_BYTES_MAX:
            raise SocketPathTooLong(
                f"The socket path {socket} is longer than {SOCKET_PATH_BYTES_MAX} bytes.",
                next_step="Put the installation's var directory at a shorter path.",
            )
        container = self.container_spec(spec)  # first of all it looks whether there is a data directory
        self._write_access_files(spec)
        spec.sockets.mkdir(parents=True, exist_ok=True)
        self._own(spec.sockets, spec.uid, 0o755)
        self.engine.start(container)

    def wait(self, spec: ServerSpec, *, timeout_s: float = 30.0) -> None:
        """Wait until it accepts connections. Raises DataDirectoryLocked or ServerFailed."""
        deadline = time.monotonic() + timeout_s
        next_look = time.monotonic() + 0.2
        while not self._answers(spec):
            now = time.monotonic()
            if now > next_look:
                self._raise_if_ended(spec)
                next_look = now + 0.2
            if now > deadline:
                raise ServerFailed(
                    f"The database {spec.name} did not accept connections within {timeout_s:.0f} s.",
                    effect=self._log_end(spec.name),
                )
            time.sleep(POLL_S)

    def stop(self, name: str) -> None:
        """A fast shutdown: the container's stop signal is SIGINT; killed after 30 s."""
        self.engine.stop(name, timeout_s=30)

    def remove(self, name: str) -> None:
        """Delete the container, by force if it runs; its data directory stays."""
        self.engine.remove(name)

    def is_ready(self, spec: ServerSpec) -> bool:
        return self._answers(spec)

    def dsn(self, sockets: Path, *, user: str = SUPERUSER, database: str = "postgres") -> str:
        """A libpq connection string over the socket directory."""
        return psycopg.conninfo.make_conninfo(host=str(sockets), user=user, dbname=database, connect_timeout=5)

    def container_spec(self, spec: ServerSpec) -> ContainerSpec:
        """Pure: the hardened container of one instance."""
        settings = server_settings(spec.kind, self._major(spec), spec.settings)
        options = tuple(part for name, value in settings.items() for part in ("-c", f"{name}={value}"))
        # The lock is on an open file the server and its children inherit: PID 1 in every container makes
        # postmaster.pid useless against a second instance on the same directory.
        lock = ("flock", "--nonblock", "--conflict-exit-code", str(LOCKED_EXIT_CODE), "--no-fork", "/data/PG_VERSION")
        return ContainerSpec(
            name=spec.name,
            image=spec.image or self.binaries.image,
            argv=(*lock, self.binaries.program("postgres"), "-D", "/data", *options),
            uid=spec.uid,
            gid=spec.uid,
            limits=spec.limits,
            role="database" if spec.tenant_id else spec.kind,
            tenant_id=spec.tenant_id,
            generation_id=spec.generation_id,
            environment={
                "LC_ALL": "C.UTF-8",
                # Out of memory takes a session, never the postmaster, so the database comes back by itself.
                "PG_OOM_ADJUST_FILE": "/proc/self/oom_score_adj",
                "PG_OOM_ADJUST_VALUE": "500",
            },
            mounts=(
                *self.binaries.mounts(),
                Mount(spec.data, "/data"),
                Mount(spec.sockets, "/sockets"),
                Mount(spec.data / ACCOUNTS_FILE, "/etc/passwd", read_only=True),
            ),
            tmpfs={"/tmp": "rw,noexec,nosuid,nodev,size=16m"},  # noqa: S108
            loopback=self._major(spec) < LOOPBACK_UNNEEDED_SINCE,
            stop_signal="SIGINT",
            # Parallel queries keep their hash tables in shared memory; 64 MB, the usual size, is too little.
            shm_bytes=max(64 << 20, spec.limits.memory_bytes // 2),
        )

    def _major(self, spec: ServerSpec) -> int:
        try:
            return int((spec.data / "PG_VERSION").read_text().split(".")[0])
        except (OSError, ValueError) as error:
            raise ServerFailed(f"{spec.data} is not a PostgreSQL data directory.", effect=str(error)) from error

    def _write_access_files(self, spec: ServerSpec) -> None:
        accounts = account_names(spec, self.uid)
        files = {
            "pg_hba.conf": pg_hba(spec),
            "pg_ident.conf": pg_ident(spec, accounts, self.uid),
            ACCOUNTS_FILE: passwd(accounts),
        }
        for name, text in files.items():
            _replace_file(spec.data / name, text, spec.uid, 0o644 if name == ACCOUNTS_FILE else 0o600)

    def _own(self, path: Path, uid: int, mode: int) -> None:
        """Give `path` to the instance. Without root the instance must run as ourselves."""
        if path.stat().st_uid != uid:
            os.chown(path, uid, uid)
        path.chmod(mode)

    def _answers(self, spec: ServerSpec) -> bool:
        if not (spec.sockets / SOCKET_NAME).exists():
            return False
        try:
            psycopg.connect(self.dsn(spec.sockets)).close()
        except psycopg.OperationalError:
            return False
        return True

    def _raise_if_ended(self, spec: ServerSpec) -> None:
        container = self.engine.observe(spec.name)
        if container is not None and container.running:
            return
        if container is not None and container.exit_code == LOCKED_EXIT_CODE:
            raise DataDirectoryLocked(
                f"Another database already runs on {spec.data}.",
                effect=f"{spec.name} was not started.",
                next_step="`orchestrator status` names the containers of this installation.",
            )
        said = self._log_end(spec.name)
        if OTHER_VERSION in said:
            raise OtherVersion(
                f"The files of {spec.name} were made by PostgreSQL {self._major(spec)}; the image"
                f" {spec.image or self.binaries.image} has another version.",
                effect="It was not started, and nothing in its files was changed.",
                next_step=f"Name an image of PostgreSQL {self._major(spec)} under images.postgres, then make setup.",
            )
        code = None if container is None else container.exit_code
        raise ServerFailed(f"The database {spec.name} ended while starting (exit status {code}).", effect=said)

    def _log_end(self, name: str) -> str:
        try:
            return self.engine.logs(name, lines=30)[-2000:].strip()
        except OutsideFailure:
            return "its log could not be read"


def _replace_file(path: Path, text: str, uid: int, mode: int) -> None:
    """Write a new file over `path`. The directory belongs to the server: a link in it is never followed."""
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        if os.fstat(descriptor).st_uid != uid:
            os.fchown(descriptor, uid, uid)
        os.fchmod(descriptor, mode)
    partial.replace(path)
