"""Sessions on the command line: where somebody is signed in, and ending one sign-in or all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from orchestrator.cli import session
from orchestrator.cli.app import create
from orchestrator.core.access import Role
from orchestrator.core.ports.audit import AuditQuery
from orchestrator.store import sessions
from tests.support.cluster import Cluster
from tests.support.console import Console, console


@pytest.fixture
def house(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Console]:
    with console(cluster, tmp_path) as made:

        @contextmanager
        def opened() -> Iterator[SimpleNamespace]:
            yield made.services

        monkeypatch.setattr(session, "opened", opened)
        yield made


def _twice(house: Console) -> list[str]:
    """mia signs in at two browsers; the sessions, what was used last first."""
    mia = house.sign_in("mia", Role.MANAGER, house.tenant("north"))
    sessions.begin(house.store, mia.user.id, house.services.settings.proxy.console_host, lifetime_s=600, agent="Tablet")
    return [one.id for one in house.services.access.sessions_of(mia.user)]


def test_one_sign_in_is_ended_and_the_other_stays(house: Console) -> None:
    first, other = _twice(house)
    listed = CliRunner().invoke(create(), ["user", "sessions", "mia", "-o", "json"])
    assert listed.exit_code == 0, listed.output
    assert {one["id"] for one in json.loads(listed.stdout)} == {first, other}
    done = CliRunner().invoke(create(), ["user", "sign-out", "mia", "--session", first])
    assert done.exit_code == 0 and "1 session of mia ended" in done.output
    again = CliRunner().invoke(create(), ["user", "sign-out", "mia", "--session", first])
    assert again.exit_code == 4, "not found"
    left = json.loads(CliRunner().invoke(create(), ["user", "sessions", "mia", "-o", "json"]).stdout)
    assert [one["id"] for one in left] == [other]
    recorded = house.audit.search(AuditQuery(action="session.end"))
    assert [one.values["target"] for one in recorded] == ["mia"]


def test_signing_out_everywhere_asks_first(house: Console) -> None:
    _twice(house)
    unasked = CliRunner().invoke(create(), ["user", "sign-out", "mia"])
    assert unasked.exit_code == 2, "nobody could be asked"
    done = CliRunner().invoke(create(), ["user", "sign-out", "mia", "--yes"])
    assert done.exit_code == 0 and "2 sessions of mia ended" in done.output
    assert "signed in nowhere" in CliRunner().invoke(create(), ["user", "sessions", "mia"]).output


def test_a_draft_is_not_edited_by_saying_nothing() -> None:
    assert CliRunner().invoke(create(), ["change", "edit", "c1"]).exit_code == 2
