"""A mirror on this host's own loopback is reached through a door that is there only while it is read."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from orchestrator.core.ports.engine import Engine
from orchestrator.core.ports.snapshots import SourceRefused, SourceUnreachable
from orchestrator.drivers.postgres.reaching import door, way_to

NO_ENGINE = cast("Engine", None)


@pytest.fixture
def echo() -> Iterator[int]:
    """A server on loopback that sends back what it is sent."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer(client: socket.socket) -> None:
            with client:
                while said := client.recv(4096):
                    client.sendall(said)

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(client,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


def ask(path: Path, said: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(60)
        client.connect(str(path))
        client.sendall(said)
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(4096), b""))


def test_the_door_leads_there_for_many_and_is_gone_afterwards(tmp_path: Path, echo: int) -> None:
    folder = tmp_path / "mirror"
    with door(folder, "127.0.0.1", echo, uid=os.geteuid()):
        assert folder.stat().st_mode & 0o077 == 0
        for number in range(30):
            assert ask(folder / f".s.PGSQL.{echo}", b"%d" % number) == b"%d" % number
    assert not folder.exists()


def test_a_loopback_address_becomes_a_socket_inside_and_loses_its_password(tmp_path: Path, echo: int) -> None:
    dsn = f"host=127.0.0.1 port={echo} user=r dbname=app password=hush"
    folder = tmp_path / "mirror"
    with way_to(dsn, engine=NO_ENGINE, network=None, network_address="", folder=folder, uid=os.geteuid()) as way:
        assert [mount.source for mount in way.mounts] == [folder] and way.networks == ()
        assert "host=/source" in way.dsn and f"port={echo}" in way.dsn and "hush" not in way.dsn


@pytest.mark.parametrize(
    ("dsn", "failure", "why"),
    [
        ("host=127.0.0.1 sslmode=require", SourceRefused, "sslmode"),
        ("hostaddr=192.0.2.1", SourceUnreachable, "no network"),
        ("host=no-such-name.invalid", SourceUnreachable, "cannot be resolved"),
    ],
)
def test_what_cannot_be_reached_is_said_before_anything_is_started(
    tmp_path: Path, dsn: str, failure: type[Exception], why: str
) -> None:
    folder = tmp_path / "mirror"
    way = way_to(dsn, engine=NO_ENGINE, network=None, network_address="", folder=folder, uid=os.geteuid())
    with pytest.raises(failure, match=why), way:
        pass
