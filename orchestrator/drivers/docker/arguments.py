"""Specifications as the engine's API wants them. Pure: no engine is asked here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from ipaddress import ip_network
from typing import Any

from orchestrator.core.ports.engine import ContainerSpec, NetworkSpec

LABEL_INSTANCE = "orchestrator.instance"
LABEL_TENANT = "orchestrator.tenant"
LABEL_GENERATION = "orchestrator.generation"
LABEL_ROLE = "orchestrator.role"
LABEL_SPEC = "orchestrator.spec"
# On a container that something else defines and keeps (docker compose): used as it is, never replaced.
LABEL_KEPT_BY = "orchestrator.kept-by"
LOG_FILE_SIZE = "5m"
LOG_FILES = "2"
NANO = 1_000_000_000
# Nothing listens there: the engine's resolver then knows the container's own networks and nothing else.
NO_NAME_SERVER = "127.0.0.1"
HIDDEN_PATHS = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
]
FIXED_PATHS = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def spec_digest(spec: ContainerSpec, seccomp: str | None = None) -> str:
    """Tells whether a container was made from an equal specification (its seccomp profile's text included)."""
    canonical = json.dumps([asdict(spec), seccomp], sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def labels(instance: str, spec: ContainerSpec, digest: str) -> dict[str, str]:
    """What marks a container as ours, and of whom."""
    return {
        LABEL_INSTANCE: instance,
        LABEL_TENANT: spec.tenant_id,
        LABEL_GENERATION: spec.generation_id,
        LABEL_ROLE: spec.role,
        LABEL_SPEC: digest,
    }


def host_config(spec: ContainerSpec, seccomp: str | None = None) -> dict[str, Any]:
    """The host side of a container: the hardening that is never an option, and the spec's limits and mounts."""
    security = ["no-new-privileges:true"]
    if seccomp is not None:
        security.append(f"seccomp={seccomp}")
    config: dict[str, Any] = {
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": security,
        "Privileged": False,
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": LOG_FILE_SIZE, "max-file": LOG_FILES}},
        "Memory": spec.limits.memory_bytes,
        "MemorySwap": spec.limits.memory_bytes,
        "NanoCpus": int(spec.limits.cpus * NANO),
        "PidsLimit": spec.limits.pids,
        "IpcMode": "private",
        "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],
        "MaskedPaths": HIDDEN_PATHS,
        "ReadonlyPaths": FIXED_PATHS,
        "Init": spec.init,
        "NetworkMode": spec.networks[0].network if spec.networks else "none",
        "Mounts": [
            {
                "Type": "bind",
                "Source": str(mount.source),
                "Target": mount.target,
                "ReadOnly": mount.read_only,
                "BindOptions": {"Propagation": "rprivate"},
            }
            for mount in spec.mounts
        ],
        "Tmpfs": dict(spec.tmpfs),
        "GroupAdd": [str(group) for group in spec.supplementary_groups],
        "PortBindings": _port_bindings(spec),
    }
    if spec.networks:
        config["Dns"] = list(spec.name_servers) or [NO_NAME_SERVER]
        config["DnsSearch"] = ["."]
    if spec.shm_bytes is not None:
        config["ShmSize"] = spec.shm_bytes
    return config


def create_body(spec: ContainerSpec, instance: str, seccomp: str | None = None) -> dict[str, Any]:
    """The body of `POST /containers/create`; memberships after the first are added before the start."""
    body: dict[str, Any] = {
        "Image": spec.image,
        "User": f"{spec.uid}:{spec.gid}",
        "WorkingDir": spec.working_directory,
        "Env": [f"{name}={value}" for name, value in sorted(spec.environment.items())],
        "Labels": labels(instance, spec, spec_digest(spec, seccomp)),
        "StopSignal": spec.stop_signal,
        "Healthcheck": {"Test": ["NONE"]},
        "ExposedPorts": {f"{inside}/tcp": {} for _, _, inside in spec.published},
        "AttachStdout": False,
        "AttachStderr": False,
        "HostConfig": host_config(spec, seccomp),
    }
    if spec.argv:
        body |= {"Entrypoint": [spec.argv[0]], "Cmd": list(spec.argv[1:])}
    if not spec.networks and not spec.loopback:
        # The kernel still gives it a network of its own, with nothing in it; but the engine need not prepare one,
        # which is most of a container's start.
        body["NetworkDisabled"] = True
    if spec.networks:
        first = spec.networks[0]
        body["NetworkingConfig"] = {"EndpointsConfig": {first.network: endpoint(first.address)}}
    return body


def endpoint(address: str) -> dict[str, Any]:
    """A membership under a static address."""
    return {"IPAMConfig": {"IPv4Address": address}}


def has_addresses_of(network: Mapping[str, Any], subnet: str) -> bool:
    """Whether a network, as the engine lists it, lies in `subnet` or over it."""
    pools = [str(pool["Subnet"]) for pool in (network.get("IPAM") or {}).get("Config") or [] if pool.get("Subnet")]
    wanted = ip_network(subnet)
    return any(one.version == wanted.version and one.overlaps(wanted) for one in map(ip_network, pools))


def network_arguments(spec: NetworkSpec, instance: str, *, isolated_mode: bool) -> dict[str, Any]:
    """The engine client's arguments to create a network.

    `isolated_mode`: engines from 28 on keep the host off a bridge by its gateway mode; older ones by another
    option, and each ignores the other's in silence.
    """
    options: dict[str, str] = {}
    pool: dict[str, str] = {"Subnet": spec.subnet}
    if spec.gateway is not None:
        pool["Gateway"] = spec.gateway
    elif isolated_mode:
        options["com.docker.network.bridge.gateway_mode_ipv4"] = "isolated"
    else:
        options["com.docker.network.bridge.inhibit_ipv4"] = "true"
    return {
        "name": spec.name,
        "driver": "bridge",
        "internal": spec.internal,
        "enable_ipv6": False,
        "ipam": {"Driver": "default", "Config": [pool]},
        "options": options,
        "labels": {LABEL_INSTANCE: instance, LABEL_TENANT: spec.tenant_id},
    }


def network_differs(found: Mapping[str, Any], spec: NetworkSpec) -> bool:
    """Whether an existing network is not what `spec` asks for."""
    pools = found.get("IPAM", {}).get("Config") or [{}]
    gateway = pools[0].get("Gateway")
    return (
        pools[0].get("Subnet") != spec.subnet
        or bool(found.get("Internal")) != spec.internal
        or (spec.gateway is not None and gateway != spec.gateway)
    )


def _port_bindings(spec: ContainerSpec) -> dict[str, list[dict[str, str]]]:
    bindings: dict[str, list[dict[str, str]]] = {}
    for address, outside, inside in spec.published:
        bindings.setdefault(f"{inside}/tcp", []).append({"HostIp": address, "HostPort": str(outside)})
    return bindings
