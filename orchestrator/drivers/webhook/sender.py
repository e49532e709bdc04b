"""One POST: bounded in time as a whole, without redirects, without proxies, with the host's certificates."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import SplitResult, urlsplit

from orchestrator.core.webhooks import DeliveryFailed


class HttpSender:
    """Implements core.ports.webhooks.Sender."""

    def send(self, url: str, content: bytes, headers: Mapping[str, str], *, timeout_s: float) -> int:
        place = urlsplit(url)
        status = self._answer(place, content, headers, timeout_s)
        if 200 <= status < 300:
            return status
        hint = "Redirects are not followed: configure the address it names. " if 300 <= status < 400 else ""
        raise DeliveryFailed(
            f"{place.hostname} answered {status}.", next_step=f"{hint}It is tried again.", status=status
        )

    def _answer(self, place: SplitResult, content: bytes, headers: Mapping[str, str], timeout_s: float) -> int:
        """The status alone; whatever else the receiver says is not read."""
        connection = _connection(place, timeout_s)
        is_late = threading.Event()
        watch: threading.Timer | None = None
        try:
            connection.connect()
            reached = connection.sock

            def cut() -> None:
                # Each read has its own time-out; a receiver that answers a byte at a time is ended here.
                is_late.set()
                with suppress(OSError):
                    reached.shutdown(socket.SHUT_RDWR)

            watch = threading.Timer(timeout_s, cut)
            watch.daemon = True
            watch.start()
            target = (place.path or "/") + (f"?{place.query}" if place.query else "")
            connection.request("POST", target, body=content, headers={**headers, "Connection": "close"})
            status = connection.getresponse().status
            if is_late.is_set():  # what was cut off may still look like an answer
                raise TimeoutError
            return status
        except (OSError, http.client.HTTPException, ValueError) as error:
            late = is_late.is_set() or isinstance(error, TimeoutError)
            why = f"did not answer within {timeout_s:g} s" if late else f"cannot be reached ({_said(error)})"
            raise DeliveryFailed(f"{place.hostname} {why}.", next_step="It is tried again.") from None
        finally:
            if watch is not None:
                watch.cancel()
            connection.close()


def _connection(place: SplitResult, timeout_s: float) -> http.client.HTTPConnection:
    host = place.hostname or ""
    if place.scheme == "https":
        return http.client.HTTPSConnection(host, place.port, timeout=timeout_s, context=ssl.create_default_context())
    return http.client.HTTPConnection(host, place.port, timeout=timeout_s)


def _said(error: Exception) -> str:
    """The reason in words; never the address, which may hold a token."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__
