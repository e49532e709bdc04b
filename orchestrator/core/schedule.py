"""What runs when. Pure: from the schedule and the time to the one slot that is due, for every tenant.

A slot is a moment computed from the schedule alone (no timer is kept), so a restart, a sleep or a jump of the clock
cannot lose it, and asking twice gives the same slot. Only the latest slot counts: missed ones fold into it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from orchestrator.errors import InvalidInput

EPOCH = datetime(2020, 1, 1, tzinfo=UTC)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SPAN = re.compile(r"(?:\d+[smhd])+")
EVERY_MIN_S = 1
EVERY_MAX_S = 31 * 86400


class InvalidSchedule(InvalidInput):
    code = "invalid.schedule"


def seconds(value: object) -> object:
    """`90`, `45s`, `20m`, `4h`, `1d12h` as seconds; anything else is left for the model to refuse."""
    if isinstance(value, str) and _SPAN.fullmatch(value):
        return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([smhd])", value))
    return value


Span = Annotated[int, BeforeValidator(seconds), Field(ge=0, le=EVERY_MAX_S, strict=True)]


class Entry(BaseModel):
    """When one kind of job runs: `every` a span, or daily `at` a local time; never both."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    every: Span | None = None
    at: str | None = None
    offset: Span = 0  # seconds after the beginning of the slot
    spread: Span = 0  # tenants are dealt out over this many seconds
    jitter: Span = 0  # up to this many seconds more, different for every slot
    enabled: bool = True

    @field_validator("at")
    @classmethod
    def _is_a_time(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", value):
            raise ValueError("write a time of day as 'HH:MM' in quotes")
        return value

    @model_validator(mode="after")
    def _is_one_of_two(self) -> Entry:
        if (self.every is None) == (self.at is None):
            raise ValueError("give either 'every' or 'at'")
        if self.every is not None and self.every < EVERY_MIN_S:
            raise ValueError(f"'every' must be at least {EVERY_MIN_S}s")
        period = self.every if self.every is not None else 86400
        if self.offset + self.spread + self.jitter >= period:
            raise ValueError("offset, spread and jitter together must stay under the period")
        return self


class TenantOverride(BaseModel):
    """What differs for one tenant: another rhythm, or none (`enabled: false`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    refresh: Entry | None = None
    publish: Entry | None = None


PER_TENANT = ("refresh", "publish")
KINDS = ("snapshot", "refresh", "publish", "prune", "reconcile")


class Schedule(BaseModel):
    """The whole of cron/schedule.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    timezone: str = "UTC"
    postpone_max: int = Field(default=1, ge=0, le=10)  # refreshes a manager may put off in a row
    snapshot: Entry = Entry(every=4 * 3600)
    refresh: Entry = Entry(every=4 * 3600, offset=900, spread=1200, jitter=60)
    publish: Entry = Entry(at="02:30", spread=3600)
    prune: Entry = Entry(every=3600, offset=2700)
    reconcile: Entry = Entry(every=60)
    tenants: Mapping[str, TenantOverride] = {}

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"no time zone is called {value!r}") from error
        return value

    @property
    def zone(self) -> ZoneInfo:
        return ZoneInfo(self.timezone)

    def entry(self, kind: str, tenant_name: str | None = None) -> Entry:
        """The entry in force for a kind of job and, where it is done per tenant, for one tenant."""
        override = self.tenants.get(tenant_name) if tenant_name is not None else None
        chosen = getattr(override, kind, None) if override is not None else None
        entry: Entry = chosen if chosen is not None else getattr(self, kind)
        return entry


def parse(content: str, *, source: str = "schedule.yaml") -> Schedule:
    """Raises InvalidSchedule naming the key, what stood there and what is allowed."""
    try:
        loaded = yaml.safe_load(content)
    except yaml.YAMLError as error:
        raise InvalidSchedule(f"{source} is not YAML: {error}") from error
    if not isinstance(loaded, dict | None):
        raise InvalidSchedule(f"{source} must be a mapping.")
    try:
        return Schedule.model_validate(loaded or {})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, p['loc'])) or 'file'}: {p['msg']}" for p in error.errors())
        raise InvalidSchedule(f"{source}: {problems}.", effect="The schedule in force stays.") from error


