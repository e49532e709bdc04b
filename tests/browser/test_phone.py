"""Approving on a phone in the dark, by keyboard alone; and rows that mean harm, which stay words."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page, expect

from orchestrator.core.changes import ChangeState
from orchestrator.store import changes
from tests.support.console import PASSWORD
from tests.support.pages import Town, until, watched

pytestmark = pytest.mark.browser
TABS_MAX = 120
FOCUSED = """() => {
  const at = document.activeElement, style = getComputedStyle(at), box = at.getBoundingClientRect();
  return {
    what: (at.getAttribute("aria-label") || at.innerText || at.value || at.name || at.tagName).trim(),
    href: at.getAttribute("href") || "",
    outlined: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0,
    shown: box.width > 0 && box.height > 0 && box.right > 0 && box.left < innerWidth,
    nothing: at === document.body,
  };
}"""
HARM = "<img src=x onerror=alert(1)><script>alert(2)</script> \u202egnp.exe \u2066 \x1b[31m"


def _tab_to(page: Page, wanted: str) -> list[str]:
    """Press Tab until something called `wanted` has the focus; what was wrong on the way."""
    wrong = []
    for _ in range(TABS_MAX):
        page.keyboard.press("Tab")
        found = page.evaluate(FOCUSED)
        if found["nothing"]:
            continue
        if not (found["outlined"] and found["shown"]):
            wrong.append(f"the focus on {found['what'][:60]!r} cannot be seen")
        if found["what"] == wanted:
            return wrong
    raise AssertionError(f"{wanted!r} is not reached by Tab")


def test_a_reviewer_approves_on_a_phone_by_keyboard_alone(town: Town, browser: Browser) -> None:
    town.company.work("UPDATE rates SET price = 260 WHERE id = 3")
    change = town.company.submitted("By keyboard")
    context, window = watched(browser, town.address, phone=True, dark=True)
    page = window.go(f"/login?next=/changes/{change.id}")
    page.get_by_label("Name").focus()
    page.keyboard.type("ruth")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("By keyboard")
    wrong = window.look("phone-keyboard-proposal")

    page.keyboard.press("Tab")
    assert page.evaluate(FOCUSED)["href"] == "#content", "the first stop leads past the navigation"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    wrong += _tab_to(page, "Approve")
    page.keyboard.press("Enter")

    def approved() -> bool:
        with town.house.store.connect() as connection:
            return changes.get(connection, change.id).state is ChangeState.APPROVED

    until(approved)
    expect(page.get_by_role("status").first).to_contain_text("Approved")
    wrong += window.look("phone-keyboard-approved")
    context.close()
    assert wrong == [] and window.complaints == []


@pytest.mark.parametrize(("phone", "dark"), [(False, True), (True, False)], ids=["desk-dark", "phone-light"])
def test_rows_that_mean_harm_are_shown_and_do_nothing(town: Town, browser: Browser, phone: bool, dark: bool) -> None:
    harm = HARM.replace("'", "''")
    town.company.work(
        f"INSERT INTO bookings (house, guest) VALUES ('harbour', '{harm}'), ('harbour', repeat('very long ', 900))",
        f"INSERT INTO bookings (house, guest) VALUES ('harbour', repeat('x', 9000) || '{harm}')",
    )
    change = town.company.drafted(f"Harm {HARM}")
    context, window = watched(browser, town.address, phone=phone, dark=dark)
    asked: list[str] = []
    window.page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    window.sign_in("mia", PASSWORD)
    wrong: list[str] = []
    for place in ("/workspaces/north/changes", "/workspaces/north/changes/new", f"/changes/{change.id}"):
        page = window.go(place)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
        wrong += window.look(f"harm-{'phone' if phone else 'desk'}-{place.rsplit('/', 1)[-1]}")
        said = page.locator("main").inner_text()  # a field to edit the title holds it as it is
        assert "\u202e" not in said and "\x1b" not in said
    context.close()
    town.company.work("DELETE FROM bookings WHERE length(guest) > 20")
    assert wrong == [] and asked == [] and window.complaints == []
