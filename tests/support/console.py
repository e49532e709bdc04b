"""The console over a real control database, without containers, and people who use it as browsers do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import Engine

from orchestrator import config
from orchestrator.core.access import Role, User
from orchestrator.core.tenants import PoolMode, RefreshPolicy, Tenant, TenantState
from orchestrator.drivers.audit.log import FileAuditLog
from orchestrator.flows.access import Access
from orchestrator.flows.refresh import RefreshFlow
from orchestrator.scheduler.asked import asked_handlers
from orchestrator.scheduler.start import handlers
from orchestrator.scheduler.worker import Worker
from orchestrator.store import tenants, users
from orchestrator.web.pages import create_console
from orchestrator.wiring.build import _access_rules
from orchestrator.wiring.services import Services
from tests.support.cluster import Cluster
from tests.support.stores import control_store

PASSWORD = "correct horse battery"
TOKEN = re.compile(r'name="csrf-token" content="([0-9a-f]{64})"')


@dataclass
class Browser:
    """One person's browser: sends what a browser sends, fills forms with the page's own token."""

    client: TestClient
    user: User
    _token: str = ""

    def get(self, path: str, **named: Any) -> Response:
        headers = {"accept": "text/html", **named.pop("headers", {})}
        return self.client.get(path, headers=headers, follow_redirects=False, **named)

    def follow(self, path: str) -> Response:
        return self.client.get(path, headers={"accept": "text/html"}, follow_redirects=True)

    @property
    def token(self) -> str:
        if not self._token:
            found = TOKEN.search(self.get("/account").text)
            assert found is not None
            self._token = found[1]
        return self._token

    def post(self, path: str, /, *, csrf: str | None = None, **fields: Any) -> Response:
        """A form of ours, sent from our own page. A job it asks for is done, and the answer is what comes after it."""
        answer = self.send(path, csrf=csrf, **fields)
        watched = answer.headers.get("location", "")
        if not watched.startswith("/jobs/") or "watch=1" not in watched:
            return answer
        work(cast(FastAPI, self.client.app).state.services)
        return self.get(watched)

    def send(self, path: str, /, *, csrf: str | None = None, **fields: Any) -> Response:
        """The form alone: a job it asks for waits."""
        data = {"csrf_token": self.token if csrf is None else csrf, **fields}
        headers = {"accept": "text/html", "sec-fetch-site": "same-origin"}
        return self.client.post(path, data=data, headers=headers, follow_redirects=False)


def worker(services: Services, *, poll_s: float = 0.1) -> Worker:
    """What does the console's jobs, as the scheduler's process does."""
    asked = asked_handlers(services)
    return Worker(services.store, {**handlers(services), **asked}, told_at_once=asked, poll_s=poll_s)


def work(services: Services) -> None:
    """Do every job that waits, here and now."""
    hands = worker(services)
    while hands.run_one():
        pass


@dataclass
class Console:
    """The application with what it needs; `services` may be given more flows."""

    app: FastAPI
    services: SimpleNamespace
    store: Engine
    audit: FileAuditLog
    clients: list[TestClient] = field(default_factory=list)

    def tenant(self, name: str, state: TenantState = TenantState.RUNNING, scope: str | None = None) -> Tenant:
        made = tenants.add(
            self.store,
            name,
            profile="office",
            image="",
            scope=scope,
            snapshot_profile="full",
            refresh_policy=RefreshPolicy.SAVE,
            pool_mode=PoolMode.TRANSACTION,
            tenants_max=500,
        )
        tenants.set_state(self.store, made.id, state)
        return tenants.get(self.store, made.id)

    def visitor(self) -> TestClient:
        client = TestClient(self.app, base_url="http://console.localhost:8080", raise_server_exceptions=False)
        self.clients.append(client)
        return client

    def sign_in(self, name: str, role: Role, *of: Tenant) -> Browser:
        user = users.add(self.store, name, role, PASSWORD, tenant_ids=[one.id for one in of])
        client = self.visitor()
        answer = client.post("/login", data={"name": name, "password": PASSWORD}, follow_redirects=False)
        assert answer.status_code == 303, answer.text
        return Browser(client, user)


@contextmanager
def console(cluster: Cluster, directory: Path, **more: Any) -> Iterator[Console]:
    """`more` are further services, by name."""
    with control_store(cluster) as store:
        settings = config.load(config.PROJECT / "configs", environment={})
        audit = FileAuditLog(directory / "audit", directory / "audit.key")
        refresh = RefreshFlow(
            store=store,
            audit=audit,
            generations=cast(Any, None),
            pools=cast(Any, None),
            drafts=cast(Any, None),
            reload=lambda tenant_id: tenants.get(store, tenant_id),
            limits=cast(Any, None),
        )
        services = SimpleNamespace(
            settings=settings,
            store=store,
            audit=audit,
            access=Access(store, audit, _access_rules(settings), b"k" * 32),
            refresh=refresh,
            **more,
        )
        app = create_console(cast(Services, services))
        made = Console(app, services, store, audit)
        try:
            yield made
        finally:
            for client in made.clients:
                client.close()
