"""The inbox of approvals, and the allowlist's editor: consequences are seen before anything is saved."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest

from orchestrator.config import PROJECT
from orchestrator.core.access import Role
from orchestrator.core.actors import Actor, ActorKind
from orchestrator.core.allowlist.request import CommandRequest
from orchestrator.core.approvals import ApprovalState
from orchestrator.core.commands import CommandState
from orchestrator.core.tenants import Tenant
from orchestrator.drivers.policy.file import DiskPolicyFile
from orchestrator.flows.allowlist import AllowlistFlow
from orchestrator.flows.approval import ApprovalFlow
from orchestrator.parts.policy import PolicyPart
from orchestrator.store import commands, tenants
from tests.support.cluster import Cluster
from tests.support.console import Browser, Console, console

AGENT = Actor(ActorKind.AGENT, "k1", "mia/pricing", on_behalf_of="u1")


@pytest.fixture
def house(cluster: Cluster, tmp_path: Path) -> Iterator[Console]:
    file = shutil.copy(PROJECT / "configs" / "allowlist.yaml", tmp_path / "allowlist.yaml")
    with console(cluster, tmp_path) as made:
        policies = PolicyPart(made.store, made.audit, DiskPolicyFile(Path(file)))
        made.services.approvals = ApprovalFlow(made.store, made.audit, policies)
        made.services.allowlist = AllowlistFlow(made.store, policies, lambda one: tenants.get(made.store, one))
        yield made


@pytest.fixture
def ada(house: Console) -> Browser:
    return house.sign_in("ada", Role.ADMIN)


def ask(house: Console, tenant: Tenant, *argv: str, actor: Actor = AGENT) -> str:
    request = CommandRequest(argv=argv)
    return house.services.approvals.ask_rule(tenant, request, actor=actor, reason="to scan <i>").id  # type: ignore[no-any-return]


def edit(browser: Browser, page: str = "/allowlist/edit") -> dict[str, str]:
    """What the editor's form would send, with the line ends a browser sends."""
    html = browser.get(page).text
    text = unescape(html.split("<textarea", 1)[1].split(">\n", 1)[1].split("</textarea>")[0])
    expected = re.search(r'name="expected" value="(\d+)"', html)
    assert expected is not None
    return {"text": text.replace("\n", "\r\n"), "expected": expected[1]}


def reviewed(html: str) -> str:
    found = re.search(r'name="reviewed" value="([0-9a-f]{64})"', html)
    assert found is not None
    return found[1]


def test_a_request_is_shown_exactly_and_decided_by_somebody_else(house: Console, ada: Browser) -> None:
    approval_id = ask(house, house.tenant("alpha"), "nmap", "<script>", "\u202etxt")
    inbox = ada.get("/approvals").text
    assert f"/approvals/{approval_id}" in inbox and "\u202e" not in inbox and "<script>" not in inbox
    page = ada.get(f"/approvals/{approval_id}").text
    assert "agent" in page and "to scan &lt;i&gt;" in page and "\u202e" not in page and "A draft of the rule" in page
    assert ada.post(f"/approvals/{approval_id}/deny", reason="no scans").headers["location"] == "/approvals"
    assert house.services.approvals.get(approval_id).state is ApprovalState.DENIED
    assert "Nothing waits" in ada.get("/approvals").text
    assert "no scans" in ada.get(f"/approvals/{approval_id}").text
    assert ada.post(f"/approvals/{approval_id}/approve").status_code == 409


def test_nobody_decides_about_their_own_request(house: Console, ada: Browser) -> None:
    own = Actor(ActorKind.AGENT, "k2", "ada/agent", on_behalf_of=ada.user.id)
    approval_id = ask(house, house.tenant("alpha"), "nmap", actor=own)
    assert "another person has to decide" in ada.get(f"/approvals/{approval_id}").text
    assert ada.post(f"/approvals/{approval_id}/approve").status_code == 403
    assert house.services.approvals.get(approval_id).state is ApprovalState.PENDING


def test_a_denial_becomes_a_rule(house: Console, ada: Browser) -> None:
    approval_id = ask(house, house.tenant("alpha"), "uniq", "-D", "a.csv")
    form = edit(ada, f"/allowlist/edit?draft={approval_id}")
    assert "draft.uniq" in form["text"] and "tenant:alpha" in form["text"]
    review = ada.post("/allowlist/edit", do="review", **form)
    assert review.status_code == 200, review.text
    form["reason"] = "Needed once a year"
    saved = ada.post("/allowlist/edit", do="save", reviewed=reviewed(review.text), **form)
    assert saved.headers["location"] == "/allowlist", saved.text
    page = ada.get("/allowlist").text
    assert "draft.uniq" in page and "version 2 in force" in page and "Needed once a year" in page


