"""Results of disposable commands: all of it fits and is applied, or nothing is, and the reason is told."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.core.commands import FileChanged, NotApplicable, ResultGone, WorkspaceMoved
from orchestrator.core.places import Places
from orchestrator.core.tenants import PoolMode, RefreshPolicy, Tenant, TenantState
from orchestrator.drivers.files.placing import ConfinedPlacer
from orchestrator.parts.applying import ChangeApplier

LARGE = os.urandom(2_000_000)
NORTH = Tenant(
    "t1", "north", 0, "office", "", TenantState.RUNNING, None, "full", RefreshPolicy.SAVE, PoolMode.TRANSACTION,
    datetime(2031, 5, 4, tzinfo=UTC),
)  # fmt: skip


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


RESULT = [
    FileChanged("a.txt", "modified", digest(b"one"), digest(b"two"), b"two", size_bytes=3),
    FileChanged("big/large.bin", "added", "", digest(LARGE), size_bytes=len(LARGE)),
    FileChanged("link", "added", "", "link:a.txt", link="a.txt"),
    FileChanged("old.txt", "deleted", digest(b"old")),
]


@pytest.fixture
def places(tmp_path: Path) -> Places:
    places = Places(tmp_path)
    workspace, kept = places.workspace(NORTH.id), places.results(NORTH.id) / "k1"
    workspace.mkdir(parents=True)
    kept.mkdir(parents=True)
    (workspace / "a.txt").write_bytes(b"one")
    (workspace / "old.txt").write_bytes(b"old")
    (kept / digest(LARGE)).write_bytes(LARGE)
    return places


def seen(places: Places) -> dict[str, bytes]:
    root = places.workspace(NORTH.id)
    found = {str(one.relative_to(root)): one for one in root.rglob("*") if one.is_symlink() or one.is_file()}
    return {name: os.fsencode(one.readlink()) if one.is_symlink() else one.read_bytes() for name, one in found.items()}


def test_small_and_large_files_links_and_deletions_are_applied(places: Places) -> None:
    applier = ChangeApplier(ConfinedPlacer(), places)
    applier.check(NORTH, "k1", RESULT)
    applier.apply(NORTH, "k1", RESULT)
    assert seen(places) == {"a.txt": b"two", "big/large.bin": LARGE, "link": b"a.txt"}


@pytest.mark.parametrize("path", ["a.txt", "old.txt", "link", "big/large.bin"])
def test_nothing_is_applied_when_any_of_it_has_moved(places: Places, path: str) -> None:
    moved = places.workspace(NORTH.id) / path
    moved.parent.mkdir(exist_ok=True)
    moved.write_bytes(b"moved meanwhile")
    before = seen(places)
    with pytest.raises(WorkspaceMoved, match=path):
        ChangeApplier(ConfinedPlacer(), places).check(NORTH, "k1", RESULT)
    assert seen(places) == before


def test_what_cannot_be_applied_is_named_with_its_reason(places: Places) -> None:
    refused = FileChanged("out", "added", problem="is a link that leads out of the workspace, to /etc/passwd")
    with pytest.raises(NotApplicable, match="out is a link that leads out of the workspace, to /etc/passwd") as caught:
        ChangeApplier(ConfinedPlacer(), places).check(NORTH, "k1", [*RESULT, refused])
    assert caught.value.fields["paths"] == {"out": refused.problem}


def test_a_result_that_made_room_for_newer_ones_says_so(places: Places) -> None:
    (places.results(NORTH.id) / "k1" / digest(LARGE)).unlink()
    with pytest.raises(ResultGone, match=r"big/large\.bin"):
        ChangeApplier(ConfinedPlacer(), places).check(NORTH, "k1", RESULT)
