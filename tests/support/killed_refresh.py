"""A refresh in a process of its own that dies, as if by SIGKILL, at a boundary. Run as a program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from orchestrator.core.tenants import PoolMode, RefreshPolicy, Tenant, TenantState
from orchestrator.drivers.docker.engine import DockerEngine
from orchestrator.drivers.volume.trees import LocalVolume
from tests.support.refreshing import ACTOR, DataPlane, data_plane

DIED = 137
TIMEOUT_S = 240


def die_at(plane: DataPlane, tenant: Tenant, boundary: str, *, undo: bool = False) -> int:
    """Run a refresh (or an undo) of `tenant` in another process that dies at `boundary`; returns its exit status."""
    order = {
        "label": plane.engine.instance,  # type: ignore[attr-defined]
        "store_url": plane.store.url.render_as_string(hide_password=False),
        "directory": str(plane.places.var),
        "volume": str(plane.volume.root),
        "postgres_image": plane.servers.binaries.image,
        "pool_image": plane.pools.image,
        "instance": plane.instance,
        "tenant": {**asdict(tenant), "created_at": tenant.created_at.isoformat()},
        "rows": plane.drafts.rows,
        "boundary": boundary,
        "undo": undo,
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.killed_refresh"],
        input=json.dumps(order),
        text=True,
        capture_output=True,
        timeout=TIMEOUT_S,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode in (0, DIED), done.stderr[-3000:]
    return done.returncode


def main() -> None:
    order = json.load(sys.stdin)
    engine = DockerEngine(order["label"])
    plane = data_plane(
        engine,
        LocalVolume(Path(order["volume"])),
        store_url=order["store_url"],
        directory=Path(order["directory"]),
        postgres_image=order["postgres_image"],
        pool_image=order["pool_image"],
        instance=order["instance"],
    )
    values = order["tenant"]
    tenant = Tenant(
        **{
            **values,
            "state": TenantState(values["state"]),
            "refresh_policy": RefreshPolicy(values["refresh_policy"]),
            "pool_mode": PoolMode(values["pool_mode"]),
            "created_at": datetime.fromisoformat(values["created_at"]),
        }
    )
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


if __name__ == "__main__":
    main()
