"""Short-lived passes by which the control plane itself may visit one tenant's hostname. Pure.

A pass is bound to the hostname and a minute, so one that a tenant's app keeps opens nothing but that same app.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime

HEADER = "X-Orchestrator-Pass"
LIFETIME_S = 60


def make(key: bytes, hostname: str, now: datetime) -> str:
    """A pass for `hostname`, valid for one to two minutes."""
    return _signed(key, hostname, int(now.timestamp()) // LIFETIME_S)


def holds(key: bytes, hostname: str, given: str, now: datetime) -> bool:
    """Whether `given` is a pass for `hostname` made within the last two minutes."""
    window = int(now.timestamp()) // LIFETIME_S
    return any(hmac.compare_digest(_signed(key, hostname, at), given) for at in (window, window - 1))


def _signed(key: bytes, hostname: str, window: int) -> str:
    return hmac.new(key, f"pass\0{hostname}\0{window}".encode(), hashlib.sha256).hexdigest()
