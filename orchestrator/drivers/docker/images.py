"""Images: look them up, pull, import and build them. Nothing here asks a registry unless told to."""

from __future__ import annotations

import re
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import docker.errors
from docker.api.client import APIClient

from orchestrator.core.ports.engine import EngineFailed, EngineUnreachable, ImageMissing
from orchestrator.drivers.docker.connection import Connection, translated

PULL_TIMEOUT_S = 600
BUILD_TIMEOUT_S = 900
LINES_KEPT = 40
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class BuildFailed(EngineFailed):
    code = "outside_failure.image_build"


@dataclass(frozen=True)
class ContextEntry:
    """A file or directory of this host, and its place in a build's context."""

    source: Path
    place: str


class DockerImages:
    """The engine's images."""

    def __init__(self, connection: Connection | None = None) -> None:
        self.connection = connection or Connection()

    def exists(self, name: str) -> bool:
        return bool(self.id(name))

    def id(self, name: str) -> str:
        """What the name stands for now; empty when there is no such image, or can be none. Raises EngineFailed."""
        with translated(f"The image {name} could not be looked up"):
            try:
                return str(self.connection.api.inspect_image(name)["Id"])
            except docker.errors.ImageNotFound:
                return ""
            except docker.errors.APIError as failure:
                if "invalid reference format" in str(failure):
                    return ""
                raise

    def registry_answers(self, name: str, *, timeout_s: int = 10) -> bool:
        """Whether the image's registry tells of it within `timeout_s`; nothing is pulled."""
        probe = Connection(address=self._address(), timeout_s=timeout_s)
        try:
            with translated(f"The registry of {name} does not answer"):
                probe.api.inspect_distribution(name)
        except (EngineFailed, ImageMissing):
            return False
        finally:
            probe.close()
        return True

    def pull(self, name: str, *, progress: Callable[[str], None]) -> None:
        """Pull `name`; raises EngineFailed or ImageMissing."""
        repository, _, tag = name.rpartition(":")
        slow = Connection(address=self._address(), timeout_s=PULL_TIMEOUT_S)
        try:
            with translated(f"{name} could not be pulled"):
                for line in slow.api.pull(
                    repository or name, tag=tag if repository else "latest", stream=True, decode=True
                ):
                    if "error" in line:
                        raise EngineFailed(f"{name} could not be pulled: {line['error']}")
                    progress(str(line.get("status", "")))
        finally:
            slow.close()

    def import_root(self, archive: Path, name: str) -> None:
        """Make an image of one layer from a root file system in a tar archive."""
        repository, _, tag = name.rpartition(":")
        slow = Connection(address=self._address(), timeout_s=BUILD_TIMEOUT_S)
        try:
            with translated(f"{archive} could not be imported"):
                slow.api.import_image(src=str(archive), repository=repository, tag=tag, changes=['CMD ["/bin/sh"]'])
        finally:
            slow.close()

    def build(
        self,
        context: list[ContextEntry],
        name: str,
        *,
        arguments: Mapping[str, str],
        progress: Callable[[str], None],
    ) -> None:
        """Build `name` from a context that holds a Dockerfile. Raises BuildFailed with the end of the output."""
        slow = Connection(address=self._address(), timeout_s=BUILD_TIMEOUT_S)
        output: list[str] = []
        try:
            with tempfile.TemporaryFile() as archive:
                _pack(context, archive)
                archive.seek(0)
                with translated(f"{name} could not be built"):
                    for line in _build(slow.api, archive, name, arguments):
                        text = COLOURS.sub("", str(line.get("stream") or line.get("error") or "")).strip()
                        if text:
                            output = [*output[-LINES_KEPT:], text]
                            progress(text)
                        if "error" in line:
                            raise BuildFailed(f"{name} could not be built.", effect="\n".join(output)[-3000:])
        finally:
            slow.close()

    def tag(self, name: str, other: str) -> None:
        """Give an image another name."""
        repository, _, tag = other.rpartition(":")
        with translated(f"{name} could not be tagged"):
            self.connection.api.tag(name, repository, tag)

    def remove(self, name: str) -> None:
        """Forget an image; one that is not there, or in use, is left."""
        with translated(f"The image {name} could not be removed"):
            try:
                self.connection.api.remove_image(name)
            except docker.errors.ImageNotFound:
                return
            except docker.errors.APIError as failure:
                if failure.status_code != 409:
                    raise

    def named(self, repository: str) -> list[str]:
        """Every name with a tag of one repository."""
        with translated("Images could not be listed"):
            listed = self.connection.api.images(name=repository)
        every = {tag for entry in listed for tag in entry.get("RepoTags") or []}
        return sorted(tag for tag in every if tag.startswith(f"{repository}:"))

    def tags(self, name: str) -> list[str]:
        """Every name an image has; none when it is not there."""
        with translated(f"The image {name} could not be looked up"):
            try:
                return sorted(self.connection.api.inspect_image(name).get("RepoTags") or [])
            except docker.errors.ImageNotFound:
                return []

    def _address(self) -> str | None:
        return self.connection.address


def engine_answers(connection: Connection) -> str:
    """The engine's version, for people. Raises EngineUnreachable or EngineFailed."""
    with translated("The container engine does not answer"):
        facts: dict[str, Any] = connection.api.version(api_version=False)
    if not facts:
        raise EngineUnreachable("The container engine gave an empty answer.")
    return f"Docker Engine {facts.get('Version')}, API {facts.get('ApiVersion')}"


def _pack(context: list[ContextEntry], archive: IO[bytes]) -> None:
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for entry in context:
            tar.add(entry.source, arcname=entry.place, filter=_as_root)


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Equal inputs make equal layers, whoever checked them out."""
    if "__pycache__" in member.name or member.name.endswith(".pyc"):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    member.mtime = 1_700_000_000
    return member


def _build(api: APIClient, archive: IO[bytes], name: str, arguments: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    stream: Iterator[dict[str, Any]] = api.build(
        fileobj=archive,
        custom_context=True,
        tag=name,
        buildargs=dict(arguments),
        network_mode="host",  # packages come from where this host gets its own
        rm=True,
        forcerm=True,
        decode=True,
        timeout=BUILD_TIMEOUT_S,
    )
    return stream
