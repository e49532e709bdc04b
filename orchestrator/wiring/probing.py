"""The probe flow of an installation: what must not be reached, and how to look at it."""

from __future__ import annotations

import http.client
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import psycopg
from sqlalchemy import Engine, make_url

from orchestrator.config import Settings
from orchestrator.core.names import TenantNames
from orchestrator.core.networks import NetworkSettings
from orchestrator.core.tenants import Tenant
from orchestrator.flows.probe import ProbeFlow, ProbeTargets
from orchestrator.parts.tenancy import Tenancy
from orchestrator.store import generations, snapshots
from orchestrator.wiring import servers
from orchestrator.wiring.drivers import WEB_PORT, Drivers

POSTGRES_PORT = 5432
STRANGER_TIMEOUT_S = 5.0


def make_probe(drivers: Drivers, store: Engine, tenancy: Tenancy) -> ProbeFlow:
    settings = drivers.settings
    return ProbeFlow(
        store=store,
        audit=drivers.audit,
        engine=drivers.engine,
        network=tenancy.network,
        places=drivers.places,
        instance=settings.instance,
        uid=lambda tenant: tenant.uid if os.geteuid() == 0 else os.geteuid(),
        targets=targets(settings),
        connect=tenancy.sandbox.connect,
        policy=tenancy.sandbox.policy,
        profile=settings.limits.profile,
        rights=_rights(drivers, store, tenancy),
        live_id=tenancy.pools.live_id,
        stranger=_stranger(settings),
    )


def targets(settings: Settings) -> ProbeTargets:
    """Where the parts that no tenant may reach are, by address or by the path of their sockets."""
    networks, places = settings.networks, settings.places
    host = [(networks.edge_gateway, settings.api.edge_port), (_own_address(), settings.api.port)]
    host += [(networks.edge_proxy, WEB_PORT), ("172.17.0.1", settings.api.edge_port)]
    production: list[tuple[str, int]] = []
    production_paths = [servers.production(settings).sockets, servers.production(settings).data]
    for dsn in (settings.production.mirror.dsn, settings.production.primary.dsn):
        production += _from_inside(_addresses(dsn), networks)
        production_paths += _directories(dsn)
    control: list[tuple[str, int]] = []
    control_paths = [servers.control(settings).sockets, servers.control(settings).data, places.secrets, places.audit]
    if settings.control_url():
        url = make_url(settings.control_url())
        control = _from_inside([(url.host, url.port or POSTGRES_PORT)] if url.host else [], networks)
        named = url.query.get("host", "")
        control_paths += [Path(one) for one in ([named] if isinstance(named, str) else named) if one.startswith("/")]
    return ProbeTargets(
        host=tuple(dict.fromkeys(host)),
        production=tuple(dict.fromkeys(production)),
        control=tuple(control),
        production_paths=[str(path) for path in production_paths],
        control_paths=[str(path) for path in control_paths],
        web_port=WEB_PORT,
    )


def _addresses(dsn: str) -> list[tuple[str, int]]:
    """The hosts a connection string names; a directory of sockets is no address."""
    values = psycopg.conninfo.conninfo_to_dict(dsn)
    hosts = str(values.get("host") or "").split(",")
    ports = str(values.get("port") or POSTGRES_PORT).split(",")
    named = [one for one in hosts if one and not one.startswith("/")]
    return [(one, int(ports[min(number, len(ports) - 1)])) for number, one in enumerate(named)]


def _directories(dsn: str) -> list[Path]:
    hosts = str(psycopg.conninfo.conninfo_to_dict(dsn).get("host") or "").split(",")
    return [Path(one) for one in hosts if one.startswith("/")]


def _from_inside(addresses: list[tuple[str, int]], networks: NetworkSettings) -> list[tuple[str, int]]:
    """A server on this host's loopback is sought where this host might answer: inside, it is the sandbox's own."""
    found = []
    for host, port in addresses:
        is_loopback = host in ("localhost", "::1") or host.startswith("127.")
        found += [(networks.edge_gateway, port), (_own_address(), port)] if is_loopback else [(host, port)]
    return found


def _own_address() -> str:
    """This machine's address towards the outside; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.1.1"


def _rights(drivers: Drivers, store: Engine, tenancy: Tenancy) -> Callable[[Tenant], Mapping[str, bool]]:
    def rights(tenant: Tenant) -> Mapping[str, bool]:
        with store.connect() as connection:
            live = generations.live(connection, tenant.id)
            if live is None:
                return {}
            image = snapshots.get(connection, live.snapshot_id).image
        limits = drivers.settings.limits.profile(tenant.profile).database_limits
        spec = tenancy.generations.spec(tenant, live.id, limits, image=image)
        return drivers.roles.rights(spec, TenantNames(drivers.settings.instance, tenant.id, tenant.name).role)

    return rights


def _stranger(settings: Settings) -> Callable[[Tenant], str]:
    """The hostname's answer to somebody without a sign-in: its status, or what went wrong in a word."""

    def ask(tenant: Tenant) -> str:
        connection = http.client.HTTPConnection(settings.networks.edge_proxy, WEB_PORT, timeout=STRANGER_TIMEOUT_S)
        try:
            connection.request("GET", "/", headers={"Host": f"{tenant.name}.{settings.proxy.domain}"})
            return str(connection.getresponse().status)
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__
        finally:
            connection.close()

    return ask
