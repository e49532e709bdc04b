"""Snapshots, schedules, people: pages of the house as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.config import PROJECT, read_yaml
from orchestrator.core.access import Role
from orchestrator.core.masking import rules
from orchestrator.core.snapshots import Manifest, Snapshot, SnapshotState, SnapshotStep, TableReport
from orchestrator.store import jobs, sessions, tokens, users
from tests.support.cluster import Cluster
from tests.support.console import PASSWORD, Browser, Console, console

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)
MANIFEST = Manifest(
    snapshot_id="s1",
    profile="full",
    source="the mirror",
    taken_at=AT,
    server_version="18.1",
    major=18,
    encoding="UTF8",
    collation="C",
    origin_lsn="0/1",
    system_id="1",
    files=10,
    size_bytes=5 << 20,
    tables={"hotel.guests": TableReport(100, 100, 90)},
    masked={"hotel.guests.email": "email"},
    canaries=7,
    checksummed_blocks=3,
)


def snapshot(name: str, state: SnapshotState, manifest: Manifest | None, error: str | None = None) -> Snapshot:
    taken_at = AT if manifest else None
    return Snapshot(name, "full", state, SnapshotStep.MASK, "the mirror", "", AT, taken_at, AT, None, error, manifest)


class Snapshots:
    """A good one and a failed one, under the shipped masking rules."""

    made = (
        snapshot("s1", SnapshotState.READY, MANIFEST),
        snapshot("s2", SnapshotState.FAILED, None, "The column <b>x</b> is not classified."),
    )

    def listed(self) -> list[Snapshot]:
        return list(self.made)

    def in_use(self) -> set[str]:
        return {"s1"}

    def get(self, snapshot_id: str) -> Snapshot:
        return next(one for one in self.made if one.id == snapshot_id)

    def masking(self) -> rules.Masking:
        return rules.parse(read_yaml(PROJECT / "configs" / "masking.yaml"))


@pytest.fixture
def house(cluster: Cluster, tmp_path: Path) -> Iterator[Console]:
    with console(cluster, tmp_path, snapshots=Snapshots(), usage=SimpleNamespace()) as made:
        yield made


@pytest.fixture
def ada(house: Console) -> Browser:
    return house.sign_in("ada", Role.ADMIN)


def test_snapshots_tell_their_masking(house: Console, ada: Browser) -> None:
    page = ada.get("/snapshots").text
    assert "in use" in page and "&lt;b&gt;x" in page and "5.0 MiB" in page
    shown = ada.get("/snapshots/s1").text
    assert "hotel.guests" in shown and "<code>email</code>" in shown and "7 samples searched for" in shown
    assert "is not classified" in ada.get("/snapshots/s2").text


def test_a_snapshot_is_asked_for_as_a_job(house: Console, ada: Browser) -> None:
    asked = ada.send("/snapshots", profile="full", reason="fresh rates")
    found = jobs.find(house.store, kind="snapshot")
    assert asked.headers["location"] == f"/jobs/{found[0].id}?watch=1" and found[0].reason == "fresh rates"
    assert ada.post("/snapshots", profile="unheard-of").status_code == 422
    assert len(jobs.find(house.store, kind="snapshot")) == 1


def test_the_schedule_says_what_comes_next(house: Console, ada: Browser) -> None:
    house.tenant("alpha")
    page = ada.get("/schedules").text
    assert "Snapshot" in page and "every 4 h<" in page and 'href="/fleet/alpha"' in page and "in " in page


def test_people_are_added_changed_and_shut_out(house: Console, ada: Browser) -> None:
    alpha = house.tenant("alpha")
    made = ada.post("/users", name="mia", role="manager", password=PASSWORD, tenant="alpha")
    assert made.headers["location"] == "/users/mia", made.text
    assert users.named(house.store, "mia").tenant_ids == {alpha.id}
    assert "mia" in ada.get("/users").text and "checked" in ada.get("/users/mia").text
    ada.post("/users/mia", role="reviewer", disabled="yes")
    changed = users.named(house.store, "mia")
    assert (changed.role, changed.is_disabled, changed.tenant_ids) == (Role.REVIEWER, True, frozenset())
    assert ada.post("/users", name="bot", role="agent", password=PASSWORD).status_code == 422
    refused = ada.post("/users/ada", role="manager")
    assert refused.status_code == 422 and users.named(house.store, "ada").role is Role.ADMIN


def test_a_new_password_and_an_ended_session_sign_people_out(house: Console, ada: Browser) -> None:
    mia = house.sign_in("mia", Role.MANAGER)
    session = ada.get("/users/mia").text.split("/sessions/")[1].split("/end")[0]
    ada.post(f"/users/mia/sessions/{session}/end")
    assert mia.get("/account").headers["location"].startswith("/login")
    assert ada.post("/users/mia/sessions/s0/end").status_code == 303
    sessions.begin(house.store, mia.user.id, house.services.settings.proxy.console_host, lifetime_s=600)
    assert "orchestrator user sign-out mia --session s" in ada.get("/users/mia").text
    assert ada.post("/users/mia/sessions/end").headers["location"] == "/users/mia"
    assert "signed out everywhere: 1 session ended" in ada.get("/users/mia").text
    assert ada.post("/users/mia/password", password="a whole new one").status_code == 303


def test_admins_revoke_anybodys_token(house: Console, ada: Browser) -> None:
    mia = house.sign_in("mia", Role.MANAGER)
    _, token = tokens.add(
        house.store, mia.user.id, "<i>agent", role=Role.AGENT, scopes=(), tenant_ids=None, lifetime_s=3600
    )
    assert "&lt;i&gt;agent" in ada.get("/users").text
    ada.post(f"/users/tokens/{token.id}/revoke")
    assert tokens.get(house.store, token.id).revoked_at is not None


def test_who_may_what(house: Console) -> None:
    mia, rob = house.sign_in("mia", Role.MANAGER, house.tenant("alpha")), house.sign_in("rob", Role.REVIEWER)
    for path in ("/snapshots", "/snapshots/s1", "/schedules", "/users", "/users/rob"):
        assert mia.get(path).status_code == 403
        assert rob.get(path).status_code == 200
    for browser in (mia, rob):
        for path in ("/snapshots", "/snapshots/prune", "/users", "/users/mia", "/users/mia/password"):
            assert browser.post(path, name="eve", role="admin", password=PASSWORD).status_code == 403
