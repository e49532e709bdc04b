"""Implements core.ports.proxy.Proxy: writes the files, asks Traefik's own API what it made of them."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from orchestrator.core.ports.proxy import LiveRoute, Route, RouteFailed
from orchestrator.drivers.traefik import documents
from orchestrator.drivers.traefik.documents import ProxyAddresses

ANSWER_BYTES_MAX = 16 * 2**20
ASK_TIMEOUT_S = 3.0
POLL_S = 0.02


class TraefikProxy:
    """`directory` is mounted into the container as a whole, so that a rename is seen."""

    def __init__(self, directory: Path, addresses: ProxyAddresses) -> None:
        self._directory = directory
        self._addresses = addresses

    def prepare(self) -> None:
        """Write what every route shares. Before the proxy starts, and harmless while it runs."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._put(documents.SHARED_FILE, documents.text(documents.shared(self._addresses)))

    def publish(self, route: Route) -> None:
        self._put(route.id, documents.text(documents.dynamic(route)))

    def withdraw(self, route_id: str) -> None:
        if documents.ROUTE_ID.fullmatch(route_id):
            self._path(route_id).unlink(missing_ok=True)

    def published(self) -> list[str]:
        names = (path.stem for path in self._directory.glob("*.yaml"))
        return sorted(name for name in names if name != documents.SHARED_FILE)

    def live(self) -> Sequence[LiveRoute]:
        routers = self._ask("/api/http/routers?per_page=10000")
        return [_live(router) for router in routers if router.get("provider") == "file"]

    def wait(self, route: Route, *, timeout_s: float) -> None:
        def is_served() -> bool:
            router = self._ask(f"/api/http/routers/{route.id}@file", missing={})
            service = self._ask(f"/api/http/services/{route.id}@file", missing={})
            servers = service.get("loadBalancer", {}).get("servers", [])
            if router.get("status") == "disabled":
                raise RouteFailed(f"Traefik refuses the route to {route.hostname}.", effect=str(router.get("error")))
            rule = f"Host(`{route.hostname}`)"
            return router.get("rule") == rule and [server.get("url") for server in servers] == [route.url]

        self._poll(is_served, timeout_s, f"the route to {route.hostname} did not appear in the proxy")

    def wait_gone(self, route_id: str, *, timeout_s: float) -> None:
        def is_gone() -> bool:
            return not self._ask(f"/api/http/routers/{route_id}@file", missing={})

        self._poll(is_gone, timeout_s, f"the route {route_id} did not go from the proxy")

    def _put(self, name: str, text: str) -> None:
        path = self._path(name)
        with contextlib.suppress(OSError):
            if path.read_text() == text:
                return
        # A dot in front keeps Traefik from reading the half-written file.
        temporary = self._directory / f".{name}.{secrets.token_hex(4)}"
        try:
            with temporary.open("w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.rename(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise RouteFailed(
                f"A route could not be written: {error.strerror}.", effect="The old one stays."
            ) from error

    def _path(self, name: str) -> Path:
        return self._directory / f"{name}.yaml"

    def _poll(self, is_done: Callable[[], bool], timeout_s: float, otherwise: str) -> None:
        deadline = time.monotonic() + timeout_s
        reason = ""
        while time.monotonic() < deadline:
            try:
                if is_done():
                    return
            except RouteFailed as failure:
                reason = str(failure)
            time.sleep(POLL_S)
        raise RouteFailed(f"After {timeout_s:g} s {otherwise}.", effect=reason, next_step="See the proxy's log.")

    def _ask(self, path: str, missing: Any = None) -> Any:
        url = f"http://{self._addresses.edge}:{self._addresses.api_port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=ASK_TIMEOUT_S) as answer:
                return json.loads(answer.read(ANSWER_BYTES_MAX))
        except urllib.error.HTTPError as error:
            if error.code == 404 and missing is not None:
                return missing
            raise RouteFailed(f"Traefik's API answered {error.code}.") from error
        except (OSError, ValueError) as error:
            raise RouteFailed("Traefik's API does not answer.", next_step="Is the proxy running?") from error


def _live(router: dict[str, Any]) -> LiveRoute:
    rule = str(router.get("rule", ""))
    errors = router.get("error") or []
    return LiveRoute(
        id=str(router.get("name", "")).removesuffix("@file"),
        hostname=rule.removeprefix("Host(`").removesuffix("`)"),
        is_enabled=router.get("status") == "enabled",
        error="; ".join(map(str, errors)) if isinstance(errors, list) else str(errors),
    )
