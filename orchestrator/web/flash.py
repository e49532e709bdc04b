"""One message carried over a redirect in a cookie, signed with the session's own key and shown once."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass

from fastapi import Request, Response

COOKIE = "orchestrator_said"
LIFETIME_S = 120
TEXT_LENGTH_MAX = 1200
TONES = frozenset({"good", "warn", "bad", ""})


@dataclass(frozen=True)
class Message:
    """`tone` is good, warn, bad or nothing."""

    text: str
    tone: str = "good"


def put(response: Response, key: str, message: Message, *, secure: bool) -> None:
    content = base64.urlsafe_b64encode(json.dumps([message.text[:TEXT_LENGTH_MAX], message.tone]).encode())
    value = f"{content.decode()}.{_signed(key, content)}"
    response.set_cookie(COOKIE, value, max_age=LIFETIME_S, path="/", secure=secure, httponly=True, samesite="lax")


def take(request: Request, key: str) -> Message | None:
    """The message, if it was written for this session; whoever shows it also drops the cookie."""
    content, _, signature = request.cookies.get(COOKIE, "").partition(".")
    if not content or not key or not hmac.compare_digest(_signed(key, content.encode()), signature):
        return None
    try:
        text, tone = json.loads(base64.urlsafe_b64decode(content))
    except (ValueError, binascii.Error):
        return None
    return Message(str(text), str(tone) if tone in TONES else "")


def drop(response: Response, *, secure: bool) -> None:
    response.delete_cookie(COOKIE, path="/", secure=secure, httponly=True, samesite="lax")


def _signed(key: str, content: bytes) -> str:
    return hmac.new(key.encode(), b"flash\0" + content, hashlib.sha256).hexdigest()
