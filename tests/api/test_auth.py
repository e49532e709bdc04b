"""Who gets in, where, and with what: sign-in, cookies, the proxy's check and one-time codes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from starlette.testclient import TestClient

from orchestrator.api.auth import local_path
from orchestrator.core import passes
from orchestrator.core.access import Role
from orchestrator.core.ports.audit import AuditQuery
from orchestrator.store import users
from orchestrator.wiring.services import Services
from tests.support.cluster import Cluster
from tests.support.interfaces import OWN_PAGE, PASS_KEY, PASSWORD, person, served, signed_in, tenant

BROWSER = {"accept": "text/html,application/xhtml+xml", "x-forwarded-method": "GET"}


@pytest.fixture
def door(cluster: Cluster, tmp_path: Path) -> Iterator[tuple[TestClient, Services]]:
    with served(cluster, tmp_path) as made:
        yield made


def forward(client: TestClient, host: str, uri: str = "/", cookie: str = "", **headers: str) -> object:
    """What the proxy asks before it lets a request to a tenant's host through."""
    sent = {"x-forwarded-host": host, "x-forwarded-uri": uri, **headers}
    if cookie:
        sent["cookie"] = cookie
    client.cookies.clear()
    return client.get("/auth/forward", headers=sent)


def enter(client: TestClient, name: str, host: str, to: str = "/") -> str:
    """A browser's whole way to a tenant's host; returns the host's cookie as a header."""
    signed_in(client, name)
    carried = client.get("/auth/enter", params={"host": host, "to": to}, headers=BROWSER)
    assert carried.status_code == 303, carried.text
    target = urlsplit(carried.headers["location"])
    assert target.netloc == f"{host}:8080"
    entered = forward(client, host, f"{target.path}?{target.query}", **BROWSER)
    assert entered.status_code == 303
    # Absolute: the proxy would resolve a path against the address of the sign-in check.
    assert entered.headers["location"] == f"http://{host}:8080{to}"
    return entered.headers["set-cookie"].split(";")[0]


def test_a_person_signs_in_and_out(door: tuple[TestClient, Services]) -> None:
    client, services = door
    person(services, "mia", Role.REVIEWER)
    assert client.get("/api/v1/session").status_code == 401
    answer = client.post("/api/v1/session", json={"name": "mia", "password": PASSWORD}, headers=OWN_PAGE)
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "domain" not in cookie.lower()
    assert client.get("/api/v1/session").json()["role"] == "reviewer"
    assert client.delete("/api/v1/session", headers=OWN_PAGE).status_code == 204
    client.cookies.set("orchestrator_session", cookie.split("=", 1)[1].split(";")[0])
    assert client.get("/api/v1/session").status_code == 401


@pytest.mark.parametrize(("name", "password"), [("mia", "wrong password!"), ("nobody", PASSWORD), ("off", PASSWORD)])
def test_every_failed_sign_in_gets_the_same_answer(door: tuple[TestClient, Services], name: str, password: str) -> None:
    client, services = door
    person(services, "mia", Role.ADMIN)
    users.set_disabled(services.store, person(services, "off", Role.ADMIN).id, True)
    answer = client.post("/api/v1/session", json={"name": name, "password": password}, headers=OWN_PAGE)
    assert (answer.status_code, answer.json()["code"]) == (401, "denied.sign_in_refused")
    assert password not in answer.text
    record = services.audit.search(AuditQuery(limit=1))[0]
    assert record.text("action") == "session.sign_in" and record.text("result") == "denied"
    assert password not in str(record.values)


def test_failures_end_in_a_pause_even_for_the_right_password(door: tuple[TestClient, Services]) -> None:
    client, services = door
    person(services, "mia", Role.ADMIN)
    wrong = {"name": "mia", "password": "wrong password!"}
    for _ in range(5):
        assert client.post("/api/v1/session", json=wrong, headers=OWN_PAGE).status_code == 401
    answer = client.post("/api/v1/session", json={"name": "mia", "password": PASSWORD}, headers=OWN_PAGE)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0


def test_a_host_without_a_session_sends_browsers_to_the_console_and_tells_programs(
    door: tuple[TestClient, Services],
) -> None:
    client, services = door
    tenant(services.store, "harbour")
    sent = forward(client, "harbour.localhost", "/rooms?floor=2", **BROWSER)
    assert sent.status_code == 303
    target = urlsplit(sent.headers["location"])
    assert (target.netloc, target.path) == ("console.localhost:8080", "/auth/enter")
    assert parse_qs(target.query) == {"host": ["harbour.localhost"], "to": ["/rooms?floor=2"]}
    told = forward(client, "harbour.localhost", "/rooms")
    assert (told.status_code, told.json()["code"]) == (401, "denied.sign_in_required")
    posted = forward(client, "harbour.localhost", "/rooms", **{**BROWSER, "x-forwarded-method": "POST"})
    assert posted.status_code == 401


