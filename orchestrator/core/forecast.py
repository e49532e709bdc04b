"""When the disk will be full, by what it did lately. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

DAY_S = 86_400.0
LEAST_SPAN_S = 6 * 3600.0  # below it a trend says nothing
FAR_DAYS = 3650.0


@dataclass(frozen=True)
class Forecast:
    """`days` is None when the disk does not fill, or nothing can be told yet; `span_s` is how long it was watched."""

    days: float | None
    bytes_per_day: float | None
    span_s: float


def disk_full(samples: Sequence[tuple[datetime, int]]) -> Forecast:
    """From moments and free bytes, the oldest first: the line of least squares, extended to nothing left."""
    if len(samples) < 2:
        return Forecast(None, None, 0.0)
    start = samples[0][0]
    xs = [(at - start).total_seconds() for at, _ in samples]
    ys = [float(free) for _, free in samples]
    span_s = xs[-1]
    if span_s < LEAST_SPAN_S:
        return Forecast(None, None, span_s)
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    used_per_day = -slope * DAY_S
    if used_per_day <= 0:
        return Forecast(None, used_per_day, span_s)
    days = ys[-1] / used_per_day
    return Forecast(days if days < FAR_DAYS else None, used_per_day, span_s)
