"""Every route, tried by everybody: the table in tests/support/routes.py says who gets in, and nobody else does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from httpx2 import Response

from tests.support.cluster import Cluster
from tests.support.crowd import Crowd, crowd_in
from tests.support.routes import API, DOORS, PAGES, routes

# A foreign tenant's things are answered like things that do not exist.
HIDDEN = {f"not_found.{noun}" for noun in ("tenant", "change", "command", "job", "approval", "refresh")}
CALLERS = ("admin", "reviewer", "manager", "stranger", "agent", "foreign-agent", "nobody")
LETTERS = {"admin": "A", "reviewer": "R", "manager": "M", "stranger": "M", "agent": "G", "foreign-agent": "G"}


@pytest.fixture(scope="module")
def crowd(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    with crowd_in(cluster, tmp_path_factory.mktemp("crowd")) as made:
        yield made


def _code(answer: Response) -> str:
    is_problem = answer.headers.get("content-type", "").startswith("application/problem+json")
    return str(cast(Any, answer.json())["code"]) if is_problem else ""


def _expected(who: str, caller: str) -> set[str]:
    """`in`, `scope` (may not), `hidden` (is not told that it exists) or `sign in`."""
    letter = LETTERS.get(caller, "")
    if who == "*":
        return {"in"}
    if caller == "nobody":
        return {"sign in"}
    is_foreign = caller in ("stranger", "foreign-agent")
    if letter not in who.upper():
        return {"scope", "hidden"} if is_foreign else {"scope"}
    return {"hidden"} if is_foreign and letter not in who else {"in"}


def _seen(answer: Response) -> str:
    code = _code(answer)
    if answer.status_code == 500:
        return f"crashed: {answer.text[:300]}"
    if answer.status_code == 401 and code == "denied.sign_in_required":
        return "sign in"
    if code == "denied.scope":
        return "scope"
    return "hidden" if code in HIDDEN else "in"


def test_every_route_says_who_may_use_it(crowd: Crowd) -> None:
    found = set(routes(crowd.house.app)) - {"GET /api/v1/openapi.json", "HEAD /api/v1/openapi.json"}
    declared = {*PAGES, *API, *DOORS}
    assert found - declared == set(), "say in tests/support/routes.py who may use these"
    assert declared - found == set(), "tests/support/routes.py names routes that are no more"


@pytest.mark.parametrize("caller", CALLERS)
def test_pages_open_for_whom_they_are(crowd: Crowd, caller: str) -> None:
    """Tokens are for programs: no page opens for their bearer."""
    wrong = []
    for route, who in PAGES.items():
        is_program = caller.endswith("agent") and who != "*"
        expected = {"sign in", "scope"} if is_program else _expected(who, caller)
        seen = _seen(crowd.ask(caller, route))
        if seen not in expected:
            wrong.append(f"{route}: {seen} instead of {expected}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("caller", CALLERS)
def test_the_api_answers_whom_it_may(crowd: Crowd, caller: str) -> None:
    wrong = []
    for route, who in API.items():
        seen, expected = _seen(crowd.ask(caller, route)), _expected(who, caller)
        if seen not in expected:
            wrong.append(f"{route}: {seen} instead of {expected}")
    assert not wrong, "\n".join(wrong)


def test_no_form_is_taken_without_its_token_or_from_another_site(crowd: Crowd) -> None:
    wrong = []
    for route, who in PAGES.items():
        if not route.startswith("POST ") or who == "*":
            continue
        bare = _code(crowd.ask("admin", route, csrf=False))
        crossed = _code(crowd.ask("admin", route, {"sec-fetch-site": "cross-site"}))
        if (bare, crossed) != ("denied.form_expired", "denied.cross_site"):
            wrong.append(f"{route}: {bare}, {crossed}")
    assert not wrong, "\n".join(wrong)


def test_whoever_is_not_signed_in_is_led_to_the_sign_in_from_every_page(crowd: Crowd) -> None:
    wrong = []
    for route, who in PAGES.items():
        if who == "*":
            continue
        answer = crowd.ask("nobody", route, {"accept": "text/html"})
        if answer.status_code != 303 or not answer.headers["location"].startswith("/login"):
            wrong.append(f"{route}: {answer.status_code}")
    assert not wrong, "\n".join(wrong)
