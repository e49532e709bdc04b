"""The installation's own long-lived containers: control database, demo production, proxy. Pure specifications."""

from __future__ import annotations

import os

from orchestrator.config import Settings
from orchestrator.core.ports.engine import Attachment, ContainerLimits, ContainerSpec, Mount, NetworkSpec
from orchestrator.core.ports.servers import ServerKind, ServerSpec
from orchestrator.parts.generation import SERVICE_UID
from orchestrator.wiring.drivers import WEB_PORT, Drivers

CONTROL_DATABASE = "control"


def service_uid() -> int:
    """As root the installation's servers run as a user of their own, else as the orchestrator's."""
    return SERVICE_UID if os.geteuid() == 0 else os.geteuid()


def control(settings: Settings) -> ServerSpec:
    section, places = settings.control, settings.places
    return ServerSpec(
        name=f"{settings.instance}-control",
        data=places.server_data("control"),
        sockets=places.server_sockets("control"),
        uid=service_uid(),
        limits=ContainerLimits(section.memory, 2.0, 128),
        kind=ServerKind.CONTROL,
        settings={"max_connections": "100"},
    )


def production(settings: Settings) -> ServerSpec:
    """The demo's production; a company's own is reached by its DSN."""
    places = settings.places
    return ServerSpec(
        name=f"{settings.instance}-production",
        data=places.server_data("production"),
        sockets=places.server_sockets("production"),
        uid=service_uid(),
        limits=ContainerLimits(settings.production.demo_memory, 2.0, 128),
        kind=ServerKind.PRODUCTION,
    )


def edge_network(settings: Settings) -> NetworkSpec:
    """Between this host and the proxy; the only network with an address of the host on it."""
    networks = settings.networks
    return NetworkSpec(
        name=f"{settings.instance}-edge", subnet=str(networks.edge), gateway=networks.edge_gateway, internal=False
    )


def proxy_name(settings: Settings) -> str:
    return f"{settings.instance}-proxy"


def proxy(drivers: Drivers) -> ContainerSpec:
    settings = drivers.settings
    places = settings.places
    return ContainerSpec(
        name=proxy_name(settings),
        image=drivers.images.proxy,
        argv=(
            "traefik",
            "--configFile=/etc/traefik/static/traefik.yaml",
        ),
        uid=65534,
        gid=65534,
        limits=ContainerLimits(settings.proxy.memory, 2.0, 256),
        role="proxy",
        # Directories, not files: a file mounted by itself would not see a rename.
        mounts=(
            Mount(places.proxy, "/etc/traefik/dynamic", read_only=True),
            Mount(places.proxy_static, "/etc/traefik/static", read_only=True),
        ),
        networks=(Attachment(edge_network(settings).name, settings.networks.edge_proxy),),
        published=((str(settings.proxy.listen), settings.proxy.port, WEB_PORT),),
    )
