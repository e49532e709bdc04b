"""The way out: only through the proxy, only to the listed pairs, only with the profile; the network and kernel hold."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from orchestrator.core.networks import NetworkProfile, UnknownNetwork, outward
from orchestrator.core.places import Places
from orchestrator.core.ports.engine import Attachment, ContainerLimits, ContainerSpec, NetworkSpec
from orchestrator.core.tenants import PoolMode, RefreshPolicy, Tenant, TenantState
from orchestrator.drivers.docker.engine import DockerEngine
from orchestrator.parts.egress import EgressPart, Way
from orchestrator.parts.network import NetworkPart
from tests.support.engine import SessionImages
from tests.support.sandbox import Sandbox, running_sandbox

pytestmark = pytest.mark.engine
PYTHON = "/usr/bin/python3"
ASK = """
import http.client, sys
proxy, url = sys.argv[1], sys.argv[2]
host, _, port = proxy.rpartition(":")
try:
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    connection.request("GET", url)
    print(connection.getresponse().status)
except OSError as error:
    print(type(error).__name__)
"""


class Outside:
    """A tenant's network with a sandbox on it, a network with a gateway, and a server out there."""

    def __init__(self, engine: DockerEngine, images: SessionImages, root: Path) -> None:
        self.engine, self.images, self.root = engine, images, root
        self.plan = IPv4Network(f"10.{236 + os.getpid() % 16}.0.0/16")
        self.tenant = Tenant(
            "tegress", "north", 3, "office", "", TenantState.RUNNING, None, "full",
            RefreshPolicy.SAVE, PoolMode.TRANSACTION, datetime.now(UTC),
        )  # fmt: skip
        self.network = NetworkPart(engine, self.plan, engine.instance, "")
        self.target = str(outward(self.plan, 0)[0][8])

    def part(self, **profiles: NetworkProfile) -> EgressPart:
        return EgressPart(
            engine=self.engine,
            network=self.network,
            places=Places(self.root),
            instance=self.engine.instance,
            image=self.images.egress,
            profiles=profiles,
        )

    def way(self, part: EgressPart, profile: str) -> Way:
        found = part.way(self.tenant, profile)
        assert found is not None
        return found

    @contextmanager
    def server(self) -> Iterator[None]:
        """Answers on port 8080 (and 8081) of an address beyond the gateway's network."""
        subnet, gateway, _ = outward(self.plan, 0)
        name = f"{self.engine.instance}-outward"
        self.engine.ensure_network(NetworkSpec(name, str(subnet), gateway=gateway, internal=False))
        script = (
            "import http.server, threading\n"
            "for port in (8080, 8081):\n"
            "    server = http.server.HTTPServer(('', port), http.server.SimpleHTTPRequestHandler)\n"
            "    threading.Thread(target=server.serve_forever).start()\n"
        )
        spec = ContainerSpec(
            name=f"{self.engine.instance}-target",
            image=self.images.sandbox,
            argv=(PYTHON, "-c", script),
            uid=65_534,
            gid=65_534,
            limits=ContainerLimits(64 << 20, 1.0, 16),
            role="target",
            networks=(Attachment(name, self.target),),
        )
        self.engine.start(spec)
        try:
            yield
        finally:
            self.engine.remove(spec.name)


@pytest.fixture
def outside(engine: DockerEngine, images: SessionImages, tmp_path: Path) -> Iterator[Outside]:
    made = Outside(engine, images, tmp_path)
    try:
        yield made
    finally:
        made.part().remove(made.tenant)
        made.network.remove(made.tenant)
        engine.remove_network(f"{engine.instance}-outward")


def ask(sandbox: Sandbox, proxy: str, url: str, *ports: int) -> str:
    """What a program in the sandbox gets; a server that is still starting is asked again."""
    for _ in range(100):
        said = sandbox.python(ASK, proxy, url, tcp_connect=ports).stdout.decode().strip()
        if said not in ("503", ""):
            return said
        time.sleep(0.2)
    return said


def test_only_listed_pairs_are_reached_and_only_with_the_profile(outside: Outside, images: SessionImages) -> None:
    target = outside.target
    part = outside.part(
        inner=NetworkProfile(reaches=(f"{target}:8080",), private=True),
        public=NetworkProfile(reaches=(f"{target}:8080", "example.com:443")),
    )
    place = outside.network.ensure(outside.tenant)
    with outside.server(), running_sandbox(outside.engine, images.sandbox, networks=(place,)) as sandbox:
        sandbox.list(PYTHON)
        inner, public = outside.way(part, "inner"), outside.way(part, "public")
        proxy = inner.environment["HTTPS_PROXY"].removeprefix("http://")
        other = public.environment["HTTPS_PROXY"].removeprefix("http://")
        assert (inner.port, public.port) == (3128, 3129)
        url = f"http://{target}:8080/"

        assert ask(sandbox, proxy, url, inner.port) == "200"
        assert ask(sandbox, proxy, f"http://{target}:8081/", inner.port) == "403"  # another port
        assert ask(sandbox, proxy, "http://169.254.169.254/", inner.port) == "403"
        assert ask(sandbox, proxy, "http://localhost:3128/squid-internal-mgr/info", inner.port) == "403"
        assert ask(sandbox, other, url, public.port) == "403"  # private, and this profile does not say so
        # The kernel: no profile, no port; one profile, not the other's port.
        assert ask(sandbox, proxy, url) == "PermissionError"
        assert ask(sandbox, other, url, inner.port) == "PermissionError"
        # The network: past the proxy there is no way, whatever the kernel would allow.
        assert ask(sandbox, f"{target}:8080", "/", 8080) in ("OSError", "TimeoutError")


def test_a_changed_configuration_replaces_the_proxy_and_an_unknown_profile_is_told(outside: Outside) -> None:
    outside.network.ensure(outside.tenant)
    first = outside.part(a=NetworkProfile(reaches=("example.com:443",)))
    outside.way(first, "a")
    name = f"{outside.engine.instance}-{outside.tenant.id}-egress"
    before = outside.engine.observe(name)
    outside.way(first, "a")
    again = outside.engine.observe(name)
    assert before is not None and again is not None and before.id == again.id
    second = outside.part(a=NetworkProfile(reaches=("example.com:80",)))
    outside.way(second, "a")
    after = outside.engine.observe(name)
    assert after is not None and after.id != before.id
    with pytest.raises(UnknownNetwork, match="no network profile"):
        second.way(outside.tenant, "b")
    assert second.way(outside.tenant, "none") is None
