"""What ties a sign-in at the identity provider to the browser that began it. Pure.

The browser keeps a signed, short-lived ticket. State, nonce and verifier follow from the ticket's seed and our key,
so none of them has to be stored, and the ticket alone tells none of them.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import datetime

LIFETIME_S = 600
SEED_LENGTH = 43


@dataclass(frozen=True)
class Handshake:
    """`wanted` is where the person goes afterwards."""

    state: str
    nonce: str
    verifier: str
    wanted: str


def derive(key: bytes, seed: str, wanted: str) -> Handshake:
    """What the ticket with this seed stands for."""
    state, nonce, verifier = (_signed(key, f"{part}\0{seed}") for part in ("state", "nonce", "verifier"))
    return Handshake(state, nonce, verifier, wanted)


def ticket(key: bytes, seed: str, wanted: str, now: datetime) -> str:
    """For a cookie: only its browser has it."""
    until = int(now.timestamp()) + LIFETIME_S
    body = f"{seed}.{until}.{urlsafe_b64encode(wanted.encode()).decode()}"
    signature = _signed(key, f"ticket\0{body}")
    return f"{body}.{signature}"


def redeem(key: bytes, given: str, state: str, now: datetime) -> Handshake | None:
    """The handshake when the ticket is ours, not over, and `state` is the one that went with it."""
    body, _, signature = given.rpartition(".")
    if not hmac.compare_digest(_signed(key, f"ticket\0{body}").encode(), signature.encode("utf-8", "replace")):
        return None
    seed, until, wanted = body.split(".")
    made = derive(key, seed, urlsafe_b64decode(wanted).decode())
    is_same = hmac.compare_digest(made.state.encode(), state.encode("utf-8", "replace"))
    return made if is_same and now.timestamp() < int(until) else None


def _signed(key: bytes, what: str) -> str:
    made = hmac.new(key, f"handshake\0{what}".encode("utf-8", "replace"), hashlib.sha256).digest()
    return urlsafe_b64encode(made).decode().rstrip("=")
