"""One function per page. Plain functions: the server runs them in threads."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import jinja2
import psycopg
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from backoffice import forms, reservations
from backoffice.database import Connection, Database, DatabaseUnavailable

FORM_BYTES_MAX = 64 * 1024

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def words_of(status: str) -> str:
    return status.replace("_", " ")


def age_in_words(age: timedelta) -> str:
    """How long ago, as people say it."""
    minutes = max(0, int(age.total_seconds() // 60))
    if minutes < 1:
        return "just now"
    if minutes < 60:
        return f"{minutes} minute{'s' if minutes != 1 else ''} ago"
    hours = minutes // 60
    if hours < 48:
        return f"{hours} hour{'s' if hours != 1 else ''} ago"
    return f"{hours // 24} days ago"


def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["words"] = words_of
    made.filters["age"] = age_in_words
    made.filters["day"] = lambda value: f"{value:%a} {value.day} {value:%b %Y}"
    made.filters["moment"] = lambda value: f"{value:%d %b %Y, %H:%M} UTC"
    made.filters["money"] = lambda value: f"{value:,.2f}"
    return made


class Pages:
    """The pages over one database. Every page also says how old the data is."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._templates = _environment()

    def _render(self, name: str, *, status_code: int = 200, **values: Any) -> HTMLResponse:
        values.setdefault("data", None)
        text = self._templates.get_template(name).render(statuses=forms.STATUSES, **values)
        return HTMLResponse(text, status_code=status_code, headers=HEADERS)

    def unavailable(self, reason: str) -> HTMLResponse:
        """The page while the database does not answer."""
        return self._render("unavailable.html", status_code=503, reason=reason)

    def not_found(self) -> HTMLResponse:
        return self._render("missing.html", status_code=404)

    def dashboard(self, request: Request) -> Response:
        def ask(connection: Connection) -> dict[str, Any]:
            day = reservations.house_day(connection)
            return {
                "data": reservations.data_age(connection),
                "day": day,
                "houses": reservations.houses(connection, day),
                "arriving": reservations.arriving(connection, day),
            }

        return self._render("dashboard.html", **self._database.run(ask))

    def listing(self, request: Request) -> Response:
        asked = request.query_params
        words = asked.get("q", "").strip()[:80]
        status = asked.get("status", "") if asked.get("status", "") in forms.STATUSES else ""
        page = forms.whole(asked.get("page"), 1, 1, 10_000)

        def ask(connection: Connection) -> dict[str, Any]:
            houses = reservations.properties(connection)
            chosen = asked.get("property", "") if asked.get("property") in {house.id for house in houses} else ""
            rows, more = reservations.search(connection, words=words, property_id=chosen, status=status, page=page)
            return {
                "data": reservations.data_age(connection),
                "houses": houses,
                "chosen": chosen,
                "rows": rows,
                "more": more,
            }

        found = self._database.run(ask)
        asked_again = {"q": words, "status": status, "property": found["chosen"]}
        query = urlencode({name: value for name, value in asked_again.items() if value})
        return self._render("reservations.html", words=words, status=status, page=page, query=query, **found)

    def show(self, request: Request) -> Response:
        number = request.path_params["number"]
        return self._detail(number, saved="saved" in request.query_params)

    def _detail(
        self,
        number: int,
        *,
        saved: bool = False,
        problems: dict[str, str] | None = None,
        typed: dict[str, str] | None = None,
        status_code: int = 200,
    ) -> Response:
        def ask(connection: Connection) -> dict[str, Any] | None:
            row = reservations.reservation(connection, number)
            if row is None:
                return None
            return {
                "data": reservations.data_age(connection),
                "row": row,
                "history": reservations.history(connection, number),
            }

        found = self._database.run(ask)
        if found is None:
            return self.not_found()
        row = found["row"]
        shown = {
            "status": row.status,
            "arrival": row.arrival.isoformat(),
            "departure": row.departure.isoformat(),
            "notes": row.notes or "",
            **(typed or {}),
        }
        return self._render(
            "reservation.html", saved=saved, problems=problems or {}, shown=shown, status_code=status_code, **found
        )

    def save(self, request: Request, body: bytes) -> Response:
        number = request.path_params["number"]
        submitted = forms.fields(body)
        typed = {name: submitted.get(name, "") for name in ("status", "arrival", "departure", "notes")}

        def refused(problems: dict[str, str], status_code: int = 422) -> Response:
            return self._detail(number, problems=problems, typed=typed, status_code=status_code)

        try:
            edit = forms.edit_of(submitted)
            self._database.run(lambda connection: reservations.save(connection, number, edit))
        except forms.Refused as refusal:
            return refused(refusal.problems)
        except reservations.Moved:
            moved = "Somebody changed this reservation meanwhile. Check it and save again."
            return self._detail(number, problems={"": moved}, status_code=409)
        except reservations.Taken:
            return refused({"arrival": "The room is already taken in one of these nights."}, 409)
        except (psycopg.IntegrityError, psycopg.DataError) as failure:
            return refused(
                {"": (failure.diag.message_primary or "The database refused the change.").capitalize() + "."}
            )
        return RedirectResponse(f"/reservations/{number}?saved=1", status_code=303)

    def health(self, request: Request) -> Response:
        try:
            self._database.run(lambda connection: connection.execute("SELECT 1").fetchone())
        except (DatabaseUnavailable, psycopg.Error) as failure:
            return PlainTextResponse(f"no database: {failure}\n", status_code=503)
        return PlainTextResponse("ok\n")

    def guarded(self, page: Callable[..., Response]) -> Callable[[Request], Awaitable[Response]]:
        """The page as the server calls it: in a thread, with the form read, calm when the database is away."""

        @functools.wraps(page)
        async def answer(request: Request) -> Response:
            extra: list[bytes] = []
            if request.method == "POST":
                if not same_origin(request):
                    return PlainTextResponse("This form was not sent from this site.\n", status_code=403)
                body = await read_form(request)
                if body is None:
                    return PlainTextResponse("This form is too large.\n", status_code=413)
                extra.append(body)
            try:
                return await asyncio.to_thread(page, request, *extra)
            except (DatabaseUnavailable, psycopg.OperationalError) as failure:
                return self.unavailable(str(failure).strip())

        return answer


async def read_form(request: Request) -> bytes | None:
    """The body, or None when it is larger than any form of this site."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > FORM_BYTES_MAX:
            return None
    return body


def same_origin(request: Request) -> bool:
    """Browsers name the site a form came from; anything else than this one is refused."""
    origin = request.headers.get("origin")
    if origin is None:
        return request.headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")
    return urlsplit(origin).netloc == request.headers.get("host", "")
