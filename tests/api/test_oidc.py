"""Sign-in through an identity provider that really answers, and everything that must not get in."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import RSAKey
from starlette.testclient import TestClient

from orchestrator.config import InvalidConfiguration, OidcSection
from orchestrator.core.access import Role
from orchestrator.core.ports.audit import AuditQuery
from orchestrator.drivers.oidc.provider import make_provider
from orchestrator.store import users
from orchestrator.wiring.services import Services
from tests.support.cluster import Cluster
from tests.support.interfaces import OWN_PAGE, person, served, tenant
from tests.support.provider import CLIENT, SECRET, Provider, running_provider

NAME = "ada@example.com"


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with running_provider() as running:
        yield running


@pytest.fixture
def door(cluster: Cluster, tmp_path: Path, provider: Provider) -> Iterator[tuple[TestClient, Services]]:
    with served(cluster, tmp_path) as (client, services):
        (tmp_path / "client").write_text(SECRET + "\n")
        rules = OidcSection(
            issuer=provider.issuer,
            client_id=CLIENT,
            client_secret_file=tmp_path / "client",
            role_groups={"sales": "manager", "stewards": "reviewer", "it": "admin"},
            tenants_claim="tenants",
        )
        configured = services.settings.model_copy(update={"oidc": rules})
        object.__setattr__(services, "settings", configured)
        object.__setattr__(services, "identity", make_provider(rules))
        yield client, services


def begin(client: TestClient, wanted: str = "/workspaces/ada?tab=rows") -> str:
    client.cookies.clear()
    answer = client.get("/auth/oidc/start", params={"next": wanted})
    assert answer.status_code == 303, answer.text
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "domain" not in cookie.lower()
    return answer.headers["location"]


def sign_in(client: TestClient, provider: Provider, wanted: str = "/") -> Any:
    code, state = provider.approve(begin(client, wanted))
    return client.get("/auth/oidc/callback", params={"code": code, "state": state})


def refused(client: TestClient, answer: Any) -> None:
    assert answer.status_code == 401, answer.text
    assert "orchestrator_session" not in answer.headers.get("set-cookie", "")
    assert client.get("/api/v1/session").status_code == 401


def test_a_person_of_the_company_gets_in(door: tuple[TestClient, Services], provider: Provider) -> None:
    client, services = door
    ours = tenant(services.store, "ours")
    tenant(services.store, "theirs")
    provider.claims = {"tenants": ["ours", "nowhere"]}
    answer = sign_in(client, provider, "/workspaces/ours?tab=rows")
    assert answer.status_code == 303, answer.text
    assert answer.headers["location"] == "/workspaces/ours?tab=rows"
    seen = client.get("/api/v1/session").json()
    assert (seen["name"], seen["role"], seen["tenants"]) == (NAME, "manager", ["ours"])
    assert users.named(services.store, NAME).tenant_ids == {ours.id}
    record = services.audit.search(AuditQuery(limit=1))[0]
    assert record.text("action") == "session.sign_in" and record.text("result") == "ok"


def test_the_role_follows_the_groups_and_the_most_powerful_counts(
    door: tuple[TestClient, Services], provider: Provider
) -> None:
    client, services = door
    for groups, role in ((["it", "sales"], Role.ADMIN), (["other", "stewards", "sales"], Role.REVIEWER)):
        provider.claims = {"groups": groups}
        assert sign_in(client, provider).status_code == 303
        assert users.named(services.store, NAME).role is role
    assert len(users.listed(services.store)) == 1


def test_there_is_no_password_to_sign_in_with(door: tuple[TestClient, Services], provider: Provider) -> None:
    client, services = door
    assert sign_in(client, provider).status_code == 303
    client.cookies.clear()
    assert users.password_hash(services.store, NAME) is None
    for password in ("", "!"):
        answer = client.post("/api/v1/session", json={"name": NAME, "password": password}, headers=OWN_PAGE)
        assert answer.status_code == 401


UNPROVEN: list[dict[str, Any]] = [
    {"nonce": "of-another-sign-in"},
    {"nonce": None},
    {"aud": "another-client"},
    {"aud": [CLIENT, "another-client"]},
    {"aud": None},
    {"iss": "https://elsewhere.example"},
    {"exp": 1_600_000_000, "iat": 1_599_990_000},
    {"exp": None},
    {"iat": int(time.time()) + 86_400},
    {"sub": None},
    {"email": None},
    {"email_verified": False},
    {"groups": []},
    {"groups": ["strangers"]},
    {"groups": None},
    {"groups": {"sales": True}},
]


def test_a_token_that_does_not_prove_it_lets_nobody_in(door: tuple[TestClient, Services], provider: Provider) -> None:
    client, services = door
    for claims in UNPROVEN:
        provider.claims = claims
        answer = sign_in(client, provider)
        assert answer.status_code == 401, claims
        refused(client, answer)
    assert users.listed(services.store) == []


def test_a_token_signed_by_somebody_else(door: tuple[TestClient, Services], provider: Provider) -> None:
    provider.signing = RSAKey.generate_key(2048, {"kid": "one"})
    refused(door[0], sign_in(door[0], provider))


def test_a_sign_in_ends_in_the_browser_that_began_it(door: tuple[TestClient, Services], provider: Provider) -> None:
    client, _ = door
    code, state = provider.approve(begin(client))
    client.cookies.clear()  # another browser, with nothing
    refused(client, client.get("/auth/oidc/callback", params={"code": code, "state": state}))
    begin(client)  # another browser, with a sign-in of its own
    refused(client, client.get("/auth/oidc/callback", params={"code": code, "state": state}))
    refused(client, client.get("/auth/oidc/callback", params={"code": code}))
    for forged in ("x", "a.b.c.d", "é", "..."):
        client.cookies.clear()
        sent = {"cookie": b"orchestrator_handshake=" + forged.encode()}
        refused(client, client.get("/auth/oidc/callback", params={"code": code, "state": state}, headers=sent))


def test_a_code_is_good_once(door: tuple[TestClient, Services], provider: Provider) -> None:
    client, _ = door
    code, state = provider.approve(begin(client))
    kept = client.cookies.get("orchestrator_handshake")
    assert client.get("/auth/oidc/callback", params={"code": code, "state": state}).status_code == 303
    client.cookies.clear()
    client.cookies.set("orchestrator_handshake", kept or "")
    assert client.get("/auth/oidc/callback", params={"code": code, "state": state}).status_code == 503


def test_nobody_takes_over_an_account(door: tuple[TestClient, Services], provider: Provider) -> None:
    client, services = door
    person(services, NAME, Role.ADMIN)
    refused(client, sign_in(client, provider))  # a local user's name
    provider.claims = {"email": "mia@example.com"}
    assert sign_in(client, provider).status_code == 303
    provider.claims = {"email": "mia@example.com", "sub": "s-2"}
    client.cookies.clear()
    refused(client, sign_in(client, provider))  # a name given to another person since
    provider.claims = {"email": "mia@example.com"}
    users.set_disabled(services.store, users.named(services.store, "mia@example.com").id, True)
    refused(client, sign_in(client, provider))


def test_a_provider_that_is_not_who_it_should_be(door: tuple[TestClient, Services], provider: Provider) -> None:
    client, _ = door
    for wrong in ({"issuer": "https://elsewhere.example"}, {"authorization_endpoint": "http://elsewhere.example/a"}):
        provider.description = wrong
        answer = client.get("/auth/oidc/start")
        assert (answer.status_code, answer.json()["code"]) == (503, "outside_failure.identity_provider")
    provider.description = {}
    location = begin(client, "//elsewhere.example")
    code, state = provider.approve(location)
    answer = client.get("/auth/oidc/callback", params={"code": code, "state": state})
    assert answer.headers["location"] == "/"


def test_without_a_provider_there_is_nothing_to_start(cluster: Cluster, tmp_path: Path) -> None:
    with served(cluster, tmp_path) as (client, services):
        assert make_provider(services.settings.oidc) is None
        assert client.get("/auth/oidc/start").status_code == 404
        assert client.get("/auth/oidc/callback").status_code == 404


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = OidcSection(issuer="https://login.example", client_id="x", role_groups={"it": "admin"})
    assert make_provider(rules) is not None
    monkeypatch.setitem(sys.modules, "authlib.oidc.core", None)
    with pytest.raises(InvalidConfiguration, match=r"orchestrator\[oidc\]"):
        make_provider(rules)
    for wrong in ({"issuer": "http://login.example"}, {"client_id": ""}, {"role_groups": {}}, {"scopes": ("email",)}):
        with pytest.raises(ValueError):
            OidcSection(**{**rules.model_dump(), **wrong})
