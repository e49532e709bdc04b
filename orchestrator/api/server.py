"""The control plane's own server: on loopback for this host, on the edge network for the proxy, nowhere else."""

from __future__ import annotations

import socket
import threading
import time

import uvicorn
from fastapi import FastAPI

from orchestrator import logs
from orchestrator.errors import OrchestratorError, OutsideFailure
from orchestrator.store.session import advisory_lock
from orchestrator.wiring.services import Services

LOG = logs.get("server")
BACKLOG = 256
STOP_PATIENCE_S = 10


class PortTaken(OutsideFailure):
    code = "outside_failure.port_taken"


def serve(app: FastAPI, services: Services) -> None:
    """Serve until a signal ends it; meanwhile what should run is kept running. Raises PortTaken."""
    settings = services.settings
    addresses = [
        ("127.0.0.1", settings.api.port),
        # The edge network's own address: tenants are not on that network, other machines cannot reach it.
        (settings.networks.edge_gateway, settings.api.edge_port),
    ]
    sockets = [_bound(*address) for address in addresses]
    stop = threading.Event()
    keeper = threading.Thread(target=_keep, args=(services, stop), name="reconcile", daemon=True)
    configuration = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=settings.api.requests_at_once * 4,
        timeout_graceful_shutdown=STOP_PATIENCE_S,
    )
    keeper.start()
    LOG.info("server.started", addresses=[f"{host}:{port}" for host, port in addresses])
    try:
        uvicorn.Server(configuration).run(sockets=sockets)
    finally:
        stop.set()
        keeper.join(STOP_PATIENCE_S)


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


def _keep(services: Services, stop: threading.Event) -> None:
    """Reconcile at once and then every few seconds; one process of the installation at a time."""
    every_s = services.settings.reconcile.every
    while not stop.is_set():
        began = time.monotonic()
        try:
            with advisory_lock(services.store, "reconcile") as is_ours:
                if is_ours:
                    services.reconcile.run()
        except OrchestratorError as error:
            LOG.warning("reconcile.skipped", code=error.code, reason=error.message)
        except Exception as error:  # the loop must outlive whatever one round meets, the control database's death too
            LOG.error("reconcile.broke", reason=type(error).__name__, exc_info=True)
        stop.wait(max(0.5, every_s - (time.monotonic() - began)))