def test_the_console_asks_strangers_to_sign_in_first(door: tuple[TestClient, Services]) -> None:
    client, services = door
    tenant(services.store, "harbour")
    answer = client.get("/auth/enter", params={"host": "harbour.localhost", "to": "/rooms"}, headers=BROWSER)
    assert answer.status_code == 303
    target = urlsplit(answer.headers["location"])
    assert target.path == "/login" and target.netloc == ""
    assert parse_qs(target.query)["next"][0].startswith("/auth/enter?host=harbour.localhost")


def test_a_signed_in_person_is_carried_over_once_per_code(door: tuple[TestClient, Services]) -> None:
    client, services = door
    made = tenant(services.store, "harbour")
    person(services, "mia", Role.MANAGER, made.id)
    cookie = enter(client, "mia", "harbour.localhost", "/rooms")
    assert cookie.startswith("orchestrator_tenant=")
    let_in = forward(client, "harbour.localhost", "/rooms", cookie)
    assert let_in.status_code == 200
    assert (let_in.headers["x-tenant-user"], let_in.headers["x-tenant-role"]) == ("mia", "manager")


def test_a_used_code_opens_nothing(door: tuple[TestClient, Services]) -> None:
    client, services = door
    made = tenant(services.store, "harbour")
    person(services, "mia", Role.MANAGER, made.id)
    signed_in(client, "mia")
    location = client.get("/auth/enter", params={"host": "harbour.localhost"}, headers=BROWSER).headers["location"]
    target = urlsplit(location)
    uri = f"{target.path}?{target.query}"
    assert "set-cookie" in forward(client, "harbour.localhost", uri, **BROWSER).headers
    again = forward(client, "harbour.localhost", uri, **BROWSER)
    assert "set-cookie" not in again.headers
    assert again.headers["location"].startswith("http://console.localhost:8080/auth/enter")


def test_a_host_cookie_is_good_for_its_host_alone(door: tuple[TestClient, Services]) -> None:
    client, services = door
    harbour, hillside = tenant(services.store, "harbour"), tenant(services.store, "hillside")
    person(services, "mia", Role.MANAGER, harbour.id, hillside.id)
    cookie = enter(client, "mia", "harbour.localhost")
    assert forward(client, "hillside.localhost", "/", cookie).status_code == 401
    secret = cookie.split("=", 1)[1]
    client.cookies.clear()
    assert client.get("/api/v1/session", headers={"cookie": f"orchestrator_session={secret}"}).status_code == 401


def test_the_consoles_cookie_opens_no_tenants_host(door: tuple[TestClient, Services]) -> None:
    client, services = door
    made = tenant(services.store, "harbour")
    person(services, "mia", Role.MANAGER, made.id)
    signed_in(client, "mia")
    secret = client.cookies["orchestrator_session"]
    for name in ("orchestrator_session", "orchestrator_tenant"):
        assert forward(client, "harbour.localhost", "/", f"{name}={secret}").status_code == 401


