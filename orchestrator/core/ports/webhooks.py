"""Reaching other programs by HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Sender(Protocol):
    def send(self, url: str, content: bytes, headers: Mapping[str, str], *, timeout_s: float) -> int:
        """POST once, follow nothing, and return the status (200 to 299).

        `timeout_s` bounds the whole exchange. Raises core.webhooks.DeliveryFailed, which names the host and never
        the rest of the address.
        """
        ...
