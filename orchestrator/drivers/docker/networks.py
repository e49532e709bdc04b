"""Networks and memberships: the half of the Engine port that DockerEngine builds on."""

from __future__ import annotations

from typing import Any

import docker.errors

from orchestrator.core.ports.engine import EngineFailed, NetworkSpec, NoSuchContainer, NotOurs
from orchestrator.drivers.docker import arguments
from orchestrator.drivers.docker.connection import Connection, translated

ISOLATED_MODE_SINCE = 28


class DockerNetworks:
    """Our networks on one engine."""

    def __init__(self, instance: str, connection: Connection) -> None:
        self.instance = instance
        self.connection = connection
        self._has_isolated_mode: bool | None = None

    def ensure_network(self, spec: NetworkSpec) -> None:
        found = self._network(spec.name)
        if found is not None:
            if not arguments.network_differs(found, spec):
                return
            if self._members(found):
                raise EngineFailed(
                    f"The network {spec.name} exists with other settings and has members.",
                    effect="It was left as it is.",
                    next_step="Stop the tenant, then start it again.",
                )
            self.remove_network(spec.name)
        if self._has_isolated_mode is None:
            self._has_isolated_mode = self.connection.major_version() >= ISOLATED_MODE_SINCE
        wanted = arguments.network_arguments(spec, self.instance, isolated_mode=self._has_isolated_mode)
        try:
            self._create_network(spec, wanted)
        except EngineFailed:
            if not self._make_way(spec):
                raise
            self._create_network(spec, wanted)

    def _create_network(self, spec: NetworkSpec, wanted: dict[str, Any]) -> None:
        with translated(f"The network {spec.name} ({spec.subnet}) could not be created"):
            self.connection.api.create_network(**wanted)

    def _make_way(self, spec: NetworkSpec) -> bool:
        """Remove what an installation of this name left on the addresses when its directory was deleted.

        False when nothing is there. Raises EngineFailed, and removes nothing, where somebody may still need it.
        """
        with translated("Networks could not be listed"):
            listed = self.connection.api.networks()
        rivals = [one for one in listed if arguments.has_addresses_of(one, spec.subnet)]
        for rival in rivals:
            is_ours = (rival.get("Labels") or {}).get(arguments.LABEL_INSTANCE) == self.instance
            if not is_ours or self._members(rival):
                raise EngineFailed(
                    f"The network {spec.name} could not be created: {rival['Name']} has addresses of {spec.subnet}.",
                    effect="No network was changed.",
                    next_step=f"Remove that one if nothing needs it (docker network rm {rival['Name']}), or name other"
                    " addresses in configs/networks.yaml.",
                )
        for rival in rivals:
            self.remove_network(rival["Name"])
        return bool(rivals)

    def networks(self, *, tenant_id: str | None = None) -> list[str]:
        with translated("Networks could not be listed"):
            listed = self.connection.api.networks(filters={"label": self._label_filter(tenant_id)})
        return sorted(entry["Name"] for entry in listed)

    def attach(self, network: str, container: str, address: str) -> None:
        found = self._required(container)
        membership = (found["NetworkSettings"].get("Networks") or {}).get(network)
        if membership is not None:
            if (membership.get("IPAMConfig") or {}).get("IPv4Address") == address:
                return
            self.detach(network, container)
        if self._network(network) is None:
            raise EngineFailed(f"There is no network {network} to attach {container} to.")
        with translated(f"{container} could not join {network} as {address}"):
            self.connection.api.connect_container_to_network(found["Id"], network, ipv4_address=address)

    def detach(self, network: str, container: str) -> None:
        found = self._inspect(container)
        if found is None:
            return
        self._check_ours(found, container)
        if network in (found["NetworkSettings"].get("Networks") or {}):
            self._disconnect(network, found["Id"])

    def remove_network(self, name: str) -> None:
        found = self._network(name)
        if found is None:
            return
        for member in self._members(found):
            self._disconnect(name, member)
        with translated(f"The network {name} could not be removed"):
            try:
                self.connection.api.remove_network(found["Id"])
            except docker.errors.NotFound:
                return

    def _disconnect(self, network: str, container_id: str) -> None:
        with translated(f"A container could not leave {network}"):
            try:
                self.connection.api.disconnect_container_from_network(container_id, network, force=True)
            except docker.errors.NotFound:
                return
            except docker.errors.APIError as failure:
                if "is not connected" not in str(failure.explanation):
                    raise

    def _members(self, network: dict[str, Any]) -> list[str]:
        """The ids of every member of ours, running or stopped (the network itself lists only running ones)."""
        with translated(f"The members of {network['Name']} could not be listed"):
            listed = self.connection.api.containers(
                all=True, filters={"network": network["Id"], "label": self._label_filter(None)}
            )
        return [entry["Id"] for entry in listed]

    def _network(self, name: str) -> dict[str, Any] | None:
        """Our network of that name. Raises NotOurs when somebody else's has it."""
        with translated(f"The network {name} could not be looked up"):
            try:
                found: dict[str, Any] = self.connection.api.inspect_network(name)
            except docker.errors.NotFound:
                return None
        if found["Name"] != name:  # the engine also finds by the start of an id
            return None
        if (found.get("Labels") or {}).get(arguments.LABEL_INSTANCE) != self.instance:
            raise NotOurs(f"A network {name} exists and is not of this installation.", effect="It was not touched.")
        return found

    def _inspect(self, name: str) -> dict[str, Any] | None:
        with translated(f"{name} could not be looked up"):
            try:
                found: dict[str, Any] = self.connection.api.inspect_container(name)
            except docker.errors.NotFound:
                return None
        return found if found["Name"] == f"/{name}" else None

    def _required(self, name: str) -> dict[str, Any]:
        found = self._inspect(name)
        if found is None:
            raise NoSuchContainer(f"There is no container {name}.")
        self._check_ours(found, name)
        return found

    def _check_ours(self, found: dict[str, Any], name: str) -> None:
        labels = found["Config"].get("Labels") or {}
        if labels.get(arguments.LABEL_INSTANCE) != self.instance:
            raise NotOurs(
                f"A container {name} exists and is not of this installation.",
                effect="It was not touched.",
                next_step="Rename or remove it, or give this installation another instance name.",
            )

    def _label_filter(self, tenant_id: str | None) -> list[str]:
        wanted = [f"{arguments.LABEL_INSTANCE}={self.instance}"]
        if tenant_id is not None:
            wanted.append(f"{arguments.LABEL_TENANT}={tenant_id}")
        return wanted
