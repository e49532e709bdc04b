"""Network profiles: by name, the exact hosts and ports a command may reach through the filtering proxy. Pure."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from orchestrator.core.tenants import room_for
from orchestrator.errors import NotFound, OutsideFailure

NONE = "none"
PROFILE = re.compile(r"[a-z][a-z0-9-]{0,39}")
HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
FIRST_PORT = 3128
PROFILES_MAX = 32
# What lies inside a site or a machine is never reached, unless the profile says so: no name can point there.
PRIVATE = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/3",
    "::/128",
    "::1/128",
    "::ffff:0:0/96",
    "64:ff9b::/96",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
)


class UnknownNetwork(NotFound):
    code = "not_found.network_profile"


class EgressFailed(OutsideFailure):
    """The filtering proxy does not run; nothing goes out, since there is no other way."""

    code = "outside_failure.egress"


def _target(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ValueError(f"{value!r} needs a port: example.com:443")
    if "*" in host or not (HOST.fullmatch(host) or _is_address(host)):
        raise ValueError(f"{value!r} is not one exact host in lower case (no wildcards)")
    return value


def _is_address(host: str) -> bool:
    try:
        IPv4Address(host)
    except ValueError:
        return False
    return True


class NetworkProfile(BaseModel):
    """`reaches` are exact host:port pairs; `private: true` lets them lie in private address ranges."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reaches: tuple[Annotated[str, AfterValidator(_target)], ...] = Field(min_length=1, max_length=200)
    private: bool = False


def _profile_name(name: str) -> str:
    if not PROFILE.fullmatch(name) or name == NONE:
        raise ValueError(f"{name!r} cannot be the name of a network profile")
    return name


Profiles = Annotated[
    dict[Annotated[str, AfterValidator(_profile_name)], NetworkProfile], Field(max_length=PROFILES_MAX)
]


def _roomy(plan: IPv4Network) -> IPv4Network:
    if room_for(plan) < 1 or plan.is_global:
        raise ValueError("use a private range of /22 or larger; a /16 has room for every tenant")
    return plan


class NetworkSettings(BaseModel):
    """configs/networks.yaml: the installation's address plan, and what commands may reach through it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    plan: Annotated[IPv4Network, AfterValidator(_roomy)] = IPv4Network("10.213.0.0/16")
    profiles: Profiles = {}

    @property
    def edge(self) -> IPv4Network:
        """The network between the host and the proxy: the plan's first /28."""
        return IPv4Network((int(self.plan.network_address), 28))

    @property
    def edge_gateway(self) -> str:
        """This host's address there; the sign-in check listens on it."""
        return str(self.edge[1])

    @property
    def edge_proxy(self) -> str:
        return str(self.edge[2])


def ports(profiles: dict[str, NetworkProfile]) -> dict[str, int]:
    """The proxy's port for each profile: the kernel lets a command connect to its own profile's port alone."""
    return {name: FIRST_PORT + number for number, name in enumerate(sorted(profiles))}


def outward(plan: IPv4Network, number: int) -> tuple[IPv4Network, str, str]:
    """The network with a way out (the plan's last sixteenth), its gateway, and the address for tenant `number`."""
    subnet = list(plan.subnets(prefixlen_diff=4))[-1]
    if number + 16 >= subnet.num_addresses - 1:
        raise ValueError(f"tenant {number} has no address in {subnet}")
    return subnet, str(subnet[1]), str(subnet[16 + number])


def squid_configuration(profiles: dict[str, NetworkProfile], *, listen: str) -> str:
    """Squid's whole configuration: a port for each profile, its pairs, and nothing else."""
    lines = [
        "# Written by the orchestrator; changes are lost.",
        "pid_filename none",
        "cache deny all",
        "access_log stdio:/dev/stdout",
        "cache_log /dev/stderr",
        "cache_store_log none",
        "coredump_dir none",
        "shutdown_lifetime 1 second",
        "connect_timeout 10 seconds",
        "read_timeout 60 seconds",
        "client_lifetime 1 hour",
        "request_header_max_size 32 KB",
        "forwarded_for delete",
        "via off",
        "httpd_suppress_version_string on",
        "positive_dns_ttl 60 seconds",
        "acl private dst " + " ".join(PRIVATE),
        "http_access deny manager",
    ]
    for name, port in ports(profiles).items():
        profile = profiles[name]
        lines += [f"http_port {listen}:{port} name={name}", f"acl from_{name} myportname {name}"]
        if not profile.private:
            lines.append(f"http_access deny from_{name} private")
        for number, target in enumerate(profile.reaches):
            host, _, target_port = target.rpartition(":")
            kind = "dst" if _is_address(host) else "dstdomain -n"
            lines += [
                f"acl host_{name}_{number} {kind} {host}",
                f"acl port_{name}_{number} port {target_port}",
                f"http_access allow from_{name} host_{name}_{number} port_{name}_{number}",
            ]
    lines.append("http_access deny all")
    return "\n".join(lines) + "\n"
