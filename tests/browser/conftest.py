"""A console in a real browser, over a small company's real databases and without containers."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from playwright.sync_api import Browser

from orchestrator.core.access import Role
from tests.support.cluster import Cluster
from tests.support.console import console
from tests.support.desk import furnish
from tests.support.pages import Town, chromium, served
from tests.support.proposing import company_on, ground


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as made:
        yield made


@pytest.fixture(scope="module")
def town(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    directory = tmp_path_factory.mktemp("town")
    with ground(cluster) as databases, console(cluster, directory) as house:
        company = company_on(databases, house.store, directory)
        company.tenant = house.tenant("north", scope="harbour")
        furnish(house, directory)
        house.services.changes = SimpleNamespace(
            changes=company.changes,
            review=company.review,
            promote=company.promote,
            revert=company.revert,
            rehearse=company.rehearse,
        )
        house.sign_in("mia", Role.MANAGER, company.tenant)
        house.sign_in("ruth", Role.REVIEWER)
        with served(house.app) as address:
            yield Town(house, company, address)
