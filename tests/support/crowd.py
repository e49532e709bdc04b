"""One of everybody and one of everything: the whole application, with whatever would need a container unplugged."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import insert

from orchestrator.api import cookies
from orchestrator.config import PROJECT
from orchestrator.core.access import Role, User, principal_of
from orchestrator.core.actors import Actor, ActorKind
from orchestrator.core.allowlist.request import CommandRequest
from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.changeset.rows import RowChange, RowKind
from orchestrator.core.changeset.shape import Column, TableName, TableShape
from orchestrator.core.refresh import RefreshKind
from orchestrator.core.tenants import Tenant
from orchestrator.drivers.policy.file import DiskPolicyFile
from orchestrator.errors import Conflict
from orchestrator.flows.allowlist import AllowlistFlow
from orchestrator.flows.approval import ApprovalFlow
from orchestrator.flows.command import CommandFlow
from orchestrator.parts.policy import PolicyPart
from orchestrator.store import changes, jobs, refreshes, sessions, tenants, tokens, users
from orchestrator.store.tables.commands import COMMANDS
from orchestrator.wiring.services import Services
from tests.support.cluster import Cluster
from tests.support.console import PASSWORD, Console, console
from tests.support.desk import furnish
from tests.support.routes import BODIES, QUERIES, V1, filled

SOMEBODY = Actor(ActorKind.PERSON, "u-else", "else")
RATES = TableShape(TableName("hotel", "rates"), (Column("id", "int"), Column("price", "numeric")), primary_key=("id",))
PRICE = RowChange(RATES.table, RowKind.UPDATE, ("1",), {"id": "1", "price": "9"}, {"id": "1", "price": "10"})


class NotPluggedIn(Conflict):
    code = "conflict.not_plugged_in"


class Unplugged:
    """Stands where containers would be asked: whoever gets here got past every check."""

    def __getattr__(self, name: str) -> Unplugged:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *_: object, **__: object) -> Any:
        raise NotPluggedIn("This part is not plugged in.")

    __iter__ = __len__ = __call__


class WithoutQueries(CommandFlow):
    """There is no database to ask."""

    query = Unplugged()


@dataclass
class Crowd:
    """One of everybody, and one of everything that belongs to the tenant `north`."""

    house: Console
    client: TestClient
    people: dict[str, User] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    known: dict[str, str] = field(default_factory=dict)
    own: dict[str, dict[str, str]] = field(default_factory=dict)  # what differs from caller to caller

    def ask(self, caller: str, route: str, more: Mapping[str, str] | None = None, *, csrf: bool = True) -> Response:
        """Send it as `caller` would, in a session of its own; `more` are headers."""
        method = route.split(" ", 1)[0]
        path = filled(route, {**self.known, **self.own.get(caller, {})})
        headers = {"accept": "application/json", "sec-fetch-site": "same-origin"}
        named: dict[str, Any] = {}
        if caller in self.secrets:
            headers["authorization"] = f"Bearer {self.secrets[caller]}"
        elif caller != "nobody":
            services = self.house.services
            secret, _ = sessions.begin(
                self.house.store, self.people[caller].id, services.settings.proxy.console_host, lifetime_s=600
            )
            headers["cookie"] = f"{cookies.console_name(services.settings)}={secret}"
            if csrf and not route.split(" ", 1)[1].startswith(V1):
                headers["x-csrf-token"] = services.access.by_session(secret).csrf
        if route in BODIES:
            named["json"] = BODIES[route]
        if route in QUERIES:
            named["params"] = QUERIES[route]
        self.client.cookies.clear()
        return self.client.request(method, path, headers={**headers, **(more or {})}, follow_redirects=False, **named)


@contextmanager
def crowd_in(cluster: Cluster, directory: Path) -> Iterator[Crowd]:
    """The allowlist is a copy: it may be edited."""
    file = Path(shutil.copy(PROJECT / "configs" / "allowlist.yaml", directory / "allowlist.yaml"))
    with console(cluster, directory) as house:
        furnish(house, directory)
        policies = PolicyPart(house.store, house.audit, DiskPolicyFile(file))
        house.services.allowlist = AllowlistFlow(house.store, policies, lambda one: tenants.get(house.store, one))
        house.services.approvals = ApprovalFlow(house.store, house.audit, policies)
        flow = house.services.commands
        house.services.commands = WithoutQueries(flow.store, flow.audit, flow.gatekeeper)
        hands = {part: Unplugged() for part in ("workspace", "reach", "command_ids")}
        house.services.publish = replace(house.services.publish, **hands)
        parts = ("generations", "pools", "drafts", "limits")
        house.services.refresh = replace(house.services.refresh, **{part: Unplugged() for part in parts})
        for one in fields(Services):
            if not hasattr(house.services, one.name):
                setattr(house.services, one.name, None if one.name == "identity" else Unplugged())
        base = "http://console.localhost:8080"
        with TestClient(house.app, base_url=base, raise_server_exceptions=False) as client:
            made = Crowd(house, client)
            _people(made)
            made.known.update(_things(house, house.services, tenants.named(house.store, "north")))
            yield made


def _people(crowd: Crowd) -> None:
    store, house = crowd.house.store, crowd.house
    north, south = house.tenant("north", scope="harbour"), house.tenant("south")
    for name, role, of in (
        ("admin", Role.ADMIN, []),
        ("reviewer", Role.REVIEWER, []),
        ("manager", Role.MANAGER, [north.id]),
        ("stranger", Role.MANAGER, [south.id]),
        ("else", Role.MANAGER, [north.id]),
    ):
        crowd.people[name] = users.add(store, name, role, PASSWORD, tenant_ids=of)
    for name, user in crowd.people.items():
        _, token = tokens.add(store, user.id, "t", role=Role.AGENT, scopes=(), tenant_ids=None, lifetime_s=600)
        crowd.own[name] = {"token_id": token.id}
    for name, owner in (("agent", "manager"), ("foreign-agent", "stranger")):
        user = crowd.people[owner]
        access = house.services.access
        secret, _ = access.create_token(
            principal_of(user), user, name, role=Role.AGENT, tenant_ids=None, lifetime_s=600
        )
        crowd.secrets[name] = secret
        crowd.own[name] = crowd.own[owner]


def _things(house: Console, services: SimpleNamespace, north: Tenant) -> Mapping[str, str]:
    store = house.store
    with store.begin() as connection:
        connection.execute(
            insert(COMMANDS).values(
                id="k1",
                tenant_id=north.id,
                tenant=north.name,
                actor_kind="person",
                actor_id="u-else",
                actor_name="else",
                argv=["ls"],
                cwd="/workspace",
                place="sandbox",
                network="none",
                decision="allow",
                policy_version=1,
                state="finished",
                exit_code=0,
            )
        )
        change = changes.add(
            connection,
            tenant_id=north.id,
            tenant_name=north.name,
            title="Prices",
            description="",
            author=SOMEBODY,
            generation_id=None,
            changeset=Changeset.build("s1", {RATES.table: RATES}, [PRICE]),
            digest="0" * 64,
            code_head=None,
        )
    begun = refreshes.begin(
        store,
        tenant_id=north.id,
        kind=RefreshKind.REFRESH,
        generation_id="g1",
        previous_id=None,
        snapshot_id=None,
        requested_by="scheduler",
    )
    approval = services.approvals.ask_rule(
        north, CommandRequest(argv=("nmap",)), actor=SOMEBODY, reason="to look around"
    )
    return {
        "name": north.name,
        "user": "else",
        "command_id": "k1",
        "change_id": change.id,
        "row_id": PRICE.id(),
        "job_id": jobs.cancel(store, jobs.ask(store, "refresh", requested_by="else", tenant_id=north.id).id).id,
        "refresh_id": begun.id,
        "approval_id": approval.id,
        "snapshot_id": "s1",
        "number": "1",
        "session_id": "s0",
        "token_id": "t0",
        "delivery_id": "1",
    }
