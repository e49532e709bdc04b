"""Every driver of an installation, made from its settings. Making them touches nothing but the volume's directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from orchestrator.config import PROJECT, Settings
from orchestrator.core.images import ImageSet
from orchestrator.core.places import Places
from orchestrator.drivers.audit.log import FileAuditLog
from orchestrator.drivers.docker.engine import DockerEngine
from orchestrator.drivers.files.confined import ConfinedFiles
from orchestrator.drivers.git.keys import PushKeys
from orchestrator.drivers.git.remote import Remote
from orchestrator.drivers.git.repository import BareRepository
from orchestrator.drivers.pool.pools import PgBouncerPools
from orchestrator.drivers.postgres.roles import PostgresRoles
from orchestrator.drivers.postgres.server import PostgresServers
from orchestrator.drivers.postgres.tools import Binaries
from orchestrator.drivers.sandboxd.client import SandboxdClients
from orchestrator.drivers.traefik.documents import ProxyAddresses
from orchestrator.drivers.traefik.proxy import TraefikProxy
from orchestrator.drivers.volume.trees import LocalVolume
from orchestrator.setup.images import load_images
from orchestrator.setup.volume import require_volume

WEB_PORT = 8080
PROXY_API_PORT = 8081
SECCOMP_PROFILE = PROJECT / "sandbox_image" / "seccomp.json"


@dataclass(frozen=True)
class Drivers:
    """The outside world, as the ports of core name it."""

    settings: Settings
    places: Places
    images: ImageSet
    engine: DockerEngine
    volume: LocalVolume
    binaries: Binaries
    servers: PostgresServers
    roles: PostgresRoles
    pools: PgBouncerPools
    sandboxds: SandboxdClients
    proxy: TraefikProxy
    proxy_addresses: ProxyAddresses
    repository: BareRepository
    files: ConfinedFiles
    audit: FileAuditLog


def make_drivers(settings: Settings) -> Drivers:
    """Raises SetupFailed before the first set-up, VolumeFailed when the disk cannot be used."""
    places = settings.places
    images = load_images(places)
    require_volume(places.var)
    engine = DockerEngine(settings.instance)
    binaries = Binaries(images.postgres)
    servers = PostgresServers(engine, binaries)
    networks = settings.networks
    addresses = ProxyAddresses(
        edge=networks.edge_proxy,
        web_port=WEB_PORT,
        api_port=PROXY_API_PORT,
        sign_in_url=f"http://{networks.edge_gateway}:{settings.api.edge_port}/auth/forward",
    )
    return Drivers(
        settings=settings,
        places=places,
        images=images,
        engine=engine,
        volume=LocalVolume(places.disk),
        binaries=binaries,
        servers=servers,
        roles=PostgresRoles(servers),
        pools=PgBouncerPools(engine),
        sandboxds=SandboxdClients(),
        proxy=TraefikProxy(places.proxy, addresses),
        proxy_addresses=addresses,
        repository=BareRepository(places.bare_repository(), _remote(settings, places)),
        files=ConfinedFiles(),
        audit=FileAuditLog(places.audit, places.secrets / "audit.key"),
    )


def company_repository(places: Places) -> Path:
    """Where the company's repository is kept when the configuration names no remote."""
    return places.var / "git" / "origin.git"


def _remote(settings: Settings, places: Places) -> Remote:
    branch = settings.branch
    named = {"publish": branch.publish_credential_file, "merge": branch.merge_credential_file}
    programs = {credential: path for credential, path in named.items() if path is not None}
    if branch.remote:
        return Remote(branch.remote, programs)
    return Remote(str(company_repository(places)), programs, push_keys(settings))


def push_keys(settings: Settings) -> PushKeys:
    """What keeps the two ways of pushing apart where the company's repository is our own."""
    places = settings.places
    return PushKeys(company_repository(places), places.secrets, settings.branch.production)
