"""A tenant's way out: a Squid of its own between the tenant's network and one with a gateway, started when wanted.

The tenant's network has no gateway, so this proxy is the only way; the kernel of the sandbox lets a command connect
to the port of its own network profile and to no other. Variables like HTTPS_PROXY are a courtesy.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.core.names import TenantNames
from orchestrator.core.networks import (
    NONE,
    EgressFailed,
    NetworkProfile,
    UnknownNetwork,
    outward,
    ports,
    squid_configuration,
)
from orchestrator.core.places import Places
from orchestrator.core.ports.engine import Attachment, ContainerLimits, ContainerSpec, Engine, Mount, NetworkSpec
from orchestrator.core.tenants import Tenant
from orchestrator.parts.network import NetworkPart

LIMITS = ContainerLimits(memory_bytes=96 << 20, cpus=1.0, pids=32)
UID = 65_534
READY_S = 20.0
POLL_S = 0.05


@dataclass(frozen=True)
class Way:
    """What a command needs to use its profile."""

    port: int
    environment: Mapping[str, str]


@dataclass(frozen=True)
class EgressPart:
    """`profiles` are those of configs/networks.yaml; `image` has Squid."""

    engine: Engine
    network: NetworkPart
    places: Places
    instance: str
    image: str
    profiles: Mapping[str, NetworkProfile]

    def way(self, tenant: Tenant, profile: str) -> Way | None:
        """Make sure the proxy runs, and say how it is reached; None for `none`.

        Raises UnknownNetwork, EngineFailed, EgressFailed.
        """
        if profile == NONE:
            return None
        if profile not in self.profiles:
            listed = ", ".join(sorted(self.profiles)) or "there is none"
            raise UnknownNetwork(f"There is no network profile {ascii(profile)[:60]}.", next_step=f"Listed: {listed}.")
        address = self.network.addresses(tenant).egress
        port = ports(dict(self.profiles))[profile]
        self._ensure(tenant, address)
        url = f"http://{address}:{port}"
        names = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
        return Way(port, dict.fromkeys(names, url))

    def name(self, tenant: Tenant) -> str:
        return f"{self.instance}-{tenant.id}-egress"

    def remove(self, tenant: Tenant) -> None:
        """Delete the tenant's proxy; fine when there is none."""
        self.engine.remove(self.name(tenant))
        (self._directory(tenant) / "squid.conf").unlink(missing_ok=True)

    def spec(self, tenant: Tenant, text: str) -> ContainerSpec:
        """The container; a changed configuration makes it another one, so that it is replaced."""
        _, _, address = outward(self.network.plan, tenant.number)
        inner = TenantNames(self.instance, tenant.id, tenant.name).network
        return ContainerSpec(
            name=self.name(tenant),
            image=self.image,
            argv=("/usr/sbin/squid", "-N", "-f", "/etc/egress/squid.conf"),
            uid=UID,
            gid=UID,
            limits=LIMITS,
            role="egress",
            tenant_id=tenant.id,
            environment={"CONFIGURATION": hashlib.sha256(text.encode()).hexdigest()},
            mounts=(Mount(self._directory(tenant), "/etc/egress", read_only=True),),
            tmpfs={"/run": "rw,nosuid,nodev,noexec,size=4m", "/tmp": "rw,nosuid,nodev,noexec,size=4m"},  # noqa: S108
            networks=(
                Attachment(self._outward, address),
                Attachment(inner, self.network.addresses(tenant).egress),
            ),
        )

    @property
    def _outward(self) -> str:
        return f"{self.instance}-outward"

    def _ensure(self, tenant: Tenant, address: str) -> None:
        text = squid_configuration(dict(self.profiles), listen=address)
        spec = self.spec(tenant, text)
        found = self.engine.observe(spec.name)
        file = self._directory(tenant) / "squid.conf"
        if found is not None and found.running and file.is_file() and file.read_text() == text:
            return
        subnet, gateway, _ = outward(self.network.plan, tenant.number)
        self.engine.ensure_network(NetworkSpec(self._outward, str(subnet), gateway=gateway, internal=False))
        self._write(file, text)
        self.engine.start(spec)
        self._wait(tenant, spec)

    def _write(self, file: Path, text: str) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_suffix(".new")
        fresh.write_text(text)
        fresh.chmod(0o644)
        fresh.replace(file)

    def _wait(self, tenant: Tenant, spec: ContainerSpec) -> None:
        """Until it listens on every port, seen from the network with the gateway, or has ended."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            found = self.engine.observe(spec.name)
            if found is None or not found.running:
                break
            if "Accepting HTTP Socket connections" in self.engine.logs(spec.name, lines=50):
                return
            time.sleep(POLL_S)
        said = self.engine.logs(spec.name, lines=10) if self.engine.observe(spec.name) else ""
        raise EgressFailed(
            f"The filtering proxy of {tenant.name} does not run.",
            effect="Nothing can leave the sandbox; the command was not run.",
            next_step="Check configs/networks.yaml and the proxy's log.",
            log=said[-500:],
        )

    def _directory(self, tenant: Tenant) -> Path:
        return self.places.tenant_run(tenant.id) / "e"
