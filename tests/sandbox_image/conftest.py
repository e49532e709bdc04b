"""One real sandbox for all tests of this room; each test lists the programs it needs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.drivers.docker.engine import DockerEngine
from tests.support.engine import SessionImages
from tests.support.sandbox import Sandbox, running_sandbox


@pytest.fixture(scope="session")
def shared_sandbox(engine: DockerEngine, images: SessionImages) -> Iterator[Sandbox]:
    with running_sandbox(engine, images.sandbox) as running:
        yield running


@pytest.fixture
def sandbox(shared_sandbox: Sandbox) -> Iterator[Sandbox]:
    """The shared sandbox with an empty workspace and Python, cat and true on the list."""
    shared_sandbox.list("/usr/bin/python3", "/usr/bin/cat", "/usr/bin/true")
    yield shared_sandbox
    shared_sandbox.client.stop_app()
    shared_sandbox.list("/usr/bin/python3", "/usr/bin/find", digest="clean")
    shared_sandbox.run("/usr/bin/find", "/workspace", "-mindepth", "1", "-delete")
