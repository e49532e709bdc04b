"""Pure: charts as SVG, drawn on the server. Colours come from the style sheet; every chart says itself in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 180
LEFT, RIGHT, TOP, BOTTOM = 56, 8, 10, 26
POINTS_MAX = 400
SMALLEST = 1e-9  # below it a value is drawn as nothing


@dataclass(frozen=True)
class Point:
    label: str
    value: float
    is_bad: bool = False


def line(title: str, points: Sequence[Point], *, unit: str = "") -> str:
    """Values over time, oldest first."""
    points = points[-POINTS_MAX:]
    if not points:
        return _nothing(title)
    top = _ceiling(max(point.value for point in points))
    step = (WIDTH - LEFT - RIGHT) / max(len(points) - 1, 1)
    spots = [(LEFT + index * step, _y(point.value, top)) for index, point in enumerate(points)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    dots = "".join(
        f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{_say(point, unit)}</title></circle>'
        for (x, y), point in zip(spots, points, strict=True)
    )
    return _frame(title, points, top, unit, f'<polyline class="line" points="{path}"/>{dots}')


def bars(title: str, points: Sequence[Point], *, unit: str = "") -> str:
    """One bar a value; bad ones in the colour of failure."""
    points = points[-POINTS_MAX:]
    if not points:
        return _nothing(title)
    top = _ceiling(max(point.value for point in points))
    slot = (WIDTH - LEFT - RIGHT) / len(points)
    drawn = "".join(
        f'<rect class="bar{" bad" if point.is_bad else ""}" x="{LEFT + index * slot + slot * 0.12:.1f}" '
        f'y="{_y(point.value, top):.1f}" width="{max(slot * 0.76, 1):.1f}" '
        f'height="{max(HEIGHT - BOTTOM - _y(point.value, top), 0):.1f}"><title>{_say(point, unit)}</title></rect>'
        for index, point in enumerate(points)
    )
    return _frame(title, points, top, unit, drawn)


def _frame(title: str, points: Sequence[Point], top: float, unit: str, drawn: str) -> str:
    marks = "".join(
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{_y(value, top):.1f}" y2="{_y(value, top):.1f}"/>'
        f'<text x="{LEFT - 6}" y="{_y(value, top) + 4:.1f}" text-anchor="end">{_number(value)}{escape(unit)}</text>'
        for value in (0.0, top / 2, top)
    )
    ends = f'<text x="{LEFT}" y="{HEIGHT - 8}">{escape(points[0].label)}</text>'
    if len(points) > 1:
        ends += f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">{escape(points[-1].label)}</text>'
    said = f"{title}: {len(points)} values, highest {_number(max(p.value for p in points))}{unit}"
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(said, quote=True)}">'
        f"{marks}{drawn}{ends}</svg>"
    )


def _nothing(title: str) -> str:
    return f'<p class="empty">No values yet for “{escape(title)}”.</p>'


def _y(value: float, top: float) -> float:
    return TOP + (HEIGHT - TOP - BOTTOM) * (1 - max(value, 0.0) / top)


def _ceiling(value: float) -> float:
    """The next of 1, 2, 5 × 10ⁿ at or above `value`."""
    if value < SMALLEST:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * factor for factor in (1, 2, 5, 10, 20) if power * factor >= value)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"


def _say(point: Point, unit: str) -> str:
    return escape(f"{point.label}: {_number(point.value)}{unit}")