def test_a_manager_enters_only_their_own_tenants(door: tuple[TestClient, Services]) -> None:
    client, services = door
    harbour, hillside = tenant(services.store, "harbour"), tenant(services.store, "hillside")
    mia = person(services, "mia", Role.MANAGER, harbour.id)
    signed_in(client, "mia")
    for host in ("hillside.localhost", "nowhere.localhost", "console.localhost", "example.com"):
        answer = client.get("/auth/enter", params={"host": host}, headers={"accept": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found.tenant")
    cookie = enter(client, "mia", "harbour.localhost")
    users.leave(services.store, mia.id, harbour.id)
    users.belong(services.store, mia.id, [hillside.id])
    assert forward(client, "harbour.localhost", "/", cookie).status_code == 404


def test_signing_out_at_the_console_ends_the_hosts_too(door: tuple[TestClient, Services]) -> None:
    client, services = door
    made = tenant(services.store, "harbour")
    person(services, "mia", Role.MANAGER, made.id)
    cookie = enter(client, "mia", "harbour.localhost")
    signed_in(client, "mia")
    assert forward(client, "harbour.localhost", "/", cookie).status_code == 200  # another session of hers
    users.set_password(services.store, users.named(services.store, "mia").id, PASSWORD + "!")
    assert forward(client, "harbour.localhost", "/", cookie).status_code == 401


@pytest.mark.parametrize(
    "host", ["HARBOUR.localhost", "harbour.localhost:8080", "harbour.localhost.", "Harbour.LocalHost:1"]
)
def test_hosts_are_read_as_the_proxy_reads_them(door: tuple[TestClient, Services], host: str) -> None:
    client, services = door
    made = tenant(services.store, "harbour")
    person(services, "mia", Role.MANAGER, made.id)
    cookie = enter(client, "mia", "harbour.localhost")
    assert forward(client, host, "/", cookie).status_code == 200


@pytest.mark.parametrize("host", ["", "localhost", "console.localhost", "a.harbour.localhost", "harbour.example.com"])
def test_other_hosts_are_nobodys(door: tuple[TestClient, Services], host: str) -> None:
    client, services = door
    tenant(services.store, "harbour")
    assert forward(client, host, "/", **BROWSER).status_code == 404


def test_the_control_planes_own_pass_opens_one_host_for_a_moment(door: tuple[TestClient, Services]) -> None:
    client, services = door
    tenant(services.store, "harbour")
    given = {passes.HEADER: passes.make(PASS_KEY, "harbour.localhost", datetime.now(UTC))}
    assert forward(client, "harbour.localhost", "/", **given).status_code == 200
    tenant(services.store, "hillside")
    assert forward(client, "hillside.localhost", "/", **given).status_code == 401
    old = {passes.HEADER: passes.make(PASS_KEY, "harbour.localhost", datetime(2020, 1, 1, tzinfo=UTC))}
    assert forward(client, "harbour.localhost", "/", **old).status_code == 401


def test_an_api_token_is_refused_at_a_tenants_host(door: tuple[TestClient, Services]) -> None:
    client, services = door
    tenant(services.store, "harbour")
    answer = forward(client, "harbour.localhost", "/", authorization="Bearer orc_secret")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert "orc_secret" not in answer.text


def test_posts_from_other_sites_pages_are_refused(door: tuple[TestClient, Services]) -> None:
    client, services = door
    person(services, "mia", Role.ADMIN)
    signed_in(client, "mia")
    strange = [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://harbour.localhost:8080"},
        {"Origin": "null"},
        {},
    ]
    for headers in strange:
        answer = client.delete("/api/v1/session", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "denied.cross_site"), headers
    assert client.delete("/api/v1/session", headers={"Origin": "http://console.localhost"}).status_code == 204


def test_a_foreign_host_name_pointed_at_us_is_refused(door: tuple[TestClient, Services]) -> None:
    client, _ = door
    assert client.get("/healthz", headers={"host": "evil.example.com"}).status_code == 421
    assert client.get("/healthz", headers={"host": "CONSOLE.localhost.:8080"}).status_code == 200


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("/rooms?a=1#x", "/rooms?a=1#x"),
        ("//evil.example.com/", "/"),
        ("/\\evil.example.com", "/"),
        ("https://evil.example.com", "/"),
        ("/a\r\nSet-Cookie: x=1", "/"),
        ("/.orchestrator/enter?code=1", "/"),
        ("", "/"),
    ],
)
def test_nobody_is_redirected_elsewhere(given: str, expected: str) -> None:
    assert local_path(given) == expected


def test_an_admin_ends_one_sign_in_of_somebody_or_all_of_them(door: tuple[TestClient, Services]) -> None:
    client, services = door
    person(services, "mia", Role.MANAGER, tenant(services.store, "harbour").id)
    person(services, "ada", Role.ADMIN)
    cookie = enter(client, "mia", "harbour.localhost")
    signed_in(client, "mia")
    signed_in(client, "ada")
    saved = dict(client.cookies)
    listed = client.get("/api/v1/users/mia/sessions").json()
    assert len(listed) == 2
    oldest = min(listed, key=lambda one: one["created_at"])["id"]
    assert client.delete(f"/api/v1/users/mia/sessions/{oldest}", headers=OWN_PAGE).status_code == 204
    again = client.delete(f"/api/v1/users/mia/sessions/{oldest}", headers=OWN_PAGE)
    assert (again.status_code, again.json()["code"]) == (404, "not_found.session")
    assert forward(client, "harbour.localhost", cookie=cookie).status_code == 401, "its hosts ended with it"
    client.cookies.update(saved)
    assert client.delete("/api/v1/users/mia/sessions", headers=OWN_PAGE).json() == {"ended": 1}
    assert client.get("/api/v1/users/mia/sessions").json() == []
    ended = services.audit.search(AuditQuery(action="session.end"))
    assert len(ended) == 2 and all(one.values["target"] == "mia" for one in ended)
