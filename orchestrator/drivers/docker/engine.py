"""The Engine port on Docker Engine. Only what carries this installation's label is ever touched."""

from __future__ import annotations

import os
import threading
import time
from datetime import datetime
from typing import Any

import docker.errors

from orchestrator.core.ports.engine import (
    Attachment,
    Container,
    ContainerSpec,
    ContainerStats,
    EngineFailed,
    NoSuchContainer,
)
from orchestrator.drivers.docker import arguments
from orchestrator.drivers.docker.connection import Connection, translated
from orchestrator.drivers.docker.networks import DockerNetworks

REMOVAL_TIMEOUT_S = 30.0
REMOVAL_POLL_S = 0.05
NANOSECONDS = 1e9


class DockerEngine(DockerNetworks):
    """`instance` is the label that keeps installations on one engine apart."""

    def __init__(self, instance: str, connection: Connection | None = None) -> None:
        super().__init__(instance, connection or Connection())
        # More starts at once than this are slower each and hardly faster together.
        self._starts = threading.BoundedSemaphore((os.cpu_count() or 1) + 1)

    def start(self, spec: ContainerSpec) -> Container:
        seccomp = None if spec.seccomp_profile is None else spec.seccomp_profile.read_text()
        digest = arguments.spec_digest(spec, seccomp)
        with self._starts:
            found = self._inspect(spec.name)
            if found is not None:
                self._check_ours(found, spec.name)
                if self._label(found, arguments.LABEL_KEPT_BY):
                    return self._kept(found, spec.name)
                is_equal = self._label(found, arguments.LABEL_SPEC) == digest
                if is_equal and _has_memberships(found, spec.networks) and self._runs(found, spec.name):
                    return self._observed(spec.name)
                self._delete(found["Id"], spec.name)
            self._create(spec, seccomp)
        return self._observed(spec.name)

    def observe(self, name: str) -> Container | None:
        found = self._inspect(name)
        if found is None or self._label(found, arguments.LABEL_INSTANCE) != self.instance:
            return None
        return _observed(found)

    def containers(self, *, tenant_id: str | None = None) -> list[Container]:
        with translated("Containers could not be listed"):
            listed = self.connection.api.containers(all=True, filters={"label": self._label_filter(tenant_id)})
        return [_listed(entry) for entry in listed]

    def stop(self, name: str, *, timeout_s: int = 10) -> None:
        found = self._ours(name)
        if found is None or not found["State"]["Running"]:
            return
        with translated(f"{name} could not be stopped"):
            self.connection.api.stop(found["Id"], timeout=timeout_s)

    def kill(self, name: str, *, signal: str = "SIGKILL") -> None:
        found = self._ours(name)
        if found is None:
            raise NoSuchContainer(f"There is no container {name}.")
        if found["State"]["Running"]:
            with translated(f"{name} could not be sent {signal}"):
                try:
                    self.connection.api.kill(found["Id"], signal=signal)
                except docker.errors.APIError as failure:
                    if failure.status_code != 409:  # it ended in between
                        raise

    def remove(self, name: str) -> None:
        found = self._ours(name)
        if found is not None:
            self._delete(found["Id"], name)

    def logs(self, name: str, *, lines: int = 200) -> str:
        found = self._ours(name)
        if found is None:
            raise NoSuchContainer(f"There is no container {name}.")
        with translated(f"The log of {name} could not be read"):
            raw: bytes = self.connection.api.logs(found["Id"], stdout=True, stderr=True, tail=lines)
        return raw.decode(errors="replace")

    def stats(self, name: str) -> ContainerStats:
        found = self._ours(name)
        if found is None or not found["State"]["Running"]:
            raise NoSuchContainer(f"{name} does not run.")
        with translated(f"What {name} uses could not be read"):
            raw: dict[str, Any] = self.connection.api.stats(found["Id"], stream=False, one_shot=True)
        memory = raw.get("memory_stats", {})
        details = memory.get("stats", {})
        # File cache that can be dropped at once is not use; the key depends on the cgroup version.
        droppable = int(details.get("total_inactive_file", details.get("inactive_file", 0)))
        return ContainerStats(
            memory_bytes=max(0, int(memory.get("usage", 0)) - droppable),
            memory_limit_bytes=int(memory.get("limit", 0)),
            cpu_seconds=int(raw.get("cpu_stats", {}).get("cpu_usage", {}).get("total_usage", 0)) / NANOSECONDS,
            pids=int(raw.get("pids_stats", {}).get("current", 0)),
        )

    def _create(self, spec: ContainerSpec, seccomp: str | None) -> None:
        api = self.connection.api
        with translated(f"{spec.name} could not be created"):
            made = api.create_container_from_config(arguments.create_body(spec, self.instance, seccomp), spec.name)
        try:
            for membership in spec.networks[1:]:
                with translated(f"{spec.name} could not join {membership.network}"):
                    api.connect_container_to_network(made["Id"], membership.network, ipv4_address=membership.address)
            with translated(f"{spec.name} could not be started"):
                api.start(made["Id"])
        except EngineFailed:
            self._delete(made["Id"], spec.name)
            raise

    def _kept(self, found: dict[str, Any], name: str) -> Container:
        """One that something else defines: started if need be, never replaced."""
        if not self._runs(found, name):
            raise EngineFailed(
                f"{name} cannot be started.",
                next_step=f"It is kept by {self._label(found, arguments.LABEL_KEPT_BY)}: start it there.",
            )
        return self._observed(name)

    def _runs(self, found: dict[str, Any], name: str) -> bool:
        """Start it if it is stopped; False when it cannot start (a network or address is gone): replace it then."""
        if found["State"]["Running"]:
            return True
        try:
            with translated(f"{name} could not be started"):
                self.connection.api.start(found["Id"])
        except NoSuchContainer:
            raise
        except EngineFailed:
            now = self._inspect(name)
            return bool(now and now["State"]["Running"])
        return True

    def _delete(self, container_id: str, name: str) -> None:
        deadline = time.monotonic() + REMOVAL_TIMEOUT_S
        while True:
            with translated(f"{name} could not be removed"):
                try:
                    self.connection.api.remove_container(container_id, force=True, v=True)
                except docker.errors.NotFound:
                    return
                except docker.errors.APIError as failure:
                    # 409: somebody's removal of it is under way; 500: the engine lost a race with its end.
                    if failure.status_code not in {409, 500} or time.monotonic() > deadline:
                        raise
                else:
                    return
            time.sleep(REMOVAL_POLL_S)

    def _observed(self, name: str) -> Container:
        container = self.observe(name)
        if container is None:
            raise NoSuchContainer(f"{name} vanished while it was started.")
        return container

    def _ours(self, name: str) -> dict[str, Any] | None:
        found = self._inspect(name)
        if found is not None:
            self._check_ours(found, name)
        return found

    @staticmethod
    def _label(found: dict[str, Any], label: str) -> str | None:
        return (found["Config"].get("Labels") or {}).get(label)


