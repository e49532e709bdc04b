"""The control plane vanishes at every boundary of a promote: rows and code agree afterwards, and the records say so."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.core.changes import Change, ChangeState
from orchestrator.core.promotions import Promotion, PromotionState
from orchestrator.drivers.git.remote import Remote
from orchestrator.drivers.git.repository import BareRepository
from orchestrator.parts.code import Code
from orchestrator.store import changes, promotions
from orchestrator.store.session import connect
from tests.support.proposing import MIA, RUTH, Company

RENAME = "UPDATE bookings SET guest = 'renamed' WHERE id = 1"
ROUNDS_MAX = 600
# Every boundary the journal knows, and whether the change is promoted when the process dies there.
ROWS_AND_CODE = {
    "planned": False,
    "writing": False,
    "merging": False,
    "merged": False,
    "committing": False,
    "committed": True,
}
CODE_ALONE = {"planned": False, "merging": False, "merged": False, "committing": True, "committed": True}


@dataclass
class Branch:
    """The company's repository with one proposed commit on the tenant's branch."""

    company: Path
    code: Code

    def files(self) -> list[str]:
        return git(self.company, "ls-tree", "-r", "--name-only", "main").split()

    def merges(self) -> int:
        return int(git(self.company, "rev-list", "--count", "--merges", "main"))


def git(directory: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Dev", "-c", "user.email=dev@example.test", "-c", "safe.directory=*"]
    done = subprocess.run(["git", *identity, *arguments], cwd=directory, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def branch(tmp_path: Path) -> Branch:
    company, work = tmp_path / "company.git", tmp_path / "work"
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch=main", str(company))
    git(tmp_path, "clone", "--quiet", str(company), str(work))
    for name, target in (("app.py", "main"), ("report.py", "tenant/north")):
        (work / name).write_text(f"{name}\n")
        git(work, "add", "--all")
        git(work, "commit", "--quiet", "--message", name)
        git(work, "push", "--quiet", "origin", f"HEAD:{target}")
    repository = BareRepository(tmp_path / "bare.git", Remote(str(company)))
    repository.ensure()
    repository.fetch(branch="main")
    repository.fetch(branch="tenant/north")
    return Branch(company, Code(repository, "main"))


def guest(hotel: Company) -> str:
    return str(hotel.ask("SELECT guest FROM bookings WHERE id = 1")[0][0])


def vanish_at(hotel: Company, step: str, work: Callable[[], object]) -> None:
    """Run `work` in a child that is gone at `step`, without a word to anybody."""
    url = hotel.store.url.render_as_string(hide_password=False)
    child = os.fork()
    if child == 0:
        try:
            hotel.store.dispose(close=False)
            hotel.store = connect(url)
            hotel.at = lambda reached: os._exit(9) if reached == step else None
            work()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 9, f"the promote never came to {step}"


def settle(hotel: Company) -> None:
    """What reconcile does every minute, and the next start at once."""
    for _ in range(ROUNDS_MAX):
        left = {**hotel.promote.recover(), **hotel.revert.recover()}
        if PromotionState.RUNNING not in left.values():
            return
        threading.Event().wait(0.05)  # a dead client's session may live on for a moment
    raise AssertionError("it was never settled")


def records(hotel: Company, change: Change) -> tuple[ChangeState, Promotion]:
    with hotel.store.connect() as connection:
        return changes.get(connection, change.id).state, promotions.of_change(connection, change.id)[0]


@pytest.mark.parametrize("step", [step for step in ROWS_AND_CODE if not step.startswith("merg")])
def test_rows_alone(hotel: Company, step: str) -> None:
    hotel.work(RENAME)
    approved = hotel.approved()
    vanish_at(hotel, step, lambda: hotel.promote.run(approved.id, hotel.tenant, actor=RUTH))
    settle(hotel)
    if ROWS_AND_CODE[step]:
        assert (guest(hotel), records(hotel, approved)[0]) == ("renamed", ChangeState.PROMOTED)
    else:
        assert (guest(hotel), records(hotel, approved)[0]) == ("guest 1", ChangeState.APPROVED)
        assert records(hotel, approved)[1].state is PromotionState.FAILED
        hotel.promote.run(approved.id, hotel.tenant, actor=RUTH)
    assert hotel.revert.run(approved.id, hotel.tenant, actor=RUTH).state is PromotionState.COMMITTED
    assert guest(hotel) == "guest 1"


@pytest.mark.parametrize("step", ROWS_AND_CODE)
def test_rows_and_code(hotel: Company, branch: Branch, step: str) -> None:
    hotel.code = branch.code
    hotel.work(RENAME)
    approved = hotel.approved()
    vanish_at(hotel, step, lambda: hotel.promote.run(approved.id, hotel.tenant, actor=RUTH))
    if step == "merged":
        assert "report.py" in branch.files(), "here the branch has moved and the rows have not"
    settle(hotel)
    state, promotion = records(hotel, approved)
    if ROWS_AND_CODE[step]:
        assert (promotion.state, state) == (PromotionState.COMMITTED, ChangeState.PROMOTED)
    else:
        assert (promotion.state, state) == (PromotionState.FAILED, ChangeState.APPROVED)
        assert (guest(hotel), branch.files()) == ("guest 1", ["app.py"])
        hotel.promote.run(approved.id, hotel.tenant, actor=RUTH)
    assert (guest(hotel), branch.files()) == ("renamed", ["app.py", "report.py"])
    assert records(hotel, approved)[0] is ChangeState.PROMOTED


@pytest.mark.parametrize("step", CODE_ALONE)
def test_code_alone(hotel: Company, branch: Branch, step: str) -> None:
    hotel.code = branch.code
    approved = hotel.approved()
    vanish_at(hotel, step, lambda: hotel.promote.run(approved.id, hotel.tenant, actor=RUTH))
    settle(hotel)
    state, _ = records(hotel, approved)
    if CODE_ALONE[step]:
        assert state is ChangeState.PROMOTED
    else:
        assert (state, branch.files()) == (ChangeState.APPROVED, ["app.py"])
        hotel.promote.run(approved.id, hotel.tenant, actor=RUTH)
    assert branch.files() == ["app.py", "report.py"]


@pytest.mark.parametrize("step", ["planned", "writing", "committing", "committed"])
def test_reverts(hotel: Company, step: str) -> None:
    hotel.work(RENAME)
    promoted = hotel.promoted()
    with hotel.store.connect() as connection:
        change = changes.get(connection, promoted.change_id)
    vanish_at(hotel, step, lambda: hotel.revert.run(change.id, hotel.tenant, actor=RUTH))
    settle(hotel)
    if not ROWS_AND_CODE[step]:
        assert guest(hotel) == "renamed"
        hotel.revert.run(change.id, hotel.tenant, actor=RUTH)
    assert guest(hotel) == "guest 1"
    with hotel.store.connect() as connection:
        assert changes.get(connection, change.id).reverted_at is not None


def test_while_the_repository_is_away_the_record_stays_open_and_is_settled_later(
    hotel: Company, branch: Branch
) -> None:
    hotel.code = branch.code
    hotel.work(RENAME)
    approved = hotel.approved()
    vanish_at(hotel, "merged", lambda: hotel.promote.run(approved.id, hotel.tenant, actor=RUTH))
    branch.company.rename(branch.company.with_suffix(".away"))
    assert set(hotel.promote.recover().values()) == {PromotionState.RUNNING}
    assert records(hotel, approved)[1].state is PromotionState.RUNNING
    branch.company.with_suffix(".away").rename(branch.company)
    settle(hotel)
    assert (guest(hotel), branch.files()) == ("guest 1", ["app.py"])


@pytest.mark.parametrize("step", ["checked"])
def test_a_submit_that_dies_leaves_the_draft(hotel: Company, step: str) -> None:
    hotel.work(RENAME)
    draft = hotel.drafted()
    vanish_at(hotel, step, lambda: hotel.changes.submit(draft.id, hotel.tenant, actor=MIA))
    with hotel.store.connect() as connection:
        assert changes.get(connection, draft.id).state is ChangeState.DRAFT
    assert hotel.changes.submit(draft.id, hotel.tenant, actor=MIA).state is ChangeState.SUBMITTED
