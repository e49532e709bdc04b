"""The console served for a real browser, and what every page must hold there."""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import uvicorn
from axe_playwright_python.sync_playwright import Axe
from fastapi import FastAPI
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    Response,
    ViewportSize,
    expect,
    sync_playwright,
)

from orchestrator.config import PROJECT
from tests.support.console import Console, worker
from tests.support.proposing import Company

Found = TypeVar("Found")
CHROMIUM = "/usr/bin/chromium"
DESK, PHONE = ViewportSize(width=1280, height=900), ViewportSize(width=390, height=844)
PATIENCE_MS = 60_000
PATIENCE_S = 240.0
GRAVE = ("serious", "critical")
# What every page looked like, for whoever wants to see; not kept in git.
ARTEFACTS = Path(os.environ.get("ORCHESTRATOR_SHOTS") or PROJECT / "test-artefacts" / "pages")
# A violation that neither blocks a request nor throws would pass unseen otherwise.
TELLS_VIOLATIONS = """document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));"""
TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """The application on a port of its own, with somebody to do its jobs; its address is one the console answers to."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    hands = worker(app.state.services)
    hands.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        hands.stop()
        server.should_exit = True
        thread.join(30)
        listener.close()


@dataclass
class Town:
    """A console with people in it and things to look at, and where it is served."""

    house: Console
    company: Company
    address: str


@contextmanager
def chromium() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@dataclass
class Watched:
    """A page whose complaints are kept: policy violations, script errors, requests to other hosts."""

    page: Page
    address: str
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.complaints.append(f"script: {error}"))
        self.page.on("request", self._asked)
        self.page.on("response", self._answered)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def _asked(self, request: Request) -> None:
        host = urlsplit(request.url).hostname or ""
        if host != "127.0.0.1" and not host.endswith("localhost") and not request.url.startswith("data:"):
            self.complaints.append(f"left the host: {request.url}")

    def _answered(self, response: Response) -> None:
        is_part = response.request.resource_type in ("script", "stylesheet", "image", "font")
        if response.status >= 500 or (response.status >= 400 and is_part):
            self.complaints.append(f"{response.status}: {response.url}")

    def go(self, path: str) -> Page:
        self.page.goto(self.address + path)
        return self.page

    def look(self, name: str) -> list[str]:
        """Keep a picture of the page as it stands; returns what is wrong with it."""
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=ARTEFACTS / f"{re.sub(r'[^a-z0-9-]+', '-', name.lower())}.png", full_page=True)
        wide = self.page.evaluate(TOO_WIDE)
        return [*self.grave(), *([f"{name} is {wide} px too wide"] if wide > 1 else [])]

    def sign_in(self, name: str, password: str) -> None:
        page = self.go("/login")
        page.get_by_label("Name").fill(name)
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(lambda url: "/login" not in url)

    def grave(self) -> list[str]:
        """What axe finds serious on the page as it stands."""
        found = Axe().run(self.page).response["violations"]
        return [
            f"{self.page.url}: {one['id']}: {node['target']}"
            for one in found
            if one["impact"] in GRAVE
            for node in one["nodes"]
        ]


def watched(
    browser: Browser, address: str, *, phone: bool = False, dark: bool = False
) -> tuple[BrowserContext, Watched]:
    """A window of its own, under the policy as it is; axe comes in by the debugger and needs no hole in it."""
    context = browser.new_context(
        viewport=PHONE if phone else DESK,
        color_scheme="dark" if dark else "light",
    )
    context.add_init_script(TELLS_VIOLATIONS)
    return context, Watched(context.new_page(), address)


def until(look: Callable[[], Found | None], *, patience_s: float = PATIENCE_S) -> Found:
    """What `look` returns as soon as it returns something; it is asked again and again for a long time."""
    deadline = time.monotonic() + patience_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"{look.__qualname__} found nothing in {patience_s:.0f} s"
        time.sleep(0.2)
