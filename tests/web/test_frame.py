"""The frame every page stands in: sign-in, form tokens, the content security policy, errors people can act on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.core.access import Role
from tests.support.cluster import Cluster
from tests.support.console import PASSWORD, Browser, Console, console


@pytest.fixture
def house(cluster: Cluster, tmp_path: Path) -> Iterator[Console]:
    with console(cluster, tmp_path) as made:
        yield made


@pytest.fixture
def mia(house: Console) -> Browser:
    return house.sign_in("mia", Role.MANAGER, house.tenant("harbour"))


def test_whoever_is_not_signed_in_is_asked_to_and_then_comes_back(house: Console, mia: Browser) -> None:
    visitor = house.visitor()
    asked = visitor.get("/account?x=1", headers={"accept": "text/html"}, follow_redirects=False)
    assert (asked.status_code, asked.headers["location"]) == (303, "/login?next=%2Faccount%3Fx%3D1")
    page = visitor.get(asked.headers["location"])
    assert 'name="next" value="/account?x=1"' in page.text
    fields = {"name": "mia", "password": PASSWORD, "next": "/account?x=1"}
    signed = visitor.post("/login", data=fields, follow_redirects=False)
    assert (signed.status_code, signed.headers["location"]) == (303, "/account?x=1")


@pytest.mark.parametrize("wanted", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:1"])
def test_signing_in_leads_nowhere_else(house: Console, mia: Browser, wanted: str) -> None:
    fields = {"name": "mia", "password": PASSWORD, "next": wanted}
    assert house.visitor().post("/login", data=fields, follow_redirects=False).headers["location"] == "/"


def test_a_wrong_password_says_so_on_the_form(house: Console, mia: Browser) -> None:
    refused = house.visitor().post("/login", data={"name": "mia", "password": "wrong"})
    assert refused.status_code == 403
    assert "do not go together" in refused.text and 'value="mia"' in refused.text


def test_signing_out_ends_the_session(mia: Browser) -> None:
    token = mia.token
    out = mia.post("/sign-out", csrf=token)
    assert out.headers["location"] == "/login"
    assert mia.get("/account").headers["location"].startswith("/login")


@pytest.mark.parametrize("token", ["", "0" * 64])
def test_a_form_without_its_own_token_does_nothing(mia: Browser, token: str) -> None:
    refused = mia.post("/sign-out", csrf=token)
    assert refused.status_code == 403 and "another sign-in" in refused.text
    assert mia.get("/account").status_code == 200


def test_a_form_from_another_site_does_nothing(mia: Browser) -> None:
    headers = {"origin": "http://evil.example", "accept": "text/html"}
    refused = mia.client.post("/sign-out", data={"csrf_token": mia.token}, headers=headers)
    assert refused.status_code == 403


def test_every_page_forbids_inline_scripts_and_foreign_sources(mia: Browser) -> None:
    for path in ("/account", "/nowhere"):
        policy = mia.get(path).headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self';" in policy and "unsafe" not in policy
        assert mia.get(path).headers["cache-control"] == "no-store"


def test_static_files_are_kept_by_browsers(mia: Browser) -> None:
    style = mia.get("/static/style.css")
    assert style.status_code == 200 and "max-age" in style.headers["cache-control"]


def test_an_unknown_page_says_what_to_do_and_names_a_reference(mia: Browser) -> None:
    missing = mia.get("/nowhere")
    assert missing.status_code == 404
    assert "What to do" in missing.text and missing.headers["x-request-id"] in missing.text


def test_a_token_is_shown_once_and_can_be_revoked(mia: Browser) -> None:
    made = mia.post("/account/tokens", name="pricing <b>agent</b>", role="agent", days="7", tenant="harbour")
    assert made.status_code == 200 and "orc_" in made.text and "<b>agent" not in made.text
    page = mia.get("/account").text
    assert "orc_" not in page
    path = page.split("/account/tokens/")[1].split("/revoke")[0]
    assert mia.post(f"/account/tokens/{path}/revoke").status_code == 303
    assert "revoked" in mia.get("/account").text


def test_messages_are_shown_once_and_cannot_be_forged(mia: Browser) -> None:
    mia.post("/account/sessions/s0/end")
    assert "That session is ended" in mia.get("/account").text
    assert "That session is ended" not in mia.get("/account").text
    mia.client.cookies.set("orchestrator_said", "WyJQYXkgbWUiLCAiYmFkIl0=.00", domain="console.localhost")
    assert "Pay me" not in mia.get("/account").text


def test_a_new_password_ends_every_session(mia: Browser) -> None:
    wrong = mia.post("/account/password", old="nonsense", new="another long one", again="another long one")
    assert wrong.status_code == 422
    done = mia.post("/account/password", old=PASSWORD, new="another long one", again="another long one")
    assert done.headers["location"].startswith("/login")
    assert mia.get("/account").headers["location"].startswith("/login")


def test_everybody_starts_where_their_work_is(house: Console, mia: Browser) -> None:
    assert mia.get("/").headers["location"] == "/workspaces/harbour"
    assert house.sign_in("ada", Role.ADMIN).get("/").headers["location"] == "/fleet"
    assert house.sign_in("rob", Role.REVIEWER).get("/").headers["location"] == "/reviews"
    assert "do not belong to a workspace yet" in house.sign_in("newcomer", Role.MANAGER).get("/").text
