"""The one installation all journeys share. Each journey launches tenants of its own for whatever it changes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from orchestrator.core.actors import system
from orchestrator.core.tenants import Tenant
from orchestrator.flows.launch import LaunchRequest
from orchestrator.store import tenants
from tests.support.installation import Running, running

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def installation() -> Iterator[Running]:
    with running() as made:
        yield made


@pytest.fixture
def launched(installation: Running) -> Iterator[Callable[..., Tenant]]:
    """Launch a tenant of this test's own; it is removed at the end."""
    made: list[str] = []

    def launch(scope: str | None = "harbour") -> Tenant:
        name = f"trip-{next(_numbers)}"
        request = LaunchRequest(name, scope=scope, snapshot_profile=installation.settings.tenants.snapshot_profile)
        made.append(name)
        return installation.services.launch.run(request, actor=system("tests"))

    yield launch
    store = installation.services.store
    there = {one.name for one in tenants.listed(store)}
    for name in made:
        if name in there:
            installation.run("tenant", "remove", name, "--yes")
