"""The slot that is due depends on the schedule and the time alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import schedule as subject
from orchestrator.core.schedule import InvalidSchedule, Schedule, decide, latest, parse, upcoming

NOW = datetime(2026, 11, 20, 9, 7, 3, tzinfo=UTC)
MOMENTS = st.datetimes(min_value=datetime(2021, 1, 1), max_value=datetime(2060, 1, 1), timezones=st.just(UTC))


def test_the_shipped_schedule_is_valid_and_shows_every_default() -> None:
    shipped = parse(Path("cron/schedule.yaml").read_text())
    assert shipped == Schedule()
    assert {row["kind"] for row in subject.as_rows(shipped, NOW)} == set(subject.KINDS)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("refresh: {every: 4x}", "refresh.every"),
        ("refresh: {every: 4h, at: '02:00'}", "either 'every' or 'at'"),
        ("refresh: {spread: 10m}", "either 'every' or 'at'"),
        ("refresh: {every: 1h, spread: 40m, jitter: 30m}", "under the period"),
        ("publish: {at: 2:30}", "publish.at"),
        ("publish: {at: '25:00'}", "HH:MM"),
        ("timezone: Mars/Olympus", "time zone"),
        ("refrsh: {every: 4h}", "refrsh"),
        ("- a\n- b", "mapping"),
        ("a: [", "not YAML"),
        ("refresh: {every: 0s}", "at least"),
        ("refresh: {every: true}", "refresh.every"),
        ("tenants: {north: {snapshot: {every: 1h}}}", "tenants.north.snapshot"),
    ],
)
def test_a_wrong_file_is_refused_by_name(content: str, named: str) -> None:
    with pytest.raises(InvalidSchedule, match=named):
        parse(content)


@given(now=MOMENTS, every=st.integers(60, 86400 * 7), target=st.text(max_size=8))
def test_one_slot_is_due_and_the_next_follows_it(now: datetime, every: int, target: str) -> None:
    schedule = Schedule.model_validate(
        {"refresh": {"every": every, "offset": every // 8, "spread": every // 4, "jitter": every // 8}}
    )
    last = latest(schedule, "refresh", now, target=target)
    coming = upcoming(schedule, "refresh", now, target=target)
    assert last is not None and coming is not None
    assert last.due_at <= now < coming.due_at
    assert coming.number == last.number + 1
    assert latest(schedule, "refresh", now, target=target) == last
    assert latest(schedule, "refresh", coming.due_at, target=target) == coming


@given(now=MOMENTS)
def test_a_local_time_of_day_comes_once_a_day_through_daylight_saving(now: datetime) -> None:
    schedule = Schedule.model_validate({"timezone": "Europe/Berlin", "publish": {"at": "02:30"}})
    last, coming = latest(schedule, "publish", now), upcoming(schedule, "publish", now)
    assert last is not None and coming is not None
    assert last.due_at <= now < coming.due_at
    assert timedelta(hours=22) <= coming.due_at - last.due_at <= timedelta(hours=26)


def test_tenants_are_dealt_out_and_stay_where_they_are() -> None:
    schedule = Schedule()
    slots = [latest(schedule, "refresh", NOW, target=f"t{n}") for n in range(50)]
    minutes = {slot.due_at.replace(second=0, microsecond=0) for slot in slots if slot is not None}
    assert len(minutes) > 10
    first = upcoming(schedule, "refresh", NOW, target="t1")
    second = upcoming(schedule, "refresh", NOW + timedelta(hours=4), target="t1")
    assert first is not None and second is not None
    assert abs(second.due_at - first.due_at - timedelta(hours=4)) <= timedelta(seconds=60)


def test_a_tenant_may_have_its_own_rhythm_or_none() -> None:
    schedule = parse("tenants: {north: {refresh: {every: 1h}}, south: {refresh: {every: 1h, enabled: false}}}")
    north = latest(schedule, "refresh", NOW, target="t1", name="north")
    assert north is not None and north.due_at == NOW.replace(minute=0, second=0)
    assert latest(schedule, "refresh", NOW, target="t2", name="south") is None
    assert upcoming(schedule, "refresh", NOW, target="t2", name="south") is None


def test_a_new_rhythm_never_reuses_an_old_slots_key() -> None:
    one = latest(parse("prune: {every: 1h}"), "prune", NOW)
    other = latest(parse("prune: {every: 2h}"), "prune", NOW)
    assert one is not None and other is not None and one.key != other.key


def test_every_decision_has_its_reason() -> None:
    slot = latest(Schedule(), "snapshot", NOW)
    assert slot is not None
    assert decide(slot, NOW).reason == "scheduled, 67 minutes late"
    assert decide(slot, slot.due_at).reason == "scheduled"
    assert not decide(slot, NOW, fresh_since=NOW).run
    assert decide(slot, NOW, fresh_since=slot.due_at - timedelta(seconds=1)).run
    assert decide(slot, NOW, postponed_by="anna").reason == "postponed by anna"
    assert decide(slot, NOW, hindrance="the tenant is stopped").reason == "the tenant is stopped"
