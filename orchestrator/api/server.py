"""The control plane's own server: on loopback for this host, on the edge network for the proxy, nowhere else."""

from __future__ import annotations

import socket

import uvicorn
from fastapi import FastAPI

from orchestrator import logs
from orchestrator.config import Settings
from orchestrator.errors import OutsideFailure

LOG = logs.get("server")
BACKLOG = 256
STOP_PATIENCE_S = 10


class PortTaken(OutsideFailure):
    code = "outside_failure.port_taken"


def serve(app: FastAPI, settings: Settings) -> None:
    """Serve until a signal ends it. Raises PortTaken."""
    addresses = [
        ("127.0.0.1", settings.api.port),
        # The edge network's own address: tenants are not on that network, other machines cannot reach it.
        (settings.networks.edge_gateway, settings.api.edge_port),
    ]
    sockets = [_bound(*address) for address in addresses]
    configuration = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=settings.api.requests_at_once * 4,
        timeout_graceful_shutdown=STOP_PATIENCE_S,
    )
    LOG.info("server.started", addresses=[f"{host}:{port}" for host, port in addresses])
    uvicorn.Server(configuration).run(sockets=sockets)


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise PortTaken(
            f"{host}:{port} cannot be served: {error.strerror}.",
            effect="The control plane did not start.",
            next_step="End what uses the port, or set api.port and api.edge_port in configs/orchestrator.yaml.",
        ) from error
    return made