def test_the_test_box_names_the_deciding_rule(house: Console, ada: Browser) -> None:
    house.tenant("alpha")
    form = edit(ada)
    tried = ada.post("/allowlist/edit", do="test", tenant="alpha", line="git push --force", **form).text
    assert "<code>git.push</code>" in tried and ">deny<" in tried
    array = ada.post("/allowlist/edit", do="test", tenant="alpha", line='["nmap", "a b"]', **form).text
    assert "no rule" in array
    broken = ada.post("/allowlist/edit", do="test", tenant="alpha", line="ls 'x", **form)
    assert broken.status_code == 422 and "cannot be read" in broken.text
    assert house.services.allowlist.in_force().version.number == 1


def test_saving_shows_the_consequences_first(house: Console, ada: Browser) -> None:
    alpha = house.tenant("alpha")
    ran = commands.draft(
        "c1",
        tenant=alpha,
        actor=AGENT,
        request=CommandRequest(argv=("pwd",)),
        decision="allow",
        rule="x",
        reason="",
        policy_version=1,
        state=CommandState.FINISHED,
    )
    commands.add(house.store, ran)
    form = edit(ada)
    form["text"] += "\r\n  - id: no.pwd\r\n    program: pwd\r\n    free: true\r\n    decision: deny\r\n"
    form["text"] += "    reason: Not here.\r\n    match: [pwd]\r\n"
    early = ada.post("/allowlist/edit", do="save", reason="a reason", **form)
    assert early.status_code == 200 and "1 of the last 1 command would now be decided otherwise" in early.text
    assert "+  - id: no.pwd" in early.text and house.services.allowlist.in_force().version.number == 1
    token = reviewed(early.text)
    nameless = ada.post("/allowlist/edit", do="save", reason="", reviewed=token, **form)
    assert nameless.status_code == 422 and "Give a reason" in nameless.text
    ada.post("/allowlist/edit", do="save", reason="a reason", reviewed=token, **form)
    assert house.services.allowlist.in_force().version.number == 2
    moved = ada.post("/allowlist/edit", do="save", reason="again", reviewed=token, **form)
    assert moved.status_code == 422 and "at version 2, not at 1" in moved.text


def test_an_invalid_text_changes_nothing_and_keeps_what_was_typed(house: Console, ada: Browser) -> None:
    form = edit(ada)
    form["text"] += "\r\nnonsense: <b>\r\n"
    refused = ada.post("/allowlist/edit", do="review", **form)
    assert refused.status_code == 422 and "not valid" in refused.text and "nonsense: &lt;b&gt;" in refused.text
    assert 'name="reviewed" value=""' in refused.text
    assert house.services.allowlist.in_force().version.number == 1


def test_an_old_version_comes_back_as_a_new_one(house: Console, ada: Browser) -> None:
    text = house.services.allowlist.in_force().allowlist.text
    house.services.allowlist.save(text + "# more\n", actor=ada_actor(ada), reason="a note", expected=1)
    page = ada.get("/allowlist/versions/1").text
    assert "-# more" in page and "Put version 1 in force again" in page
    done = ada.post("/allowlist/versions/1/restore", reason="not needed", expected="2")
    assert done.headers["location"] == "/allowlist"
    assert "Version 3 is in force, with the text of version 1" in ada.get("/allowlist").text
    assert house.services.allowlist.in_force().allowlist.text == text


def ada_actor(browser: Browser) -> Actor:
    return Actor(ActorKind.PERSON, browser.user.id, browser.user.name)


def test_who_may_what(house: Console) -> None:
    alpha = house.tenant("alpha")
    approval_id = ask(house, alpha, "nmap")
    rob, mia = house.sign_in("rob", Role.REVIEWER), house.sign_in("mia", Role.MANAGER, alpha)
    assert rob.get("/allowlist").status_code == 200 and "Edit…" not in rob.get("/allowlist").text
    assert rob.get(f"/approvals/{approval_id}").status_code == 200
    assert mia.get("/approvals").status_code == 403
    assert mia.post(f"/approvals/{approval_id}/approve").status_code == 403
    for browser in (rob, mia):
        assert browser.get("/allowlist/edit").status_code == 403
        assert browser.post("/allowlist/edit", do="save", text="version: 1").status_code == 403
        assert browser.post("/allowlist/versions/1/restore", reason="because").status_code == 403
