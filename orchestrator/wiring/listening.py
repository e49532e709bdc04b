"""The addresses an installation serves on, and what is said when somebody else has one."""

from __future__ import annotations

import socket

from orchestrator.config import Settings
from orchestrator.errors import OutsideFailure

BACKLOG = 256
TAKEN = ("port is already allocated", "address already in use")  # as engines say it


class PortTaken(OutsideFailure):
    code = "outside_failure.port_taken"


def sockets(settings: Settings) -> list[socket.socket]:
    """The control plane's own, listening: on loopback, and on the edge network for the proxy. Raises PortTaken."""
    made: list[socket.socket] = []
    # The edge network's own address: tenants are not on that network, other machines cannot reach it.
    for host, port in (
        ("127.0.0.1", settings.api.port),
        (settings.networks.edge_gateway, settings.api.edge_port),
    ):
        try:
            made.append(_bound(host, port))
        except OSError as error:
            close(made)
            raise PortTaken(
                f"{host}:{port} cannot be served: {error.strerror}.",
                effect="The control plane did not start.",
                next_step="End what uses the port, or set api.port and api.edge_port in configs/orchestrator.yaml.",
            ) from error
    return made


def close(made: list[socket.socket]) -> None:
    """Give the addresses back."""
    for one in made:
        one.close()


def proxy_refused(settings: Settings, words: str) -> PortTaken | None:
    """What to say when the engine's `words` on starting the proxy mean that its port is taken."""
    if not any(taken in words for taken in TAKEN):
        return None
    return PortTaken(
        f"{settings.proxy.listen}:{settings.proxy.port} is taken: the proxy cannot listen there.",
        effect="No hostname answers.",
        next_step="End what uses the port, or set proxy.port in configs/orchestrator.yaml.",
    )


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit it. Without it an answer's second piece waits 40 ms for the first one's receipt.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.bind((host, port))
        made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made
