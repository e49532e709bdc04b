"""Profiles: named sets of limits for a tenant's three containers, its disk and its commands. Pure."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from orchestrator.core.generations import DatabaseLimits
from orchestrator.core.ports.engine import ContainerLimits
from orchestrator.errors import InvalidInput, NotFound

SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB|TiB)")
UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|h|d)")
SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


class UnknownProfile(NotFound):
    code = "not_found.profile"


class BeyondHost(InvalidInput):
    """A profile asks for more than the machine has."""

    code = "invalid.beyond_host"


def parse_size(value: Any) -> Any:
    """`512 MiB` → bytes; numbers are bytes already. Raises ValueError naming the accepted form."""
    if not isinstance(value, str):
        return value
    match = SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError("write a size as a number and a unit: 512 MiB, 1.5 GiB")
    return int(float(match[1]) * UNITS[match[2]])


def parse_duration(value: Any) -> Any:
    """`4 h` → seconds; numbers are seconds already. Raises ValueError naming the accepted form."""
    if not isinstance(value, str):
        return value
    match = DURATION.fullmatch(value.strip())
    if match is None:
        raise ValueError("write a duration as a number and a unit: 30 s, 5 min, 4 h")
    return float(match[1]) * SECONDS[match[2]]


Bytes = Annotated[int, BeforeValidator(parse_size)]
Seconds = Annotated[float, BeforeValidator(parse_duration)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SandboxSection(_Section):
    """The container with the app and the commands."""

    memory: Bytes = Field(512 * 2**20, ge=64 * 2**20, le=2**40)
    cpus: float = Field(1.0, gt=0.05, le=256)
    pids: int = Field(128, ge=16, le=32768)
    temporary: Bytes = Field(64 * 2**20, ge=2**20, le=2**36)


class DatabaseSection(_Section):
    """The tenant's own PostgreSQL."""

    memory: Bytes = Field(384 * 2**20, ge=96 * 2**20, le=2**40)
    cpus: float = Field(1.0, gt=0.05, le=256)
    pids: int = Field(64, ge=32, le=4096)
    connections: int = Field(20, ge=2, le=1000)
    temp_files: Bytes = Field(256 * 2**20, ge=2**20, le=2**40)
    statement_timeout: Seconds = Field(60.0, ge=1, le=86400)
    size: Bytes = Field(20 * 2**30, ge=64 * 2**20, le=2**45)
    durability: Literal["full", "disposable"] = "full"


class CommandSection(_Section):
    """One command's limits, and how many run at once."""

    at_once: int = Field(20, ge=1, le=64)
    wall_time: Seconds = Field(600.0, ge=1, le=3600)
    output: Bytes = Field(2**20, ge=1024, le=2**28)
    written: Bytes = Field(256 * 2**20, ge=1024, le=2**36)


class Profile(_Section):
    """Everything a tenant may use."""

    sandbox: SandboxSection = SandboxSection()
    database: DatabaseSection = DatabaseSection()
    workspace: Bytes = Field(2 * 2**30, ge=16 * 2**20, le=2**42)
    commands: CommandSection = CommandSection()

    @property
    def sandbox_limits(self) -> ContainerLimits:
        return ContainerLimits(self.sandbox.memory, self.sandbox.cpus, self.sandbox.pids)

    @property
    def database_limits(self) -> DatabaseLimits:
        section = self.database
        return DatabaseLimits(
            memory_bytes=section.memory,
            cpus=section.cpus,
            pids=section.pids,
            connections=section.connections,
            temp_file_bytes=section.temp_files,
            statement_timeout_s=section.statement_timeout,
            size_bytes=section.size,
            durable=section.durability == "full",
        )

    def check_host(self, *, memory_bytes: int, cpus: int) -> None:
        """Raises BeyondHost when one container alone asks for more than the machine has."""
        for name, part in (("sandbox", self.sandbox_limits), ("database", self.database_limits.container)):
            if part.memory_bytes > memory_bytes or part.cpus > cpus:
                raise BeyondHost(
                    f"The {name} limits ({part.memory_bytes // 2**20} MiB, {part.cpus:g} CPUs) exceed this machine"
                    f" ({memory_bytes // 2**20} MiB, {cpus} CPUs).",
                    effect="No tenant can be launched with this profile.",
                    next_step="Lower them in configs/limits.yaml.",
                )


class Limits(_Section):
    """configs/limits.yaml: the profiles by name, and the one used when none is named."""

    default: str = "office"
    profiles: dict[str, Profile] = Field(default_factory=lambda: {"office": Profile()}, min_length=1)

    def profile(self, name: str) -> Profile:
        """Raises UnknownProfile naming the ones there are."""
        if name not in self.profiles:
            raise UnknownProfile(
                f"There is no profile {ascii(name)[:60]}.",
                next_step=f"Choose one of: {', '.join(sorted(self.profiles))}.",
            )
        return self.profiles[name]
