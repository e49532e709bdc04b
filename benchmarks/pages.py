"""What a page costs the server when the house is full: `page_p95_s` and `review_10k_s`.

An installation of its own with the demo, its control database filled with 100 tenants, 10,000 commands, 1,000 changes
and 20,000 audit records around one busy tenant. Every page is asked for by somebody it is for, through the console's
own process. What a page fetches by itself afterwards (live use, checks) is `page_piece_p95_s`.
PAGES_TIMES (15) sets how often, PAGES_ONLY a part of the path to look at.
"""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Mapping

from sqlalchemy import text

from benchmarks import crowded
from benchmarks.numbers import emit, percentile, say
from orchestrator.store import generations, tenants
from tests.support.installation import Running, running
from tests.support.routes import COMPLETED, DOWNLOADS, PAGES, PIECES, filled

TIMES = int(os.environ.get("PAGES_TIMES", "15"))
ONLY = os.environ.get("PAGES_ONLY", "")
GOAL_S = 0.2
BUSY = "harbour"


class Visitor:
    """One person's browser, its connection kept open."""

    def __init__(self, installation: Running, name: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", installation.settings.api.port, timeout=120)
        self._cookie = ""
        document = json.dumps({"name": name, "password": installation.password(name)})
        headers = {"Content-Type": "application/json", "Sec-Fetch-Site": "same-origin"}
        self._connection.request("POST", "/api/v1/session", document, headers)
        answer = self._connection.getresponse()
        answer.read()
        if answer.status != 201:
            raise SystemExit(f"signing in as {name} failed with {answer.status}")
        self._cookie = (answer.getheader("Set-Cookie") or "").split(";", 1)[0]

    def get(self, path: str, *, piece: bool = False) -> tuple[int, int, float]:
        """Status, bytes and seconds. The server may have closed a connection that nobody used for a while."""
        headers = {"HX-Request": "true"} if piece else {"Accept": "text/html"}
        try:
            return self._get(path, headers)
        except http.client.RemoteDisconnected:
            self._connection.close()
            return self._get(path, headers)

    def _get(self, path: str, headers: Mapping[str, str]) -> tuple[int, int, float]:
        began = time.perf_counter()
        self._connection.request("GET", path, headers={"Cookie": self._cookie, **headers})
        answer = self._connection.getresponse()
        size = len(answer.read())
        return answer.status, size, time.perf_counter() - began


def main() -> None:
    with running() as installation:
        services = installation.services
        tenant = tenants.named(services.store, BUSY)
        with services.store.connect() as connection:
            live = generations.live(connection, tenant.id)
        snapshot_id = live.snapshot_id if live is not None else ""
        say("filling the control database")
        reviews = crowded.fill(services.store, tenant_id=tenant.id, name=BUSY, snapshot_id=snapshot_id)
        crowded.record(services.audit, BUSY)
        measure(installation, reviews, _known(installation, snapshot_id, reviews))


def _known(installation: Running, snapshot_id: str, reviews: list[str]) -> Mapping[str, str]:
    """One of everything, for the parts of addresses."""
    tenant_id = tenants.named(installation.services.store, BUSY).id
    of_it = "WHERE tenant_id = :t ORDER BY created_at DESC, id LIMIT 1"
    asked = {"command_id": "commands", "job_id": "jobs", "approval_id": "approvals"}
    with installation.services.store.connect() as connection:
        newest = {
            key: str(connection.scalar(text(f"SELECT id FROM {table} {of_it}"), {"t": tenant_id}))
            for key, table in asked.items()
        }
        change = "SELECT id FROM changes WHERE state = 'promoted' AND tenant_id = :t ORDER BY created_at DESC LIMIT 1"
        newest["change_id"] = str(connection.scalar(text(change), {"t": tenant_id}))
    row = crowded.first_row_id()
    return {**newest, "name": BUSY, "user": "manager", "snapshot_id": snapshot_id, "number": "1", "row_id": row}


def measure(installation: Running, reviews: list[str], known: Mapping[str, str]) -> None:
    """Every page that is looked at; then the reviews, each opened once: nothing of them is in memory."""
    people = {name: Visitor(installation, name) for name in ("manager", "reviewer", "admin")}
    worst: dict[str, float] = {}
    pieces: dict[str, float] = {}
    every: list[float] = []
    for route in PAGES:
        if not route.startswith("GET ") or route in DOWNLOADS or ONLY not in route:
            continue
        who = next((name for name in people if name[0].upper() in PAGES[route].upper()), "manager")
        path = filled(route, known)
        found = [people[who].get(path) for _ in range(TIMES + 1)][1:]
        spent = [seconds for _, _, seconds in found]
        p95 = percentile(spent, 0.95)
        (pieces if route in PIECES else worst)[route] = p95
        every += [] if route in PIECES else spent
        flag = "  (a piece)" if route in PIECES else "  <- over" if p95 > GOAL_S else ""
        status, size, _ = found[-1]
        say(
            f"  {percentile(spent, 0.5) * 1000:7.1f} ms, p95 {p95 * 1000:7.1f} ms, {size / 1024:7.0f} KiB"
            f"  {status} {who:8} {path}{flag}"
        )
        if status >= 400:
            raise SystemExit(f"{path} answered {status}")
        if route in COMPLETED:
            pieces[route] = _completed(people[who], path)
    slowest = max(worst, key=lambda route: worst[route])
    over = sorted(route for route, seconds in worst.items() if seconds > GOAL_S)
    emit("page_p95_s", every, "s", value=worst[slowest], slowest=slowest, pages=len(worst), over=over)
    emit("page_piece_p95_s", list(pieces.values()), "s", value=max(pieces.values()), pieces=sorted(pieces))
    opened = [people["reviewer"].get(path) for path in reviews]
    emit("review_10k_s", [seconds for _, _, seconds in opened], "s", bytes=opened[0][1])


def _completed(visitor: Visitor, path: str) -> float:
    """The p95 of what the page asks for when it stands. Raises SystemExit where that fails."""
    found = [visitor.get(path, piece=True) for _ in range(TIMES + 1)][1:]
    p95 = percentile([seconds for _, _, seconds in found], 0.95)
    say(f"  {'':10} p95 {p95 * 1000:7.1f} ms, its piece  {found[-1][0]} {path}")
    if found[-1][0] >= 400:
        raise SystemExit(f"the piece of {path} answered {found[-1][0]}")
    return p95


if __name__ == "__main__":
    main()
