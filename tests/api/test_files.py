"""A workspace's files over the API: what is asked for, what is refused, and who may ask."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from orchestrator.config import PROJECT
from orchestrator.core.access import Role, Scope
from orchestrator.core.ports.audit import AuditQuery
from orchestrator.core.ports.files import READ_BYTES_MAX, WRITE_BYTES_MAX
from orchestrator.core.tenants import Tenant
from orchestrator.drivers.files.confined import ConfinedFiles
from orchestrator.drivers.policy.file import DiskPolicyFile
from orchestrator.drivers.workspace.links import HostLinks
from orchestrator.flows.file import FileFlow
from orchestrator.parts.policy import PolicyPart
from orchestrator.wiring.services import Services
from tests.support import interfaces
from tests.support.cluster import Cluster
from tests.support.interfaces import OWN_PAGE, person, served, signed_in


@dataclass
class Desk:
    client: TestClient
    services: Services
    tenant: Tenant
    tree: Path

    def get(self, rest: str = "", **named: str | int) -> Response:
        return self.client.get(f"/api/v1/tenants/north/files{rest}", params=named)

    def send(self, method: str, rest: str, **named: object) -> Response:
        return self.client.request(method, f"/api/v1/tenants/north/files{rest}", headers=OWN_PAGE, **named)  # type: ignore[arg-type]

    def recorded(self) -> list[tuple[str, str, str]]:
        found = self.services.audit.search(AuditQuery(limit=50))
        return [(one.text("action"), one.text("target"), one.text("result")) for one in found]


@pytest.fixture
def desk(cluster: Cluster, tmp_path: Path) -> Iterator[Desk]:
    tree = tmp_path / "tree"
    (tree / "reports").mkdir(parents=True)
    (tree / "reports" / "prices.sql").write_text("select price\nfrom rates;\n")
    (tree / "photo.jpg").write_bytes(bytes(range(256)))
    (tree / "out").symlink_to("/etc")
    os.chown(tree, os.geteuid(), os.getegid())
    with served(cluster, tmp_path / "var") as (client, services):
        policies = PolicyPart(services.store, services.audit, DiskPolicyFile(PROJECT / "configs" / "allowlist.yaml"))
        links = HostLinks({"/workspace": tree})
        files = FileFlow(services.audit, ConfinedFiles(), policies, lambda _: tree, lambda _: links)
        object.__setattr__(services, "files", files)
        tenant = interfaces.tenant(services.store, "north")
        person(services, "mia", Role.MANAGER, tenant.id)
        signed_in(client, "mia")
        yield Desk(client, services, tenant, tree)


def code(answer: Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_names_are_listed_with_links_shown_and_not_followed(desk: Desk) -> None:
    top = desk.get()
    assert top.status_code == 200
    assert [(one["path"], one["kind"]) for one in top.json()["entries"]] == [
        ("out", "link"), ("photo.jpg", "file"), ("reports", "directory"),
    ]  # fmt: skip
    deep = desk.get(recursive="true").json()
    assert "reports/prices.sql" in [one["path"] for one in deep["entries"]]
    assert not any(one["path"].startswith("out/") for one in deep["entries"])
    assert [one["path"] for one in desk.get(path="reports").json()["entries"]] == ["reports/prices.sql"]


def test_a_file_is_read_whole_in_part_and_as_bytes(desk: Desk) -> None:
    whole = desk.get("/content", path="reports/prices.sql").json()
    assert whole["text"] == "select price\nfrom rates;\n"
    assert whole["digest"] == hashlib.sha256(whole["text"].encode()).hexdigest()
    part = desk.get("/content", path="reports/prices.sql", offset=7, limit=5).json()
    assert (part["text"], part["offset"], part["size_bytes"], part["digest"]) == ("price", 7, 25, "")
    binary = desk.get("/content", path="photo.jpg").json()
    assert binary["text"] is None and base64.b64decode(binary["base64"]) == bytes(range(256))


def test_glob_and_search_find(desk: Desk) -> None:
    assert [one["path"] for one in desk.get("/glob", pattern="**/*.sql").json()["entries"]] == ["reports/prices.sql"]
    found = desk.get("/search", text="rates").json()
    assert [(one["path"], one["line"], one["text"]) for one in found["matches"]] == [
        ("reports/prices.sql", 2, "from rates;")
    ]


@pytest.mark.parametrize(
    ("rest", "named", "expected"),
    [
        ("/content", {"path": "nowhere"}, (404, "not_found.file")),
        ("/content", {"path": "../../etc/passwd"}, (403, "denied.file")),
        ("/content", {"path": "/etc/passwd"}, (403, "denied.file")),
        ("/content", {"path": "out/passwd"}, (403, "denied.file")),
        ("/content", {"path": "reports"}, (403, "denied.path")),
        ("/content", {"path": "a", "limit": READ_BYTES_MAX + 1}, (422, "invalid.request")),
        ("/content", {"path": "a", "offset": -1}, (422, "invalid.request")),
        ("/content", {"path": "a" * 1025}, (422, "invalid.request")),
        ("/content", {}, (422, "invalid.request")),
        ("/search", {"text": ""}, (422, "invalid.request")),
        ("/search", {"text": "a", "under": "../"}, (403, "denied.file")),
        ("/glob", {"pattern": "*" * 20}, (422, "invalid.path")),
        ("/download", {"path": "out/passwd"}, (403, "denied.file")),
        ("/download", {"path": "nowhere"}, (404, "not_found.file")),
    ],
)
def test_bad_questions_are_refused_by_name(
    desk: Desk, rest: str, named: dict[str, str | int], expected: tuple[int, str]
) -> None:
    assert code(desk.get(rest, **named)) == expected


def test_writing_creates_replaces_and_guards_what_was_read(desk: Desk) -> None:
    made = desk.send("PUT", "/content", json={"path": "new/notes.txt", "text": "one\n", "expected_digest": ""})
    assert made.status_code == 200, made.text
    digest = made.json()["digest"]
    assert (desk.tree / "new" / "notes.txt").read_text() == "one\n"
    assert code(desk.send("PUT", "/content", json={"path": "new/notes.txt", "text": "x", "expected_digest": ""})) == (
        409, "conflict.edit",
    )  # fmt: skip
    again = {"path": "new/notes.txt", "base64": base64.b64encode(b"\0two").decode(), "expected_digest": digest}
    assert desk.send("PUT", "/content", json=again).status_code == 200
    assert (desk.tree / "new" / "notes.txt").read_bytes() == b"\0two"
    assert desk.recorded().count(("file.write", "new/notes.txt", "ok")) == 2
    assert ("file.write", "new/notes.txt", "failed") in desk.recorded()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"path": "a"}, (422, "invalid.input")),
        ({"path": "a", "text": "a", "base64": "YQ=="}, (422, "invalid.input")),
        ({"path": "a", "base64": "not base64!"}, (422, "invalid.input")),
        ({"path": "", "text": "a"}, (422, "invalid.request")),
        ({"path": "a", "text": 5}, (422, "invalid.request")),
        ({"path": "a", "text": "a", "mode": "777"}, (422, "invalid.request")),
        ({"path": "../a", "text": "a"}, (403, "denied.file")),
        ({"path": "out/a", "text": "a"}, (403, "denied.file")),
        ({"path": ".git/config", "text": "a"}, (403, "denied.file")),
    ],
)
def test_bad_writes_write_nothing(desk: Desk, body: dict[str, object], expected: tuple[int, str]) -> None:
    before = sorted(path.name for path in desk.tree.rglob("*"))
    status, found = code(desk.send("PUT", "/content", json=body))
    assert status == expected[0] and found.split(".")[0] == expected[1].split(".")[0]
    assert sorted(path.name for path in desk.tree.rglob("*")) == before


def test_text_that_is_no_unicode_is_refused(desk: Desk) -> None:
    body = b'{"path": "a", "text": "\\ud800"}'
    answer = desk.client.put(
        "/api/v1/tenants/north/files/content", content=body, headers={**OWN_PAGE, "Content-Type": "application/json"}
    )
    assert answer.status_code == 422
    assert not (desk.tree / "a").exists()


def test_an_edit_replaces_what_stands_there_once(desk: Desk) -> None:
    body = {"path": "reports/prices.sql", "old": "price", "new": "price, currency"}
    assert desk.send("POST", "/edit", json=body).status_code == 200
    assert (desk.tree / "reports" / "prices.sql").read_text() == "select price, currency\nfrom rates;\n"
    twice = desk.send("POST", "/edit", json={**body, "old": "r", "new": "x"})
    assert code(twice) == (409, "conflict.edit")
    assert "stands" in twice.json()["detail"]


def test_a_file_goes_up_and_comes_down_byte_for_byte(desk: Desk) -> None:
    content = bytes(range(256)) * 8192
    up = desk.send("PUT", "/upload?path=data/blob.bin", content=content)
    assert up.status_code == 200, up.text
    assert up.json() == {
        "path": "data/blob.bin",
        "size_bytes": len(content),
        "digest": hashlib.sha256(content).hexdigest(),
    }
    down = desk.get("/download", path="data/blob.bin")
    assert down.content == content
    assert down.headers["content-disposition"] == "attachment; filename*=UTF-8''blob.bin"
    assert down.headers["x-content-type-options"] == "nosniff"
    assert down.headers["content-type"] == "application/octet-stream"
    assert desk.recorded().count(("file.download", "data/blob.bin", "ok")) == 1
    assert code(desk.send("PUT", "/upload?path=data/blob.bin&expected_digest=", content=b"x")) == (409, "conflict.edit")
    large = desk.send("PUT", "/upload?path=large", content=b"x" * (WRITE_BYTES_MAX + 1))
    assert large.status_code in (413, 429), large.text
    assert not (desk.tree / "large").exists()


def test_a_name_cannot_forge_a_header(desk: Desk) -> None:
    (desk.tree / 'a"; x=\r\nSet-Cookie: b').write_text("x")
    answer = desk.get("/download", path='a"; x=\r\nSet-Cookie: b')
    if answer.status_code == 200:
        assert "set-cookie" not in answer.headers
        assert answer.headers["content-disposition"].count("\n") == 0


def test_deleting_waits_for_approval_as_the_allowlist_says(desk: Desk) -> None:
    answer = desk.send("DELETE", "/content?path=photo.jpg")
    assert code(answer) == (403, "denied.file")
    assert (desk.tree / "photo.jpg").exists()
    assert ("file.delete", "photo.jpg", "denied") in desk.recorded()


def test_agents_work_here_and_reviewers_and_strangers_do_not(desk: Desk) -> None:
    secret = desk.client.post(
        "/api/v1/tokens",
        json={"name": "helper", "role": "agent", "scopes": [Scope.COMMANDS_RUN.value]},
        headers=OWN_PAGE,
    )
    assert secret.status_code == 201, secret.text
    agent = {"Authorization": f"Bearer {secret.json()['secret']}"}
    desk.client.cookies.clear()
    there = "/api/v1/tenants/north/files"
    assert desk.client.get(there, headers=agent).status_code == 200
    body = {"path": "by-agent.txt", "text": "hello\n"}
    assert desk.client.put(f"{there}/content", json=body, headers=agent).status_code == 200
    assert code(desk.client.get(there)) == (401, "denied.sign_in_required")
    other = interfaces.tenant(desk.services.store, "south")
    person(desk.services, "stranger", Role.MANAGER, other.id)
    signed_in(desk.client, "stranger")
    assert code(desk.get()) == (404, "not_found.tenant")
    person(desk.services, "rita", Role.REVIEWER)
    signed_in(desk.client, "rita")
    assert code(desk.get()) == (403, "denied.scope")
