"""Two installations, or anything else, on one port: said at once, by the setting that decides it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.config import Settings
from orchestrator.core.networks import NetworkSettings
from orchestrator.wiring import listening
from orchestrator.wiring.listening import PortTaken
from tests.support.interfaces import settings


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield int(other.getsockname()[1])


def installation(tmp_path: Path, *, port: int, edge_port: int) -> Settings:
    """One whose edge network is the loopback's."""
    ports = {"ORCHESTRATOR_API__PORT": str(port), "ORCHESTRATOR_API__EDGE_PORT": str(edge_port)}
    made = settings(tmp_path, **ports)
    networks = NetworkSettings.model_construct(plan=made.networks.plan.__class__("127.0.0.0/16"))
    return made.model_copy(update={"networks": networks})


def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("which", ["port", "edge_port"])
def test_a_taken_port_is_named_with_its_setting(tmp_path: Path, taken: int, which: str) -> None:
    ports = {"port": free(), "edge_port": free(), which: taken}
    with pytest.raises(PortTaken, match=f":{taken} cannot be served: Address already in use") as caught:
        listening.sockets(installation(tmp_path, **ports))
    assert "api.edge_port in configs/orchestrator.yaml" in caught.value.next_step


def test_what_was_bound_before_the_taken_one_is_given_back(tmp_path: Path, taken: int) -> None:
    first = free()
    with pytest.raises(PortTaken):
        listening.sockets(installation(tmp_path, port=first, edge_port=taken))
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", first))


def test_answers_are_not_held_back(tmp_path: Path) -> None:
    bound = listening.sockets(installation(tmp_path, port=free(), edge_port=free()))
    try:
        for one in bound:
            with socket.create_connection(one.getsockname()), one.accept()[0] as accepted:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    finally:
        listening.close(bound)


def test_the_engines_words_about_the_proxys_port_are_explained(tmp_path: Path) -> None:
    said = "driver failed programming external connectivity: Bind for 127.0.0.1:8080 failed: port is already allocated"
    found = listening.proxy_refused(settings(tmp_path), said)
    assert found is not None and "127.0.0.1:8080" in found.message and "proxy.port" in found.next_step
    assert listening.proxy_refused(settings(tmp_path), "no such image") is None
