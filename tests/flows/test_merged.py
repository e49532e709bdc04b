"""A merge that a person made on the company's own forge is noticed, whatever way they merged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.core.changes import Change, ChangeState, review_digest
from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.promotions import PromotionState
from orchestrator.flows.merged import NOTED, MergedFlow
from orchestrator.parts.code import Code
from orchestrator.store import changes, promotions
from orchestrator.store.session import advisory_lock
from tests.support.cluster import Cluster
from tests.support.publishing import ACTOR, Site, git, publishing_site


@pytest.fixture
def site(tmp_path: Path, cluster: Cluster) -> Iterator[Site]:
    with publishing_site(tmp_path, cluster) as made:
        yield made


@pytest.fixture
def merged(site: Site) -> MergedFlow:
    return MergedFlow(site.store, site.records, Code(site.repository, "main"), site.repository, "main")  # type: ignore[arg-type]


def submitted(site: Site, *, rows: int = 0, state: ChangeState = ChangeState.SUBMITTED, **checks: object) -> Change:
    """A change with the published branch's code; only the count says that it has rows."""
    (site.tree / "app.py").write_text("one\nMINE\nthree\n")
    head = site.flow.run(site.tenant, actor=ACTOR).commit
    empty = Changeset.build("s1", {}, [])
    with site.store.begin() as connection:
        made = changes.add(
            connection,
            tenant_id=site.tenant.id,
            tenant_name=site.tenant.name,
            title="Mine",
            description="",
            author=ACTOR,
            generation_id=None,
            changeset=empty,
            digest=review_digest(empty.digest(), head),
            code_head=head,
        )
        return changes.save(connection, made, state=state, updated=rows, checks=checks)


def now(site: Site, change: Change) -> Change:
    with site.store.connect() as connection:
        return changes.get(connection, change.id)


def merge_by_hand(site: Site, *how: str) -> str:
    git(site.developer, "fetch", "--quiet", "origin")
    git(site.developer, "merge", "--quiet", *how, "origin/tenant/harbour")
    if "--squash" in how:
        git(site.developer, "commit", "--quiet", "--message", "Squashed by hand")
    git(site.developer, "push", "--quiet", "origin", "HEAD:main")
    return site.company_head("main")


@pytest.mark.parametrize("how", [("--no-ff", "--message", "By hand"), ("--ff-only",), ("--squash",)])
@pytest.mark.parametrize("state", [ChangeState.SUBMITTED, ChangeState.APPROVED, ChangeState.CONFLICTED])
def test_a_change_of_code_alone_is_done_with_its_merge(
    site: Site, merged: MergedFlow, how: tuple[str, ...], state: ChangeState
) -> None:
    change = submitted(site, state=state)
    assert merged.run() == []
    assert now(site, change).state is state
    at = merge_by_hand(site, *how)
    (said,) = merged.run()
    assert change.id in said and "elsewhere" in said
    done = now(site, change)
    assert done.state is ChangeState.PROMOTED
    assert "not by a promote here" in done.reason
    with site.store.connect() as connection:
        promotion = promotions.get(connection, str(done.promotion_id))
        kinds = [one.kind for one in changes.events(connection, change_id=change.id)]
    assert (promotion.state, promotion.code_after, promotion.report["merged_elsewhere"]) == (
        PromotionState.COMMITTED, at, at,
    )  # fmt: skip
    assert kinds == ["change.merged"]
    assert [record.action for record in site.records][-1] == "change.merged"
    assert merged.run() == []


def test_rows_are_left_to_a_promote_and_that_is_said_once(site: Site, merged: MergedFlow) -> None:
    change = submitted(site, rows=2)
    merge_by_hand(site, "--no-ff", "--message", "By hand")
    assert len(merged.run()) == 1
    merged.seen.clear()  # as another process would
    assert merged.run() == []
    assert now(site, change).state is ChangeState.SUBMITTED
    with site.store.connect() as connection:
        (comment,) = changes.comments(connection, change.id)
        events = [one.kind for one in changes.events(connection, change_id=change.id)]
    assert "What is left of it: its rows." in comment.text
    assert events == [NOTED]


def test_migrations_that_nobody_ran_keep_a_change_open(site: Site, merged: MergedFlow) -> None:
    code = {"migrations": [{"path": "migrations/1_add.sql", "text": "SELECT 1;"}]}
    change = submitted(site, code=code)
    merge_by_hand(site, "--ff-only")
    assert len(merged.run()) == 1
    assert now(site, change).state is ChangeState.SUBMITTED
    with site.store.connect() as connection:
        (comment,) = changes.comments(connection, change.id)
    assert "migrations/1_add.sql" in comment.text


def test_a_merge_that_was_taken_back_is_none(site: Site, merged: MergedFlow) -> None:
    change = submitted(site)
    code = Code(site.repository, "main")
    check = code.check("harbour", str(change.code_head))
    told: list[object] = []
    merge = code.merge(
        "harbour", str(change.code_head), expected=check.production, message="m", author="R", about_to=told.append
    )
    assert code.undo(merge)
    assert merged.run() == []
    assert now(site, change).state is ChangeState.SUBMITTED


def test_beside_a_promote_nothing_is_noticed(site: Site, merged: MergedFlow) -> None:
    change = submitted(site)
    merge_by_hand(site, "--ff-only")
    with advisory_lock(site.store, "promotion", change.id) as taken:
        assert taken
        assert merged.run() == []
    assert len(merged.run()) == 1


def test_a_remote_that_is_away_is_looked_at_again_later(site: Site, merged: MergedFlow) -> None:
    change = submitted(site)
    merge_by_hand(site, "--ff-only")
    away = site.company.rename(site.company.with_suffix(".away"))
    assert merged.run() == []
    away.rename(site.company)
    assert len(merged.run()) == 1
    assert now(site, change).state is ChangeState.PROMOTED
