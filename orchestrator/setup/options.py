"""What set-up needs to know."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.config import CONTAINED, Settings
from orchestrator.core.images import ImageSet
from orchestrator.core.places import Places

PROJECT = Path(__file__).resolve().parents[2]
CA_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def host_ca_bundle() -> Path | None:
    """The certificates this host trusts, a company's own included."""
    for candidate in (os.environ.get("SSL_CERT_FILE", ""), os.environ.get("REQUESTS_CA_BUNDLE", ""), *CA_BUNDLES):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    return None


def is_contained() -> bool:
    """Whether this process runs in the control plane's own image: the host was prepared from outside then."""
    return bool(os.environ.get(CONTAINED))


@dataclass(frozen=True)
class SetupOptions:
    """`images` names ready images; what it leaves empty is built. `disk_bytes` 0 means: as fits this machine.

    `project` is where the programs' sources are, `home` what holds `configs/` and the file .env of docker compose;
    `compose` is what that file says beside the images' names.
    """

    places: Places
    disk_bytes: int = 0
    images: ImageSet = field(default_factory=ImageSet)
    for_tests: bool = False
    for_compose: bool = False
    root_image: str = "debian:trixie-slim"
    debian_mirror: str = field(
        default_factory=lambda: os.environ.get("ORCHESTRATOR_DEBIAN_MIRROR", "http://deb.debian.org/debian")
    )
    project: Path = PROJECT
    home: Path = PROJECT
    ca_bundle: Path | None = field(default_factory=host_ca_bundle)
    registry_patience_s: int = 10
    instance: str = "orc"
    compose: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_root(self) -> bool:
        return os.geteuid() == 0

    @property
    def wants_control(self) -> bool:
        """Whether the control plane's own image is needed: a user who is not root works through it too."""
        return self.for_compose or self.for_tests or not self.is_root


def from_settings(settings: Settings) -> SetupOptions:
    """Set-up of a configured installation."""
    networks, proxy = settings.networks, settings.proxy
    return SetupOptions(
        places=settings.places,
        disk_bytes=settings.disk,
        images=settings.images.image_set(),
        instance=settings.instance,
        home=settings.directory.parent,
        compose={
            "COMPOSE_PROJECT_NAME": settings.instance,
            "ORCHESTRATOR_INSTANCE": settings.instance,
            "ORCHESTRATOR_VAR": str(settings.places.var),
            "PROXY_LISTEN": str(proxy.listen),
            "PROXY_PORT": str(proxy.port),
            "EDGE_SUBNET": str(networks.edge),
            "EDGE_GATEWAY": networks.edge_gateway,
            "EDGE_PROXY": networks.edge_proxy,
        },
    )
