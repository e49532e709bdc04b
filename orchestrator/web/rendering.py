"""Templates to answers: the environment, its filters, and the headers every page carries."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from orchestrator.config import Settings
from orchestrator.web import wording

HERE = Path(__file__).parent
STATIC = HERE / "static"
PRODUCT = "Orchestrator"
# Nothing inline, nothing from elsewhere: a value that slips through escaping still runs nowhere and reports nowhere.
POLICY: Mapping[str, str] = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}


class Renderer:
    """Made once, when the pages are mounted."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._version = static_version()
        self._environment = make_environment()

    @property
    def secure(self) -> bool:
        """Whether cookies may travel over https alone."""
        return self.settings.proxy.scheme == "https"

    def page(self, template: str, values: Mapping[str, Any], *, status: int = 200) -> HTMLResponse:
        """A whole page, never kept by anybody on the way."""
        text = self._environment.get_template(template).render(
            product=PRODUCT, static_version=self._version, instance=self.settings.instance, **values
        )
        response = HTMLResponse(text, status)
        protect(response)
        return response

    def piece(self, template: str, values: Mapping[str, Any], *, status: int = 200) -> HTMLResponse:
        """A fragment for a page that is open already."""
        response = HTMLResponse(self.text(template, values), status)
        response.headers["Cache-Control"] = "no-store"
        return response

    def text(self, template: str, values: Mapping[str, Any]) -> str:
        """A piece of a page: for a fragment that is swapped in, or an event's data."""
        return self._environment.get_template(template).render(**values)


def protect(response: Response, **more: str) -> None:
    """The policy, with directives widened where a page needs it (`form_action=…`)."""
    widened = {name.replace("_", "-"): value for name, value in more.items()}
    parts = {name: f"{value} {widened.get(name, '')}".strip() for name, value in POLICY.items()}
    response.headers["Content-Security-Policy"] = "; ".join(f"{name} {value}" for name, value in parts.items())
    response.headers["Cache-Control"] = "no-store"
    response.headers["Permissions-Policy"] = "camera=(), microphone=(), geolocation=(), payment=()"


def make_environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters.update(
        relative=wording.relative,
        absolute=wording.absolute,
        size=wording.size,
        duration=wording.duration,
        browser=wording.browser,
        tone=wording.tone,
        visible=wording.visible,
        number=wording.number,
        many=wording.many,
        words=wording.words,
        svg=Markup,  # charts.py escapes what it draws
    )
    return environment


def static_version() -> str:
    """Changes with any file, so that browsers may keep what they have for long."""
    digest = hashlib.sha256()
    for path in sorted(STATIC.rglob("*")):
        if path.is_file():
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]
