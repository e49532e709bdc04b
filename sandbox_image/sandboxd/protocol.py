"""The wire: one JSON object per line, both ways; bytes travel as base64. Every size has a limit.

Nothing here trusts the sender: a frame is either turned into checked plain values or answered with `invalid`.
"""

from __future__ import annotations

import binascii
import json
import re

from . import settings
from .policy import Grant, Refused, check_grant

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class BadRequest(Exception):
    """Answered to the caller as an error frame with this code."""

    def __init__(self, code: str, message: str, **fields: object) -> None:
        super().__init__(message)
        self.code = code
        self.fields = fields


def encode(frame: dict[str, object]) -> bytes:
    return json.dumps(frame, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


def output(stream: str, data: bytes) -> bytes:
    """An output frame, put together by hand: it is the hot one."""
    return b'{"type":"output","stream":"%s","data":"%s"}\n' % (
        stream.encode(),
        binascii.b2a_base64(data, newline=False),
    )


def error(failure: BadRequest) -> bytes:
    return encode({"type": "error", "code": failure.code, "message": str(failure)[:2000], **failure.fields})


def decode(line: bytes) -> dict[str, object]:
    """A frame's fields. Raises BadRequest for whatever is not a JSON object with a type."""
    try:
        frame = json.loads(line)
    except (ValueError, RecursionError):
        raise BadRequest("invalid", "the frame is not JSON") from None
    if not isinstance(frame, dict) or not isinstance(frame.get("type"), str):
        raise BadRequest("invalid", "the frame is not an object with a type")
    return frame


def text(frame: dict[str, object], name: str, *, length_max: int = 4096, default: str | None = None) -> str:
    value = frame.get(name, default)
    if not isinstance(value, str) or len(value) > length_max or "\0" in value:
        raise BadRequest("invalid", f"{name} must be a text of at most {length_max} characters without NUL")
    _encodable(name, value)
    return value


def _encodable(name: str, value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise BadRequest("invalid", f"{name} is not valid Unicode") from None


def identifier(frame: dict[str, object], name: str) -> str:
    value = text(frame, name, length_max=64)
    if not _ID.fullmatch(value):
        raise BadRequest("invalid", f"{name} must be 1 to 64 letters, digits, dots, hyphens or underscores")
    return value


def number(frame: dict[str, object], name: str, low: float, high: float, default: float) -> float:
    value = frame.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise BadRequest("invalid", f"{name} must be a number from {low:g} to {high:g}")
    return value


def whole(frame: dict[str, object], name: str, low: int, high: int, default: int) -> int:
    value = frame.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise BadRequest("invalid", f"{name} must be a whole number from {low} to {high}")
    return value


def texts(frame: dict[str, object], name: str, *, count_max: int, item_max: int, total_max: int) -> list[str]:
    value = frame.get(name, [])
    if not isinstance(value, list) or len(value) > count_max:
        raise BadRequest("invalid", f"{name} must be a list of at most {count_max} texts")
    total = 0
    for item in value:
        if not isinstance(item, str) or "\0" in item:
            raise BadRequest("invalid", f"{name} must hold texts without NUL")
        size = len(_encodable(name, item))
        total += size + 1
        if size > item_max or total > total_max:
            raise BadRequest("invalid", f"{name} is too long")
    return value


def arguments(frame: dict[str, object]) -> list[str]:
    argv = texts(
        frame,
        "argv",
        count_max=settings.ARGUMENTS_MAX,
        item_max=settings.ARGUMENT_BYTES_MAX,
        total_max=settings.ARGUMENTS_BYTES_MAX,
    )
    if not argv:
        raise BadRequest("invalid", "argv is empty")
    return argv


def environment(frame: dict[str, object]) -> dict[str, str]:
    value = frame.get("environment", {})
    if not isinstance(value, dict) or len(value) > settings.VARIABLES_MAX:
        raise BadRequest("invalid", f"environment must be an object of at most {settings.VARIABLES_MAX} texts")
    total = 0
    for name, content in value.items():
        if not isinstance(content, str) or not name or "=" in name or "\0" in name or "\0" in content:
            raise BadRequest("invalid", "environment must hold texts by name")
        total += len(_encodable("environment", name)) + len(_encodable("environment", content))
    if total > settings.VARIABLES_BYTES_MAX:
        raise BadRequest("invalid", "environment is too large")
    return value


def grants(frame: dict[str, object], roots: tuple[str, ...]) -> list[Grant]:
    value = frame.get("grants", [])
    if not isinstance(value, list) or len(value) > settings.GRANTS_MAX:
        raise BadRequest("invalid", f"grants must be a list of at most {settings.GRANTS_MAX} pairs")
    result: list[Grant] = []
    for pair in value:
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], str)):
            raise BadRequest("invalid", "a grant is a pair of path and access")
        _encodable("grants", pair[0])
        try:
            check_grant(pair[0], pair[1], roots)
        except Refused as refusal:
            raise BadRequest("invalid", str(refusal)) from None
        result.append((pair[0], pair[1]))
    return result


def ports(frame: dict[str, object], name: str) -> list[int]:
    value = frame.get(name, [])
    if not isinstance(value, list) or len(value) > 32:
        raise BadRequest("invalid", f"{name} must be a list of at most 32 ports")
    for port in value:
        if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
            raise BadRequest("invalid", f"{name} must hold ports")
    return value


def chunk(frame: dict[str, object]) -> bytes:
    """The bytes of a stdin frame."""
    data = frame.get("data")
    if not isinstance(data, str):
        raise BadRequest("invalid", "data must be base64")
    try:
        return binascii.a2b_base64(data.encode("ascii"), strict_mode=True)
    except (ValueError, UnicodeEncodeError):
        raise BadRequest("invalid", "data must be base64") from None