@dataclass(frozen=True)
class Slot:
    """One moment at which something is due. `number` names it: the same slot always has the same number."""

    kind: str
    target: str  # a tenant id, or "" for the installation
    rhythm: str
    number: int
    due_at: datetime

    @property
    def key(self) -> str:
        """Unique for ever, and the same for everybody who computes this slot."""
        return f"{self.kind}:{self.target}:{self.rhythm}:{self.number}"


def _share(*parts: object) -> float:
    """A number in [0, 1) that depends on nothing but `parts`."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:7], "big") / float(1 << 56)


def _begin(entry: Entry, zone: ZoneInfo, number: int) -> datetime:
    if entry.every is not None:
        return EPOCH + timedelta(seconds=entry.every * number)
    local = datetime.combine(date.fromordinal(number), time.fromisoformat(entry.at or "00:00"), tzinfo=zone)
    return local.astimezone(UTC)  # a time skipped by daylight saving maps to the moment it would have been


def _slot(entry: Entry, zone: ZoneInfo, kind: str, target: str, number: int) -> Slot:
    late = entry.offset + entry.spread * _share(kind, target) + entry.jitter * _share(kind, target, number)
    rhythm = entry.at if entry.at is not None else f"{entry.every}s"
    return Slot(kind, target, rhythm, number, _begin(entry, zone, number) + timedelta(seconds=round(late, 3)))


def _number(entry: Entry, zone: ZoneInfo, now: datetime) -> int:
    if entry.every is not None:
        return int((now - EPOCH).total_seconds() // entry.every)
    return now.astimezone(zone).date().toordinal()


def latest(schedule: Schedule, kind: str, now: datetime, *, target: str = "", name: str | None = None) -> Slot | None:
    """The last slot that came due at or before `now`; None when the entry is off."""
    entry = schedule.entry(kind, name)
    if not entry.enabled:
        return None
    number = _number(entry, schedule.zone, now)
    for candidate in (number + 1, number, number - 1, number - 2):
        slot = _slot(entry, schedule.zone, kind, target, candidate)
        if slot.due_at <= now:
            return slot
    raise AssertionError("one of four neighbouring slots has always passed")


def upcoming(schedule: Schedule, kind: str, now: datetime, *, target: str = "", name: str | None = None) -> Slot | None:
    """The first slot after `now`; None when the entry is off."""
    last = latest(schedule, kind, now, target=target, name=name)
    if last is None:
        return None
    return _slot(schedule.entry(kind, name), schedule.zone, kind, target, last.number + 1)


@dataclass(frozen=True)
class Due:
    """What to do about a slot that has come due: run it, or note why not."""

    slot: Slot
    run: bool
    reason: str


def decide(
    slot: Slot,
    now: datetime,
    *,
    fresh_since: datetime | None = None,
    postponed_by: str | None = None,
    hindrance: str | None = None,
) -> Due:
    """Whether the slot runs, with the reason either way.

    `fresh_since` is when the same work was last done for another reason (a launch, by hand); `hindrance` is why it
    cannot be done now (tenant stopped, no snapshot).
    """
    if fresh_since is not None and fresh_since >= slot.due_at:
        return Due(slot, False, "done already since it came due")
    if postponed_by is not None:
        return Due(slot, False, f"postponed by {postponed_by}")
    if hindrance is not None:
        return Due(slot, False, hindrance)
    late_s = (now - slot.due_at).total_seconds()
    return Due(slot, True, "scheduled" if late_s < 120 else f"scheduled, {_words(late_s)} late")


def _words(span_s: float) -> str:
    minutes = int(span_s // 60)
    if minutes < 120:
        return f"{minutes} minutes"
    return f"{minutes // 60} hours" if minutes < 48 * 60 else f"{minutes // 1440} days"


def as_rows(schedule: Schedule, now: datetime) -> list[dict[str, Any]]:
    """The installation-wide rhythm for people and programs: kind, entry, last and next slot."""
    rows = []
    for kind in KINDS:
        entry = schedule.entry(kind)
        last, coming = latest(schedule, kind, now), upcoming(schedule, kind, now)
        rows.append(
            {
                "kind": kind,
                "enabled": entry.enabled,
                "every_s": entry.every,
                "at": entry.at,
                "last_due_at": last.due_at if last and kind not in PER_TENANT else None,
                "next_due_at": coming.due_at if coming and kind not in PER_TENANT else None,
            }
        )
    return rows
