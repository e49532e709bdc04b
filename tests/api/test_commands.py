"""Commands, approvals, the allowlist and the audit trail over the API: who may, what is refused, what comes back."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request
from sqlalchemy import Engine
from starlette.testclient import TestClient

from orchestrator.api.app import create_app
from orchestrator.api.deps import KEY_LENGTH_MAX, Call, Caller, call_of, get_call, get_caller
from orchestrator.core.access import ROLE_SCOPES, Principal, Role
from orchestrator.core.ports.audit import AuditQuery
from tests.support.cluster import Cluster
from tests.support.gate import Gated, gated
from tests.support.interfaces import settings, some_services
from tests.support.stores import control_store


@pytest.fixture(scope="module")
def store(cluster: Cluster) -> Iterator[Engine]:
    with control_store(cluster) as made:
        yield made


class Known(Caller):
    """Signed in already."""

    def __init__(self, who: Principal) -> None:
        object.__setattr__(self, "who", who)

    def principal(self) -> Principal:
        who: Principal = self.__dict__["who"]
        return who


class As:
    """The API as one person or agent sees it."""

    def __init__(self, gate: Gated, tmp_path: Path) -> None:
        services = some_services(
            settings=settings(tmp_path),
            store=gate.store,
            audit=gate.audit,
            commands=gate.commands,
            approvals=gate.approvals,
            allowlist=gate.allowlist,
        )
        self.gate = gate
        self.app = create_app(services)
        self.client = TestClient(self.app, raise_server_exceptions=False)
        self.become(Role.AGENT)

    def become(self, role: Role, user: str = "ada", *, sees: bool = True) -> As:
        who = Principal(
            user_id=f"user_{user}",
            name=user,
            role=role,
            scopes=ROLE_SCOPES[role],
            tenant_ids=frozenset({self.gate.tenant.id} if sees else {"another"}),
            token_id=f"tok_{user}" if role is Role.AGENT else "",
        )

        async def get_known(request: Request) -> Call:
            return await call_of(request, Known(who))

        self.app.dependency_overrides[get_caller] = lambda: Known(who)
        self.app.dependency_overrides[get_call] = get_known
        return self

    def post(self, path: str, document: Any) -> Any:
        return self.client.post(f"/api/v1{path}", json=document)

    def get(self, path: str) -> Any:
        return self.client.get(f"/api/v1{path}")

    def run(self, *argv: str, **more: Any) -> Any:
        return self.post("/commands", {"tenant": "north", "argv": list(argv), **more})


@pytest.fixture
def api(store: Engine, tmp_path: Path) -> Iterator[As]:
    with gated(store, tmp_path) as gate:
        yield As(gate, tmp_path)


def test_a_command_comes_back_with_its_output_and_stands_in_the_list(api: As) -> None:
    answer = api.run("ls", "-l")
    assert answer.status_code == 201, answer.text
    ran = answer.json()
    assert (ran["state"], ran["exit_code"], ran["rule"], ran["stdout"]) == ("finished", 0, "ls", "done\n")
    assert api.get("/commands?tenant=north").json()[0]["id"] == ran["id"]
    assert api.get(f"/commands/{ran['id']}").json()["stdout"] == "done\n"
    record = api.gate.audit.search(AuditQuery(limit=1))[0]
    assert record.text("request_id").startswith("r")


def test_the_same_key_runs_a_command_once(api: As) -> None:
    def ask(key: str, *argv: str) -> Any:
        document = {"tenant": "north", "argv": list(argv)}
        return api.client.post("/api/v1/commands", json=document, headers={"Idempotency-Key": key})

    first, again = ask("k1", "ls"), ask("k1", "ls")
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json() and again.headers["idempotency-replayed"] == "true"
    assert ask("k2", "ls").json()["id"] != first.json()["id"]
    other = ask("k1", "ls", "-l")
    assert (other.status_code, other.json()["code"]) == (422, "invalid.idempotency_key_reused")
    assert ask("k" * (KEY_LENGTH_MAX + 1), "ls").status_code == ask(" ", "ls").status_code == 422


def test_its_events_end_with_the_command(api: As) -> None:
    ran = api.run("ls").json()
    events = api.get(f"/commands/{ran['id']}/events").text
    data = json.loads(events.split("data: ", 1)[1].split("\n", 1)[0])
    assert base64.b64decode(data["data"]) == b"done\n"
    assert "event: end" in events


@pytest.mark.parametrize(
    ("document", "status", "code"),
    [
        ({"argv": "ls; id"}, 422, "invalid.argv"),
        ({"argv": ["ls"], "executable": "/bin/sh"}, 422, None),
        ({"argv": ["ls", 5]}, 422, "invalid.argv"),
        ({"argv": ["ls"], "timeout_s": -1}, 422, None),
        ({"argv": ["cat", "/etc/passwd"]}, 403, "denied.command"),
        ({"argv": []}, 403, "denied.command"),
        ({"argv": ["ls"], "network": "wide-open"}, 403, "denied.command"),
        ({"argv": ["rm", "a.txt"]}, 403, "denied.approval_required"),
        ({"argv": ["ls"], "tenant": "nobody"}, 404, None),
    ],
)
def test_what_is_refused_says_so(api: As, document: dict[str, Any], status: int, code: str | None) -> None:
    answer = api.post("/commands", {"tenant": "north", **document})
    assert answer.status_code == status, answer.text
    if code is not None:
        assert answer.json()["code"] == code
    assert api.gate.runner.tasks == []


def test_a_foreign_tenants_commands_are_not_even_told_of(api: As) -> None:
    ran = api.run("ls").json()
    api.become(Role.AGENT, "eve", sees=False)
    for answer in (
        api.run("ls"),
        api.get(f"/commands/{ran['id']}"),
        api.get(f"/commands/{ran['id']}/events"),
        api.post(f"/commands/{ran['id']}/cancel", {}),
        api.post(f"/commands/{ran['id']}/apply", {}),
        api.post("/queries", {"tenant": "north", "statement": "select 1"}),
    ):
        assert answer.status_code == 404, answer.text
    assert api.get("/commands").json() == []


def test_an_approval_goes_through_the_inbox(api: As) -> None:
    asked = api.run("rm", "a.txt").json()["fields"]["approval_id"]
    assert api.post(f"/approvals/{asked}/approve", {}).status_code == 403  # an agent has no such scope
    api.become(Role.ADMIN, "ada")
    assert api.post(f"/approvals/{asked}/approve", {}).json()["code"] == "denied.approver"  # her own agent asked
    api.become(Role.ADMIN, "ben")
    inbox = api.get("/approvals?state=pending").json()
    assert [(one["id"], one["shown"]) for one in inbox] == [(asked, "rm a.txt")]
    assert api.post(f"/approvals/{asked}/approve", {"reason": "fine"}).json()["state"] == "approved"
    api.become(Role.AGENT)
    assert api.run("rm", "a.txt").json()["state"] == "finished"
    assert api.run("rm", "a.txt", approval=asked).json()["code"] == "denied.approval_unfit"


def test_the_allowlist_is_edited_by_admins_alone(api: As) -> None:
    text = api.get("/allowlist").json()["text"]
    body = {"text": text + "\n# edited\n", "reason": "A test.", "expected": 1}
    put = api.client.put
    assert put("/api/v1/allowlist", json=body).status_code == 403
    api.become(Role.ADMIN, "ben")
    assert put("/api/v1/allowlist", json=body).json()["number"] == 2
    assert put("/api/v1/allowlist", json=body).json()["code"] == "conflict.allowlist_version"
    bad = api.post("/allowlist/check", {"text": "version: 1\nsurprise: 2"})
    assert (bad.status_code, bad.json()["code"]) == (422, "invalid.allowlist")
    assert "surprise is not a known key" in bad.json()["detail"]
    assert api.post("/allowlist/replay", {"text": text}).json()["changes"] == []
    assert "# edited" in api.get("/allowlist/versions/2").json()["diff"]
    restored = api.post("/allowlist/versions/1/restore", {"reason": "Back."})
    assert (restored.json()["number"], restored.json()["restored_from"]) == (3, 1)


def test_the_audit_trail_is_searched_exported_and_verified(api: As) -> None:
    api.run("ls")
    assert api.get("/audit").status_code == 403
    api.become(Role.ADMIN, "ben")
    assert api.get("/audit?action=command.run&limit=1").json()[0]["target"] == "ls"
    lines = api.get("/audit/export").text.splitlines()
    assert [json.loads(line)["seq"] for line in lines] == list(range(1, len(lines) + 1))
    assert api.get("/audit/verify").json()["verdict"] == "intact"
    assert api.post("/audit/checkpoints", {}).json()["count"] == len(lines)
