"""Health and trends: what the records say, in words, pictures and tables, for those who run the house."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.core.access import Role
from orchestrator.core.refresh import RefreshKind
from orchestrator.store import leaders, refreshes, samples
from orchestrator.store.session import advisory_lock
from tests.support.cluster import Cluster
from tests.support.console import Browser, Console, console

GIB = 2**30


@pytest.fixture
def house(cluster: Cluster, tmp_path: Path) -> Iterator[Console]:
    volume = SimpleNamespace(free_bytes=lambda: 3 * GIB, total_bytes=lambda: 100 * GIB, is_reflink=True)
    with console(cluster, tmp_path, sample=SimpleNamespace(volume=volume)) as made:
        yield made


@pytest.fixture
def ada(house: Console) -> Browser:
    return house.sign_in("ada", Role.ADMIN)


def test_a_scheduler_nobody_leads_and_a_disk_nearly_full_say_what_to_do(house: Console, ada: Browser) -> None:
    page = ada.get("/health").text
    assert "nobody leads" in page and "orchestrator up" in page
    assert "nearly full" in page and "Too early to tell" in page
    assert "none yet" in page and "orchestrator snapshot take" in page
    assert "No alarm rings" in page and 'hx-get="/health/checks"' in page


def test_a_scheduler_at_work_is_said_with_its_last_tick(house: Console, ada: Browser) -> None:
    leaders.ticked(house.store, "vm:1")
    with advisory_lock(house.store, "leader", "scheduler") as led:
        assert led
        page = ada.get("/health").text
    assert "at work" in page and "<code>vm:1</code>" in page and "number 1" in page


def test_trends_are_pictures_and_tables(house: Console, ada: Browser) -> None:
    alpha = house.tenant("alpha")
    assert ada.get("/health/trends").text.count("No values yet") == 4
    begun = refreshes.begin(
        house.store,
        tenant_id=alpha.id,
        kind=RefreshKind.REFRESH,
        generation_id="g1",
        previous_id=None,
        snapshot_id=None,
        requested_by="scheduler",
    )
    refreshes.finish(house.store, begun.id, gap_s=0.021, ended_sessions=0)
    now = datetime.now(UTC)
    samples.add_usage(
        house.store, [samples.UsageSample(alpha.id, now - timedelta(minutes=1), 90 * 2**20, 96 * 2**20, 1.0)]
    )
    page = ada.get("/health/trends").text
    assert page.count("<svg") == 3 and page.count("The same as a table") == 3
    assert "21 ms" in page and "90 MiB" in page and 'class="bar bad"' in page


def test_managers_do_not_see_the_house(house: Console) -> None:
    mia = house.sign_in("mia", Role.MANAGER, house.tenant("alpha"))
    for path in ("/health", "/health/checks", "/health/trends"):
        assert mia.get(path).status_code == 403
