"""Naming another PostgreSQL for the tenants leaves the control database with the one that made its files."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from orchestrator.core.ports.engine import ContainerLimits
from orchestrator.core.ports.servers import ServerKind, ServerSpec
from orchestrator.drivers.docker.engine import DockerEngine
from orchestrator.wiring.installation import Installation
from tests.support.engine import OLDER_MAJOR, SessionImages

pytestmark = pytest.mark.engine


def test_a_server_keeps_its_image_while_its_files_need_it(
    engine: DockerEngine, images: SessionImages, tmp_path: Path
) -> None:
    older, newer = images.older_postgres, images.postgres
    spec = ServerSpec(
        name=f"{engine.instance}-control",
        data=tmp_path / "control",
        sockets=tmp_path / "s",
        uid=65534,
        limits=ContainerLimits(1 << 28, 1.0, 40),
        kind=ServerKind.CONTROL,
    )

    def chosen(configured: str) -> str:
        drivers = cast("Any", SimpleNamespace(engine=engine, images=SimpleNamespace(postgres=configured)))
        return Installation(drivers).with_image(spec).image

    assert chosen(older) == "", "the configured one, noted before there are files"
    spec.data.mkdir()
    (spec.data / "PG_VERSION").write_text(f"{OLDER_MAJOR}\n")
    assert chosen(newer) == older
    assert chosen(older) == ""
    (spec.data / "PG_VERSION").write_text("18\n")
    assert chosen(newer) == "", "an image that can read the files takes over"
    assert (tmp_path / "control.image").read_text() == f"{newer}\n"
