"""The one connection to the engine: made when first needed, every call bounded, every failure translated."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import docker.errors
from docker.api.client import APIClient
from docker.utils import kwargs_from_env

from orchestrator.core.ports.engine import EngineFailed, EngineUnreachable, ImageMissing, NoSuchContainer

CALL_TIMEOUT_S = 60
API_OLDEST = (1, 41)


class Connection:
    """Holds the engine's client. Safe to share between threads; an engine that is down fails the call, not us."""

    def __init__(self, *, address: str | None = None, timeout_s: int = CALL_TIMEOUT_S) -> None:
        self.address = address
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._api: APIClient | None = None

    @property
    def api(self) -> Any:
        """The client (untyped in part), with the newest API version both sides know. Raises EngineUnreachable."""
        with self._lock:
            if self._api is None:
                self._api = self._connect()
            return self._api

    def close(self) -> None:
        with self._lock:
            if self._api is not None:
                self._api.close()
                self._api = None

    def major_version(self) -> int:
        """The engine's own major version (not its API's)."""
        with translated("The engine's version could not be read"):
            version = str(self.api.version(api_version=False).get("Version", "0"))
        return int("".join(character for character in version.split(".")[0] if character.isdigit()) or 0)

    def _connect(self) -> APIClient:
        settings = kwargs_from_env()
        if self.address is not None:
            settings["base_url"] = self.address
        with translated("The container engine does not answer"):
            client = APIClient(version="auto", timeout=self._timeout_s, **settings)
        found = tuple(int(part) for part in client.api_version.split("."))
        if found < API_OLDEST:
            client.close()
            raise EngineFailed(
                f"The engine speaks API {client.api_version}; at least 1.41 is needed.",
                next_step="Install Docker Engine 20.10 or newer.",
            )
        return client


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn the client's exceptions into the port's; `what` says what was being done."""
    try:
        yield
    except docker.errors.ImageNotFound as failure:
        raise ImageMissing(f"{what}: {_explanation(failure)}", next_step="Build the images: make setup.") from failure
    except docker.errors.NotFound as failure:
        text = _explanation(failure)
        if "No such image" in text:
            raise ImageMissing(f"{what}: {text}", next_step="Build the images: make setup.") from failure
        if "No such container" in text:
            raise NoSuchContainer(f"{what}: {text}") from failure
        raise EngineFailed(f"{what}: {text}") from failure
    except docker.errors.APIError as failure:
        raise EngineFailed(f"{what}: {_explanation(failure)}") from failure
    except OSError as failure:  # the client's own: no connection, no answer in time
        raise _unreachable(what, failure) from failure
    except docker.errors.DockerException as failure:
        if "server api version" in str(failure).lower():
            raise _unreachable(what, failure) from failure
        raise EngineFailed(f"{what}: {failure}") from failure


def _unreachable(what: str, failure: Exception) -> EngineUnreachable:
    return EngineUnreachable(
        f"{what}: {str(failure)[:300]}",
        effect="Nothing was concluded about any container.",
        next_step="Start the Docker Engine, or join the docker group; `orchestrator doctor` says which.",
    )


def _explanation(failure: docker.errors.APIError) -> str:
    return str(failure.explanation or failure)[:1000]
