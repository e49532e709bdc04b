"""A refresh in a process of its own that dies, as if by SIGKILL, at a boundary."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orchestrator.core.tenants import Tenant
from orchestrator.drivers.docker.engine import DockerEngine
from orchestrator.drivers.volume.trees import LocalVolume
from tests.support.refreshing import ACTOR, DataPlane, data_plane

DIED = 137
TIMEOUT_S = 240
# A clean process, forked again and again: starting an interpreter for each would take longer than the refresh.
_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(["tests.support.killed_refresh"])


def die_at(plane: DataPlane, tenant: Tenant, boundary: str, *, undo: bool = False) -> int:
    """Run a refresh (or an undo) of `tenant` in another process that dies at `boundary`; returns its exit status."""
    said = plane.places.var / "died.txt"
    said.unlink(missing_ok=True)
    order = {
        "label": plane.engine.instance,  # type: ignore[attr-defined]
        "store_url": plane.store.url.render_as_string(hide_password=False),
        "directory": plane.places.var,
        "volume": plane.volume.root,
        "postgres_image": plane.servers.binaries.image,
        "pool_image": plane.pools.image,
        "instance": plane.instance,
        "tenant": tenant,
        "rows": plane.drafts.rows,
        "boundary": boundary,
        "undo": undo,
        "said": said,
    }
    process = _FORKING.Process(target=_refresh, args=(order,))
    process.start()
    process.join(TIMEOUT_S)
    if process.is_alive():
        process.kill()
        process.join()
        raise AssertionError(f"the refresh that dies at {boundary} did not end: {asdict(tenant)}")
    assert process.exitcode in (0, DIED), said.read_text() if said.exists() else process.exitcode
    return int(process.exitcode)


def _refresh(order: Mapping[str, Any]) -> None:
    try:
        _run(order)
    except BaseException:
        Path(order["said"]).write_text(traceback.format_exc())
        os._exit(1)


def _run(order: Mapping[str, Any]) -> None:
    plane = data_plane(
        DockerEngine(order["label"]),
        LocalVolume(order["volume"]),
        store_url=order["store_url"],
        directory=order["directory"],
        postgres_image=order["postgres_image"],
        pool_image=order["pool_image"],
        instance=order["instance"],
    )
    tenant: Tenant = order["tenant"]
    plane.tenants[tenant.id] = tenant
    plane.drafts.rows = order["rows"]

    def at(step: str) -> None:
        if step == order["boundary"]:
            os._exit(DIED)

    flow = plane.flow(at)
    if order["undo"]:
        flow.undo(tenant, actor=ACTOR)
    else:
        flow.run(tenant, actor=ACTOR)
