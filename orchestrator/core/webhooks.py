"""Telling other programs what happened: what is said, to whom, and how they know that it was us. Pure.

A notice is written in the transaction of what it is about; it is delivered afterwards, at least once, in no
promised order. It carries names, counts and codes, never the content of rows.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

from orchestrator.errors import InvalidInput, NotFound, OutsideFailure

JOB = "webhook"
TEST = "webhook.test"
TEXT_MAX = 300
SECRET_BYTES_MIN = 16
PREFIX = "whsec_"  # how generated secrets are written: base64 after it


class TargetMissing(NotFound):
    code = "not_found.webhook"


class DeliveryMissing(NotFound):
    code = "not_found.delivery"


class WeakSecret(InvalidInput):
    code = "invalid.webhook_secret"


class DeliveryFailed(OutsideFailure):
    """The receiver was not reached, or did not say that it has the notice."""

    code = "outside_failure.webhook"


@dataclass(frozen=True)
class Notice:
    """One thing that happened. `subject` is the id of what it happened to: a change, a refresh, a publish."""

    number: int
    kind: str
    subject: str
    tenant_id: str | None
    actor: str
    at: datetime
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"notice_{self.number}"


@dataclass(frozen=True)
class Target:
    """Who is told: kinds match by name or pattern (`change.*`, `*.failed`)."""

    name: str
    url: str = field(repr=False)
    kinds: tuple[str, ...]

    def wants(self, kind: str) -> bool:
        return any(fnmatchcase(kind, pattern) for pattern in self.kinds)


@dataclass(frozen=True)
class Delivery:
    """One notice on its way to one target: a job of the kind `webhook`, as people see it."""

    id: str
    target: str
    kind: str
    number: int
    subject: str
    state: str
    attempts: int
    attempts_max: int
    next_at: datetime | None
    error: str | None
    status: int | None
    created_at: datetime
    finished_at: datetime | None


def harmless(data: Mapping[str, Any]) -> dict[str, Any]:
    """What may leave the house of an event's data: single values cut to size, and how long lists are."""
    found: dict[str, Any] = {}
    for name, value in data.items():
        if value is None or isinstance(value, bool | int | float):
            found[name] = value
        elif isinstance(value, str):
            found[name] = value[:TEXT_MAX]
        elif isinstance(value, Sequence | Mapping):
            found[name] = len(value)
    return found


def body(notice: Notice, *, instance: str, tenant: str | None) -> bytes:
    """The document that is sent. `text` says it in a sentence, for chats that show just that."""
    document = {
        "type": notice.kind,
        "id": notice.id,
        "timestamp": notice.at.astimezone(UTC).isoformat(),
        "instance": instance,
        "tenant": tenant,
        "subject": notice.subject,
        "actor": notice.actor,
        "data": dict(notice.data),
        "text": sentence(notice, tenant),
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


def sentence(notice: Notice, tenant: str | None) -> str:
    noun, _, what = notice.kind.partition(".")
    about = f"{noun} {notice.subject}" if notice.subject else noun
    whose = f" of {tenant}" if tenant else ""
    why = str(notice.data.get("title") or notice.data.get("error") or notice.data.get("reason") or "")
    return f"{about}{whose}: {what.replace('_', ' ')} by {notice.actor}" + (f" ({why})" if why else "")


def headers(notice: Notice, content: bytes, secret: str, now: datetime) -> dict[str, str]:
    """Identity, time and signature, named and made as in the Standard Webhooks specification.

    The signature is HMAC-SHA256 over `id.timestamp.content`. Raises WeakSecret.
    """
    stamp = str(int(now.timestamp()))
    signed = b".".join([notice.id.encode(), stamp.encode(), content])
    digest = hmac.new(key(secret), signed, hashlib.sha256).digest()
    return {
        "Content-Type": "application/json",
        "User-Agent": "orchestrator-webhook/1",
        "webhook-id": notice.id,
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def key(secret: str) -> bytes:
    """The bytes to sign with. Raises WeakSecret, which says nothing about the secret itself."""
    content = secret.encode()
    if secret.startswith(PREFIX):
        try:
            content = base64.b64decode(secret[len(PREFIX) :], validate=True)
        except (binascii.Error, ValueError):
            raise WeakSecret(f"A webhook's secret starts with {PREFIX} and is not base64 after it.") from None
    if len(content) < SECRET_BYTES_MIN:
        raise WeakSecret(
            f"A webhook's secret has fewer than {SECRET_BYTES_MIN} bytes.",
            effect="Nothing was sent.",
            next_step="Make one: openssl rand -hex 32",
        )
    return content
