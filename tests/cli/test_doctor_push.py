"""What `doctor` says about who may move production's branch: tried where the repository is ours, said plainly else."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.drivers.git.workspace import first_commit
from orchestrator.wiring.drivers import company_repository, push_keys
from orchestrator.wiring.pushing import push_results
from tests.support.interfaces import settings


def test_our_own_repository_is_tried(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    (result,) = push_results(chosen)
    assert result.ok and "no repository yet" in result.note
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "a.py").write_text("a\n")
    first_commit(tmp_path / "app", company_repository(chosen.places), branch="main")
    (result,) = push_results(chosen)
    assert not result.ok and "orchestrator up" in result.cure
    push_keys(chosen).ensure()
    (result,) = push_results(chosen)
    assert result.ok and result.note.startswith("enforced: ")
    (company_repository(chosen.places) / "hooks" / "update").write_text("#!/bin/sh\nexit 0\n")
    (result,) = push_results(chosen)
    assert not result.ok and "the publish key can move main" in result.cause


@pytest.mark.parametrize(
    ("publish", "merge", "ok", "said"),
    [
        (None, None, True, "conventional: "),
        ("one", None, True, "conventional: "),
        ("one", "two", True, "held by the remote"),
        ("one", "one", False, "the same key"),
    ],
)
def test_a_companys_remote_is_what_it_says(
    tmp_path: Path, publish: str | None, merge: str | None, ok: bool, said: str
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    chosen = settings(tmp_path)
    branch = chosen.branch.model_copy(
        update={
            "remote": "ssh://git@forge.example/app.git",
            "publish_credential_file": tmp_path / publish if publish else None,
            "merge_credential_file": tmp_path / merge if merge else None,
        }
    )
    (result,) = push_results(chosen.model_copy(update={"branch": branch}))
    assert result.ok is ok
    assert said in f"{result.note}{result.cause}"
