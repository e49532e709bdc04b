"""The fleet page: what needs attention comes first and says why, and nobody sees it who may not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.core.access import Role
from orchestrator.core.actors import system
from orchestrator.core.ports.engine import ContainerStats
from orchestrator.core.probes import Outcome, Probe
from orchestrator.core.refresh import RefreshKind
from orchestrator.core.tenants import Tenant, TenantState
from orchestrator.flows.usage import Usage
from orchestrator.store import probes, refreshes, tenants
from orchestrator.web.fleet_rows import attention
from tests.support.cluster import Cluster
from tests.support.console import Console, console

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
BIDI = "‮txt.exe"


class Measured:
    """Containers that have used one second of a processor more at every look."""

    def __init__(self) -> None:
        self.cpu_seconds = 0.0
        self.settings: object = None

    def of(self, tenant: Tenant) -> Usage:
        self.cpu_seconds += 1.0
        stats = ContainerStats(64 << 20, 512 << 20, self.cpu_seconds, 5)
        profile = self.settings.limits.profile(tenant.profile)  # type: ignore[attr-defined]
        return Usage(profile, stats, None, 1 << 20, 1 << 20)


@pytest.fixture
def house(cluster: Cluster, tmp_path: Path) -> Iterator[Console]:
    measured = Measured()
    with console(cluster, tmp_path, usage=measured) as made:
        measured.settings = made.services.settings
        yield made


def test_what_needs_attention_comes_first_and_says_why(house: Console) -> None:
    house.tenant("alpha")
    broken = house.tenant("zulu")
    tenants.set_state(house.store, broken.id, TenantState.FAILED, reason=f"no disk <b>{BIDI}</b>")
    page = house.sign_in("ada", Role.ADMIN).get("/fleet")
    assert page.status_code == 200
    assert page.text.index("/fleet/zulu") < page.text.index("/fleet/alpha")
    assert "1 needs attention" in page.text and "no disk &lt;b&gt;" in page.text
    assert BIDI[0] not in page.text and "\\u202e" in page.text


def test_a_failed_refresh_and_a_broken_boundary_are_told(house: Console) -> None:
    tenant = house.tenant("alpha")
    begun = refreshes.begin(
        house.store,
        tenant_id=tenant.id,
        kind=RefreshKind.REFRESH,
        generation_id="g1",
        previous_id=None,
        snapshot_id=None,
        requested_by=system("scheduler").name,
    )
    refreshes.fail(house.store, begun.id, code="limit_reached.disk", message="The disk is full.")
    probes.add(house.store, tenant.id, [Probe("host", Outcome.BROKEN, "connect", "it answered")])
    page = house.sign_in("ada", Role.ADMIN).get("/fleet?attention=yes").text
    assert "The disk is full." in page and "A boundary did not hold" in page and "broken" in page


def test_filters_and_pages_keep_each_other(house: Console) -> None:
    for number in range(60):
        house.tenant(f"branch-{number:02}")
    house.tenant("other", TenantState.STOPPED)
    ada = house.sign_in("ada", Role.ADMIN)
    first = ada.get("/fleet?q=branch").text
    assert "branch-00" in first and "/fleet/other" not in first
    assert "q=branch&amp;page=2" in first
    assert "branch-59" in ada.get("/fleet?q=branch&page=2").text
    assert "/fleet/other" in ada.get("/fleet?state=stopped").text
    assert "No tenant is like that" in ada.get("/fleet?q=nobody").text


def test_an_empty_fleet_says_how_to_begin(house: Console) -> None:
    page = house.sign_in("ada", Role.ADMIN).get("/fleet").text
    assert "There is no tenant yet" in page and 'href="/launch"' in page
    reader = house.sign_in("rob", Role.REVIEWER).get("/fleet").text
    assert "There is no tenant yet" in reader and 'href="/launch"' not in reader


def test_use_is_measured_between_two_looks(house: Console) -> None:
    house.tenant("alpha")
    ada = house.sign_in("ada", Role.ADMIN)
    first = ada.get("/fleet/alpha/usage", headers={"hx-request": "true"}).text
    assert "measuring" in first and "64.0 MiB of" in first and "<html" not in first
    earlier = datetime.now(UTC) - timedelta(seconds=10)
    again = ada.get(f"/fleet/alpha/usage?at={earlier.timestamp()}&cpu=1").text
    assert "<html" in again and "Processors" in again and "measuring" not in again
    restarted = ada.get(f"/fleet/alpha/usage?at={earlier.timestamp()}&cpu=900").text
    assert "measuring" in restarted
    assert ada.get("/fleet/alpha/usage?at=inf").status_code == 422


def test_managers_see_no_fleet(house: Console) -> None:
    alpha = house.tenant("alpha")
    mia = house.sign_in("mia", Role.MANAGER, alpha)
    assert mia.get("/fleet").status_code == 403
    assert mia.get("/fleet/alpha/usage").status_code == 403


def _tenant(state: TenantState = TenantState.RUNNING, reason: str = "") -> Tenant:
    return SimpleNamespace(state=state, reason=reason, created_at=NOW - timedelta(hours=1))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("tenant", "age_h", "expected"),
    [
        (_tenant(), 7, []),
        (_tenant(), 9, ["Its data is 9 h old."]),
        (_tenant(TenantState.STOPPED), 90, []),
        (_tenant(reason="x"), 1, ["Bringing it back failed: x"]),
        (_tenant(TenantState.LAUNCHING), 1, ["It has been launching for long."]),
    ],
)
def test_attention(tenant: Tenant, age_h: int, expected: list[str]) -> None:
    found = attention(
        tenant,
        now=NOW,
        data_as_of=NOW - timedelta(hours=age_h),
        stale_after_s=8 * 3600,
        refresh=None,
        publish=None,
        probe=None,
    )
    assert list(found) == expected
