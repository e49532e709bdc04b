"""How the dumping container gets at a mirror: by its socket, over a network, or through a door of this host."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from psycopg import conninfo

from orchestrator.core.ports.engine import Attachment, Engine, Mount, NetworkSpec
from orchestrator.core.ports.snapshots import SourceRefused, SourceUnreachable

PASSWORD_FILE = "/source.pgpass"  # noqa: S105
SOURCE = "/source"
TLS_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
TLS_ALWAYS = ("require", "verify-ca", "verify-full")
CHUNK_BYTES = 1 << 18
CONNECT_TIMEOUT_S = 10.0
CONNECTIONS_MAX = 80  # more than any dump opens


@dataclass(frozen=True)
class Way:
    """The mirror's address as the container sees it, with what must be mounted and joined for it."""

    dsn: str
    mounts: tuple[Mount, ...]
    networks: tuple[Attachment, ...] = ()


@contextmanager
def way_to(
    dsn: str, *, engine: Engine, network: NetworkSpec | None, network_address: str, folder: Path, uid: int
) -> Iterator[Way]:
    """Open for as long as the block lasts; `folder` is where a door is made when one is needed, for `uid` alone.

    Raises SourceUnreachable or SourceRefused.
    """
    values: dict[str, Any] = {k: v for k, v in conninfo.conninfo_to_dict(dsn).items() if k != "password"}
    mounts = []
    for name in TLS_FILES:
        if name in values:
            mounts.append(Mount(Path(str(values[name])), f"/tls/{name}", read_only=True))
            values[name] = f"/tls/{name}"
    host = str(values.get("host") or "")
    with ExitStack() as stack:
        if host.startswith("/"):
            mounts.append(Mount(Path(host), SOURCE))
            yield Way(conninfo.make_conninfo("", **{**values, "host": SOURCE}), tuple(mounts))
            return
        # Names are resolved here: tool containers ask no name server.
        address = str(values.get("hostaddr") or _address(host))
        if ip_address(address).is_loopback:
            _refuse_tls(values)
            port = int(values.get("port") or 5432)
            stack.enter_context(door(folder, address, port, uid=uid))
            mounts.append(Mount(folder, SOURCE))
            inside = {k: v for k, v in values.items() if k != "hostaddr"} | {"host": SOURCE, "port": port}
            yield Way(conninfo.make_conninfo("", **inside), tuple(mounts))
            return
        if network is None:
            raise SourceUnreachable(
                "The mirror is reached over the network, but no network for it is configured.",
                next_step="Set the source network in configs/networks.yaml.",
            )
        engine.ensure_network(network)
        values["hostaddr"] = address
        attached = (Attachment(network.name, network_address),)
        yield Way(conninfo.make_conninfo("", **values), tuple(mounts), attached)


@contextmanager
def door(folder: Path, address: str, port: int, *, uid: int) -> Iterator[None]:
    """A socket in `folder` that leads to a port of this host's own loopback, which no container can reach."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    path = folder / f".s.PGSQL.{port}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    opened = _Door(listener, (address, port))
    try:
        listener.bind(str(path))
        listener.listen(16)
        for one in (folder, path):
            if one.stat().st_uid != uid:
                os.chown(one, uid, uid)
        threading.Thread(target=opened.serve, daemon=True, name="mirror-door").start()
        yield
    finally:
        opened.close()
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class _Door:
    listener: socket.socket
    leads_to: tuple[str, int]
    open: list[socket.socket] = field(default_factory=list)
    mutex: threading.Lock = field(default_factory=threading.Lock)

    def serve(self) -> None:
        """Take clients until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._join, args=(client,), daemon=True, name="mirror-client").start()

    def close(self) -> None:
        with self.mutex:
            ending = [self.listener, *self.open]
        for one in ending:
            _end(one)
        self.listener.close()

    def _join(self, client: socket.socket) -> None:
        with client:
            if len(self.open) >= 2 * CONNECTIONS_MAX:
                return
            try:
                server = socket.create_connection(self.leads_to, CONNECT_TIMEOUT_S)
            except OSError:
                return  # the client reads that the server closed the connection
            with server:
                server.settimeout(None)
                with self.mutex:
                    self.open += [client, server]
                up = threading.Thread(target=_carry, args=(client, server), daemon=True, name="mirror-up")
                up.start()
                _carry(server, client)
                up.join()
                with self.mutex:
                    self.open = [one for one in self.open if one not in (client, server)]


def _carry(source: socket.socket, target: socket.socket) -> None:
    """One direction, to its end; the other may still have something to say."""
    try:
        while chunk := source.recv(CHUNK_BYTES):
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        _end(source)
        _end(target)


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


def _refuse_tls(values: dict[str, Any]) -> None:
    if values.get("sslmode") in TLS_ALWAYS:
        raise SourceRefused(
            f"The mirror is on this host's own loopback and sslmode={values['sslmode']} is set.",
            effect="What reads it does so through a socket of this host, where there is no TLS.",
            next_step="Leave sslmode out for an address of this host, or name the mirror by its real address.",
        )


def _address(host: str) -> str:
    try:
        return str(socket.getaddrinfo(host or "localhost", None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise SourceUnreachable(
            f"The mirror's name {ascii(host)[:100]} cannot be resolved.",
            next_step="Correct `host` in production.mirror.dsn; a list of hosts is not taken.",
        ) from error
