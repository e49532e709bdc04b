"""Asking the provider: bounded in time and size, never led elsewhere."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from typing import Any

from orchestrator.core.ports.identity import ProviderFailed

TIMEOUT_S = 10.0
ANSWER_BYTES_MAX = 512 * 1024
CHUNK_BYTES = 16 * 1024


def document(address: str, *, form: bytes | None = None, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """The JSON object at `address`, posted to with a form when one is given. Raises ProviderFailed."""
    asked = urllib.request.Request(address, data=form, headers={"Accept": "application/json", **(headers or {})})  # noqa: S310 - checked by `is_safe`
    host = asked.host
    try:
        with _opener().open(asked, timeout=TIMEOUT_S) as answer:
            found = json.loads(_read(answer))
    except urllib.error.HTTPError as error:
        error.close()
        raise ProviderFailed(f"The identity provider at {host} answered {error.code}.", **_AGAIN) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        said = type(error).__name__
        raise ProviderFailed(
            f"The identity provider at {host} did not answer as it should ({said}).", **_AGAIN
        ) from None
    if not isinstance(found, dict):
        raise ProviderFailed(f"The identity provider at {host} did not answer with an object.", **_AGAIN)
    return found


def is_safe(address: object) -> bool:
    """https, or http on this very machine."""
    if not isinstance(address, str) or not address.isascii() or not address.isprintable():
        return False
    return address.startswith(("https://", "http://127.0.0.1:", "http://localhost:"))


def _read(answer: Any) -> bytes:
    deadline = time.monotonic() + TIMEOUT_S
    read = b""
    while chunk := answer.read1(CHUNK_BYTES):
        read += chunk
        if len(read) > ANSWER_BYTES_MAX or time.monotonic() > deadline:
            raise ValueError("too much, or too slow")
    return read


def _opener() -> urllib.request.OpenerDirector:
    """No files, no FTP, and no following of redirects: they come back as errors."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    return opener


_AGAIN: dict[str, Any] = {
    "effect": "Nobody was signed in.",
    "next_step": "Try again; if it stays, an admin looks at the section `oidc` of orchestrator.yaml.",
}
