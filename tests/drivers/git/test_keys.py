"""The key that publishes cannot move production, and nobody can rewrite or delete: held by the repository itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.core.ports.git import PushRefused
from orchestrator.drivers.git.keys import PushKeys
from orchestrator.drivers.git.remote import Remote
from orchestrator.drivers.git.repository import BareRepository
from orchestrator.drivers.git.workspace import first_commit


@pytest.fixture
def keys(tmp_path: Path) -> PushKeys:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "app.py").write_text("one\n")
    first_commit(tmp_path / "app", tmp_path / "company.git", branch="main")
    made = PushKeys(tmp_path / "company.git", tmp_path / "secrets", "main")
    made.ensure()
    made.ensure()
    return made


@pytest.fixture
def repository(tmp_path: Path, keys: PushKeys) -> BareRepository:
    made = BareRepository(tmp_path / "bare.git", Remote(str(keys.repository), keys=keys))
    made.ensure()
    made.fetch(branch="main")
    return made


def commit_on(repository: BareRepository, base: str, word: str) -> str:
    return repository.restore(base, onto=base, message=word, author="A", email="a@example.test")


def test_each_key_moves_its_own_branches_alone(repository: BareRepository) -> None:
    base = str(repository.branch("main"))
    made = commit_on(repository, base, "next")
    with pytest.raises(PushRefused, match="main"):
        repository.push(made, branch="main", expected=base, credential="publish")
    with pytest.raises(PushRefused):
        repository.push(made, branch="tenant/a", expected=None, credential="merge")
    with pytest.raises(PushRefused):
        repository.push(made, branch="elsewhere", expected=None, credential="merge")
    assert repository.remote_branch("main") == base
    assert repository.remote_branch("tenant/a") is repository.remote_branch("elsewhere") is None
    repository.push(made, branch="tenant/a", expected=None, credential="publish")
    repository.push(made, branch="main", expected=base, credential="merge")
    assert repository.remote_branch("tenant/a") == repository.remote_branch("main") == made


def test_a_push_without_a_key_moves_nothing(keys: PushKeys, repository: BareRepository, tmp_path: Path) -> None:
    bare = BareRepository(tmp_path / "bare.git", Remote(str(keys.repository)))
    base = str(bare.branch("main"))
    for branch in ("main", "tenant/a"):
        with pytest.raises(PushRefused):
            bare.push(
                commit_on(bare, base, "x"), branch=branch, expected=bare.remote_branch(branch), credential="merge"
            )
    assert bare.remote_branch("main") == base


def test_what_the_repository_holds_is_tried_and_a_hook_that_lets_everybody_in_is_noticed(keys: PushKeys) -> None:
    holds, evidence = keys.probe()
    assert holds and "6 pushes" in evidence
    hook = keys.repository / "hooks" / "update"
    hook.write_text("#!/bin/sh\nexit 0\n")
    holds, evidence = keys.probe()
    assert not holds and "the publish key can move main" in evidence
    keys.ensure()
    assert keys.probe()[0]


def test_the_keys_are_nowhere_but_in_their_files(keys: PushKeys) -> None:
    secrets = [path.read_text().strip() for path in keys.files().values()]
    assert len(set(secrets)) == 2
    assert all(path.stat().st_mode & 0o077 == 0 for path in keys.files().values())
    kept = "".join(path.read_text() for path in (keys.repository / "push-keys").iterdir())
    assert not any(secret in kept for secret in secrets)
