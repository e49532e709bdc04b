"""Every manager's and reviewer's page in a real browser: usable, silent, and staying on its own host."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from tests.support.console import PASSWORD
from tests.support.pages import Town, watched

pytestmark = pytest.mark.browser


def test_a_manager_proposes_and_a_reviewer_promotes(town: Town, browser: Browser) -> None:
    town.company.work("UPDATE rates SET price = 250 WHERE id <= 2", "INSERT INTO bookings (house) VALUES ('harbour')")
    mine, mia = watched(browser, town.address)
    theirs, ruth = watched(browser, town.address)
    mia.sign_in("mia", PASSWORD)
    page = mia.page
    expect(page.get_by_role("heading", level=1)).to_contain_text("north")
    page.get_by_role("link", name="Changes", exact=True).click()
    page.get_by_role("link", name="See what I changed", exact=True).first.click()
    page.get_by_label("Title").fill("Summer prices")
    wrong = mia.look("changes-new")
    page.get_by_role("button", name="Submit to the reviewers").click()
    expect(page.get_by_text("Submitted. The reviewers see it now")).to_be_visible()
    wrong += mia.look("proposal-manager")

    ruth.sign_in("ruth", PASSWORD)
    page = ruth.page
    wrong += ruth.look("reviews")
    page.get_by_role("link", name="Summer prices").click()
    page.get_by_label("A word to go with it").fill("Fine.")
    wrong += ruth.look("proposal-reviewer")
    page.get_by_role("button", name="Approve", exact=True).click()
    expect(page.get_by_text("Approved. It can be promoted now")).to_be_visible()
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Promote to production").click()
    expect(page.get_by_text("written to production in one transaction")).to_be_visible()
    wrong += ruth.look("proposal-promoted")
    assert town.company.ask("SELECT count(*) FROM rates WHERE price = 250") == [(2,)]
    for window in (mine, theirs):
        window.close()
    assert wrong == [] and mia.complaints == [] and ruth.complaints == []


PAGES = ("", "/refresh", "/changes", "/activity", "/query", "/files", "/files/edit?path=reports/prices.sql")


@pytest.mark.parametrize(("phone", "dark"), [(False, False), (True, True)], ids=["desk-light", "phone-dark"])
def test_every_page_is_usable_and_silent(town: Town, browser: Browser, phone: bool, dark: bool) -> None:
    context, window = watched(browser, town.address, phone=phone, dark=dark)
    kind = "phone" if phone else "desk"
    window.go("/login")
    wrong = window.look(f"{kind}-login")
    window.sign_in("mia", PASSWORD)
    places = [f"/workspaces/north{one}" for one in PAGES]
    for place in [*places, "/workspaces/north/commands?rule=grep", "/account", "/nowhere"]:
        window.go(place)
        name = place.split("?")[0].strip("/").replace("/", "-").replace("workspaces-north", "workspace")
        wrong += window.look(f"{kind}-{name}")
    context.close()
    assert wrong == [] and window.complaints == []


def test_a_command_shows_its_output_as_it_comes_and_pages_work_without_scripts(town: Town, browser: Browser) -> None:
    context, window = watched(browser, town.address)
    window.sign_in("mia", PASSWORD)
    window.go("/workspaces/north/commands").get_by_label("Command").fill("ls reports")
    window.page.get_by_role("button", name="Run it").click()
    window.page.wait_for_url("**/commands/k*")
    expect(window.page.get_by_text("done").first).to_be_visible()
    assert window.complaints == []
    context.close()
    plain = browser.new_context(java_script_enabled=False)
    page = plain.new_page()
    page.goto(f"{town.address}/login")
    page.get_by_label("Name").fill("mia")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Leave the next one out").click()
    expect(page.get_by_text("The next refresh is left out.").first).to_be_visible()
    page.get_by_role("button", name="Do not leave it out").click()
    expect(page.get_by_text("The next refresh happens as planned.")).to_be_visible()
    plain.close()


def test_a_piece_that_comes_later_is_told_and_one_that_does_not_says_why(town: Town, browser: Browser) -> None:
    context, window = watched(browser, town.address)
    window.sign_in("mia", PASSWORD)
    page = window.go("/workspaces/north/changes/new")
    expect(page.locator("#told")).to_have_text("The comparison is there.")
    expect(page.locator("[aria-busy]")).to_have_count(0)
    refused = "**/workspaces/north/changes/new"
    page.route(
        refused,
        lambda route: (
            route.fulfill(
                status=503, content_type="text/html", body='<p role="alert">The database does not answer.</p>'
            )
            if route.request.headers.get("hx-request")
            else route.continue_()
        ),
    )
    page = window.go("/workspaces/north/changes/new")
    expect(page.get_by_role("alert")).to_have_text("The database does not answer.")
    page.unroute(refused)
    page.route(refused, lambda route: route.abort() if route.request.headers.get("hx-request") else route.continue_())
    page = window.go("/workspaces/north/changes/new")
    expect(page.get_by_text("The console did not answer. Load the page again.")).to_be_visible()
    expect(page.locator("[aria-busy]")).to_have_count(0)
    context.close()
