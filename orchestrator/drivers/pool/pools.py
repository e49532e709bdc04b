"""Pools on a container engine."""

from __future__ import annotations

import hmac
import os
import secrets
import time
from pathlib import Path

from orchestrator.core.ports.engine import Engine
from orchestrator.core.ports.pools import Pause, PoolFailed, PoolSpec, PoolStatus
from orchestrator.core.scram import verifier
from orchestrator.core.tenants import PoolMode
from orchestrator.drivers.pool import sessions
from orchestrator.drivers.pool.configuration import (
    CONFIGURATION_FILE,
    USERS_FILE,
    configuration_text,
    container_spec,
    users_text,
)
from orchestrator.drivers.pool.console import Console

POLL_S = 0.02
# Iterations protect passwords people choose; this one is 256 random bits, and the console is asked often.
CONSOLE_ITERATIONS = 64


class PgBouncerPools:
    """The Pools port: one PgBouncer container a tenant."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._paused: dict[str, Console] = {}  # by container: each holds the connection its resume goes over

    def start(self, spec: PoolSpec, *, timeout_s: float = 20.0) -> None:
        """Write what is missing or changed, start the container, wait for its console. Raises PoolFailed."""
        is_changed = self._write_files(spec)
        found = self._engine.observe(spec.name)
        was_running = found is not None and found.running
        self._engine.start(container_spec(spec))
        if was_running and is_changed and self.is_answering(spec):
            Console(spec).reload()
            return
        self._wait(spec, timeout_s)

    def stop(self, name: str) -> None:
        self._engine.stop(name, timeout_s=5)

    def remove(self, name: str) -> None:
        self._engine.remove(name)

    def is_answering(self, spec: PoolSpec) -> bool:
        try:
            Console(spec).run("SHOW VERSION")
        except PoolFailed:
            return False
        return True

    def status(self, spec: PoolSpec) -> PoolStatus:
        return Console(spec).status()

    def pause(self, spec: PoolSpec, *, live_dsn: str, patience_s: float = 2.0, grace_s: float = 3.0) -> Pause:
        """Hold clients back; see the port."""

        def evict(waited_s: float) -> int:
            is_impatient = waited_s > patience_s
            if spec.mode is PoolMode.SESSION:
                which = sessions.ALL if is_impatient else sessions.BETWEEN_TRANSACTIONS
            elif is_impatient:
                which = sessions.IN_TRANSACTION
            else:
                return 0
            try:
                return sessions.end(live_dsn, role=spec.role, which=which)
            except PoolFailed:  # a live database that is down holds nobody up; the deadline decides
                return 0

        console = Console(spec)
        waited_s, ended = console.pause(evict, patience_s=patience_s, grace_s=grace_s)
        self._paused[spec.name] = console
        return Pause(waited_s=waited_s, ended_sessions=ended)

    def resume(self, spec: PoolSpec) -> None:
        self._paused.pop(spec.name, Console(spec)).resume()

    def _write_files(self, spec: PoolSpec) -> bool:
        """Passwords, configuration and socket directory; returns whether a running pool must reload."""
        role_password = _password(spec.password_file)
        console_password = _password(spec.console_password_file)
        spec.databases.mkdir(parents=True, exist_ok=True)
        for directory, mode in ((spec.sockets, 0o755), (spec.configuration, 0o700)):
            directory.mkdir(parents=True, exist_ok=True)
            _give(directory, spec.uid, mode)
        users = users_text(
            spec,
            role_verifier=verifier(role_password, _salt(spec.role, role_password)),
            console_verifier=verifier(
                console_password, _salt("console", console_password), iterations=CONSOLE_ITERATIONS
            ),
        )
        changes = [
            _replace(spec.configuration / USERS_FILE, users, spec.uid),
            _replace(spec.configuration / CONFIGURATION_FILE, configuration_text(spec), spec.uid),
        ]
        return any(changes)

    def _wait(self, spec: PoolSpec, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not self.is_answering(spec):
            container = self._engine.observe(spec.name)
            if container is None or not container.running or time.monotonic() > deadline:
                end = self._engine.logs(spec.name, lines=20) if container is not None else "the container is gone"
                raise PoolFailed(f"The pool {spec.name} did not start: {end[-1500:].strip()}", pool=spec.name)
            time.sleep(POLL_S)


def _password(path: Path) -> str:
    """The password in `path`, made on first use: 256 random bits, readable by the orchestrator alone."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        value = secrets.token_urlsafe(32)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(value)
            file.flush()
            os.fsync(file.fileno())
        return value


def _salt(user: str, password: str) -> bytes:
    """Derived from the random password, so that the list of users changes only when a password does."""
    return hmac.digest(password.encode(), user.encode(), "sha256")[:16]


def _give(path: Path, uid: int, mode: int) -> None:
    if path.stat().st_uid != uid:
        os.chown(path, uid, uid)
    path.chmod(mode)


def _replace(path: Path, content: str, uid: int) -> bool:
    if path.exists() and path.read_text() == content:
        return False
    fresh = path.with_name(f"{path.name}.new")
    fresh.touch(mode=0o600)
    _give(fresh, uid, 0o600)
    fresh.write_text(content)
    fresh.replace(path)
    return True
