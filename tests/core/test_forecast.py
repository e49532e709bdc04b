"""When the disk is full: a trend needs time, and a disk that does not fill has no day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from orchestrator.core.forecast import disk_full

START = datetime(2026, 1, 1, tzinfo=UTC)


def _watched(hours: int, *, first: int, per_hour: int) -> list[tuple[datetime, int]]:
    return [(START + timedelta(hours=hour), first + per_hour * hour) for hour in range(hours + 1)]


def test_a_steady_loss_is_extended_to_nothing_left() -> None:
    found = disk_full(_watched(48, first=2_480, per_hour=-10))
    assert found.days is not None and abs(found.days - 2_000 / 240) < 1e-6
    assert found.bytes_per_day is not None and abs(found.bytes_per_day - 240) < 1e-6


def test_too_little_watching_and_no_loss_have_no_day() -> None:
    assert disk_full([]).days is None
    assert disk_full(_watched(3, first=2_000, per_hour=-10)).bytes_per_day is None
    level = disk_full(_watched(48, first=2_000, per_hour=0))
    assert level.days is None and level.bytes_per_day is not None
    assert disk_full(_watched(48, first=2_000, per_hour=5)).days is None
