"""What set-up needs to know."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.config import Settings
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


@dataclass(frozen=True)
class SetupOptions:
    """`images` names ready images; what it leaves empty is built. `disk_bytes` 0 means: as fits this machine."""

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
    ca_bundle: Path | None = field(default_factory=host_ca_bundle)
    registry_patience_s: int = 10
    instance: str = "orchestrator"


def from_settings(settings: Settings) -> SetupOptions:
    """Set-up of a configured installation."""
    return SetupOptions(
        places=settings.places,
        disk_bytes=settings.disk,
        images=settings.images.image_set(),
        instance=settings.instance,
    )
