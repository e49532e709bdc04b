"""The audit record: its stable fields, its canonical form and the chain that ties records together. Pure."""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from orchestrator.core.actors import Actor

SCHEMA = 1
GENESIS = "0" * 64
TEXT_BYTES_MAX = 16_384
LIST_ITEMS_MAX = 1_000
RECORD_BYTES_MAX = 262_144
# Made once: making one takes longer than writing a record with it.
_AS_GIVEN = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True, allow_nan=False)
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)

# The order people read them in; a record holds exactly these fields, then `prev` and `hash`.
FIELDS = (
    "schema",
    "seq",
    "time",
    "id",
    "request_id",
    "phase",
    "actor",
    "action",
    "tenant",
    "target",
    "decision",
    "rule",
    "policy_version",
    "approval",
    "approver",
    "result",
    "exit_code",
    "duration_ms",
    "bytes",
    "changed_paths",
    "details",
)


class Phase(StrEnum):
    """`before` is written before something is done, `after` when its result is known, `event` when both are one."""

    BEFORE = "before"
    AFTER = "after"
    EVENT = "event"


class Result(StrEnum):
    OK = "ok"
    FAILED = "failed"
    DENIED = "denied"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class AuditEvent:
    """What somebody asks to be recorded. `action` is `noun.verb`; `details` holds small JSON values, never a secret."""

    actor: Actor
    action: str
    target: str = ""
    tenant: str = ""
    phase: Phase = Phase.EVENT
    request_id: str = ""
    decision: str = ""
    rule: str = ""
    policy_version: int | None = None
    approval: str = ""
    approver: str = ""
    result: Result | None = None
    exit_code: int | None = None
    duration_ms: int | None = None
    bytes: int | None = None
    changed_paths: tuple[str, ...] = ()
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class AuditRecord:
    """One record as it stands in the log; `values` holds every field, `prev` and `hash` included."""

    values: Mapping[str, object]

    @property
    def seq(self) -> int:
        value = self.values.get("seq")
        return value if isinstance(value, int) else -1

    @property
    def hash(self) -> str:
        return str(self.values.get("hash", ""))

    def text(self, name: str) -> str:
        value = self.values.get(name)
        return "" if value is None else str(value)


def canonical(value: object) -> bytes:
    """The one byte form of a JSON value: sorted keys, no blanks, ASCII (so no raw control byte reaches a terminal)."""
    return _CANONICAL.encode(value).encode()


def record_values(event: AuditEvent, *, seq: int, event_id: str, now: datetime, prev: str) -> dict[str, object]:
    """The record for `event` at place `seq`, chained to `prev`, its own hash included."""
    values: dict[str, object] = {
        "schema": SCHEMA,
        "seq": seq,
        "time": now.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "id": event_id,
        "request_id": event.request_id,
        "phase": event.phase.value,
        "actor": _actor(event.actor),
        "action": event.action,
        "tenant": event.tenant,
        "target": _bounded(event.target),
        "decision": event.decision,
        "rule": event.rule,
        "policy_version": event.policy_version,
        "approval": event.approval,
        "approver": event.approver,
        "result": event.result.value if event.result else None,
        "exit_code": event.exit_code,
        "duration_ms": event.duration_ms,
        "bytes": event.bytes,
        "changed_paths": _bounded(list(event.changed_paths)),
        "details": _bounded(dict(event.details)),
        "prev": prev,
    }
    values["hash"] = record_hash(values)
    return values


def record_hash(values: Mapping[str, object]) -> str:
    """SHA-256 over the canonical form of everything but `hash`; `prev` is inside, which makes it a chain."""
    return hashlib.sha256(canonical({name: value for name, value in values.items() if name != "hash"})).hexdigest()


def line(values: Mapping[str, object]) -> bytes:
    """One line of a day's file: fields in reading order, ASCII, newline at the end."""
    ordered = {name: values[name] for name in (*FIELDS, "prev", "hash")}
    return _AS_GIVEN.encode(ordered).encode() + b"\n"


def signature(key: bytes, *, count: int, head: str, purpose: str) -> str:
    """HMAC-SHA-256 over (purpose, count, head). `purpose` keeps a head from passing as a checkpoint."""
    return hmac.new(key, canonical([purpose, count, head]), hashlib.sha256).hexdigest()


@dataclass(frozen=True)
class Checkpoint:
    """After `count` records the chain's head was `head`, signed. Worth most when kept on another machine."""

    time: str
    count: int
    head: str
    signature: str

    @classmethod
    def sign(cls, key: bytes, *, count: int, head: str, now: datetime) -> Checkpoint:
        time = now.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return cls(time, count, head, signature(key, count=count, head=head, purpose="checkpoint " + time))

    def is_genuine(self, key: bytes) -> bool:
        expected = signature(key, count=self.count, head=self.head, purpose="checkpoint " + self.time)
        return hmac.compare_digest(expected, self.signature)

    def as_line(self) -> bytes:
        return (
            canonical({"time": self.time, "count": self.count, "head": self.head, "signature": self.signature}) + b"\n"
        )

    @classmethod
    def from_line(cls, text: str) -> Checkpoint:
        """Raises ValueError when the line is no checkpoint."""
        values = json.loads(text)
        if not isinstance(values, dict) or not isinstance(values.get("count"), int):
            raise ValueError("not a checkpoint")
        return cls(str(values.get("time")), values["count"], str(values.get("head")), str(values.get("signature")))


def _actor(actor: Actor) -> dict[str, str]:
    shown = {"kind": actor.kind.value, "id": actor.id, "name": _cut(actor.name)}
    if actor.on_behalf_of:
        shown["on_behalf_of"] = actor.on_behalf_of
    return shown


def _cut(text: str) -> str:
    if len(text) <= TEXT_BYTES_MAX // 4:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{text[: TEXT_BYTES_MAX // 4]}… ({len(text)} characters, sha256 {digest})"


def _bounded(value: object, depth: int = 0) -> object:
    """Cut long texts and lists (a digest of the whole stays), so that no request can make a record without end."""
    if depth > 6:
        return "…"
    if isinstance(value, str):
        return _cut(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)  # JSON knows no NaN
    if isinstance(value, bool | int) or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(key): _bounded(item, depth + 1) for key, item in list(value.items())[:LIST_ITEMS_MAX]}
    if isinstance(value, Iterable):
        items = list(value)
        kept = [_bounded(item, depth + 1) for item in items[:LIST_ITEMS_MAX]]
        return kept if len(items) <= LIST_ITEMS_MAX else [*kept, f"… {len(items) - LIST_ITEMS_MAX} more"]
    return _cut(str(value))