def _has_memberships(found: dict[str, Any], wanted: tuple[Attachment, ...]) -> bool:
    """Whether the container still belongs to every network of its spec, under the right address."""
    networks = found["NetworkSettings"].get("Networks") or {}
    return all(
        ((networks.get(one.network) or {}).get("IPAMConfig") or {}).get("IPv4Address") == one.address for one in wanted
    )


def _observed(found: dict[str, Any]) -> Container:
    state = found["State"]
    labels = found["Config"].get("Labels") or {}
    running = bool(state["Running"])
    return Container(
        id=found["Id"],
        name=found["Name"].lstrip("/"),
        role=labels.get(arguments.LABEL_ROLE, ""),
        tenant_id=labels.get(arguments.LABEL_TENANT, ""),
        generation_id=labels.get(arguments.LABEL_GENERATION, ""),
        running=running,
        exit_code=None if running or state.get("Status") == "created" else int(state["ExitCode"]),
        started_at=_time(state.get("StartedAt")),
        spec_digest=labels.get(arguments.LABEL_SPEC, ""),
        pid=int(state.get("Pid") or 0),
        image=found["Config"].get("Image", ""),
        networks=_network_names(found),
    )


def _listed(entry: dict[str, Any]) -> Container:
    labels = entry.get("Labels") or {}
    status = str(entry.get("Status", ""))
    exit_code = None
    if status.startswith("Exited (") and ")" in status:
        exit_code = int(status.removeprefix("Exited (").split(")")[0])
    return Container(
        id=entry["Id"],
        name=entry["Names"][0].lstrip("/") if entry.get("Names") else "",
        role=labels.get(arguments.LABEL_ROLE, ""),
        tenant_id=labels.get(arguments.LABEL_TENANT, ""),
        generation_id=labels.get(arguments.LABEL_GENERATION, ""),
        running=entry.get("State") == "running",
        exit_code=exit_code,
        started_at=None,
        spec_digest=labels.get(arguments.LABEL_SPEC, ""),
        pid=0,
        image=entry.get("Image", ""),
        networks=_network_names(entry),
    )


def _network_names(found: dict[str, Any]) -> tuple[str, ...]:
    networks = (found.get("NetworkSettings") or {}).get("Networks") or {}
    return tuple(sorted(name for name in networks if name != "none"))


def _time(text: str | None) -> datetime | None:
    if not text or text.startswith("0001-"):
        return None
    seconds, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{seconds}.{fraction[:6].ljust(6, '0')}+00:00")
