"""The control plane's own server: on loopback for this host, on the edge network for the proxy, nowhere else."""

from __future__ import annotations

import uvicorn
from fastapi import FastAPI

from orchestrator import logs
from orchestrator.config import Settings
from orchestrator.wiring import listening

LOG = logs.get("server")
STOP_PATIENCE_S = 10


def serve(app: FastAPI, settings: Settings) -> None:
    """Serve until a signal ends it. Raises PortTaken."""
    bound = listening.sockets(settings)
    configuration = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=settings.api.requests_at_once * 4,
        timeout_graceful_shutdown=STOP_PATIENCE_S,
    )
    LOG.info("server.started", addresses=["{}:{}".format(*one.getsockname()[:2]) for one in bound])
    uvicorn.Server(configuration).run(sockets=bound)
