"""Pure: charts as SVG, drawn on the server. Colours come from the style sheet; every chart says itself in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from orchestrator.web.wording import visible

WIDTH, HEIGHT = 440, 170
LEFT, RIGHT, TOP, BOTTOM = 56, 8, 10, 26
POINTS_MAX = 400
RANKED_MAX = 25
ROW, NAMES, FIGURES, NAME_LENGTH = 26, 140, 70, 20
DOTTED_MAX = 60  # more values than that are a line without beads
TEXT_LENGTH = 300
SLOT_MAX = 48  # a single value is a bar, not a wall
SMALLEST = 1e-9  # below it a value is drawn as nothing


@dataclass(frozen=True)
class Point:
    label: str
    value: float
    is_bad: bool = False
    limit: float | None = None


def line(title: str, points: Sequence[Point], *, unit: str = "") -> str:
    """Values over time, oldest first."""
    points = points[-POINTS_MAX:]
    if not points:
        return _nothing()
    top = _ceiling(max(point.value for point in points))
    step = (WIDTH - LEFT - RIGHT) / max(len(points) - 1, 1)
    spots = [(LEFT + index * step, _y(point.value, top)) for index, point in enumerate(points)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    beads = 3 if len(points) <= DOTTED_MAX else 1.2
    dots = "".join(
        f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="{beads}"><title>{_say(point, unit)}</title></circle>'
        for (x, y), point in zip(spots, points, strict=True)
    )
    ground = f"{LEFT},{HEIGHT - BOTTOM} {path} {spots[-1][0]:.1f},{HEIGHT - BOTTOM}"
    drawn = f'<polygon class="area" points="{ground}"/><polyline class="line" points="{path}"/>{dots}'
    return _frame(title, points, top, unit, drawn)


def bars(title: str, points: Sequence[Point], *, unit: str = "") -> str:
    """One bar a value; bad ones in the colour of failure."""
    points = points[-POINTS_MAX:]
    if not points:
        return _nothing()
    top = _ceiling(max(point.value for point in points))
    slot = min((WIDTH - LEFT - RIGHT) / len(points), SLOT_MAX)
    drawn = "".join(
        f'<rect class="bar{" bad" if point.is_bad else ""}" x="{LEFT + index * slot + slot * 0.12:.1f}" '
        f'y="{_y(point.value, top):.1f}" width="{max(slot * 0.76, 1):.1f}" '
        f'height="{max(HEIGHT - BOTTOM - _y(point.value, top), 0):.1f}"><title>{_say(point, unit)}</title></rect>'
        for index, point in enumerate(points)
    )
    return _frame(title, points, top, unit, drawn)


def ranked(title: str, points: Sequence[Point], *, unit: str = "") -> str:
    """A horizontal bar for each name, in the order given; where there is a limit, the bar lies in its frame."""
    points = points[:RANKED_MAX]
    if not points:
        return _nothing()
    top = max(SMALLEST, *(max(point.value, point.limit or 0.0) for point in points))
    width = WIDTH - NAMES - FIGURES
    drawn = []
    for index, point in enumerate(points):
        y = 6 + index * ROW
        frame = ""
        if point.limit:
            frame = (
                f'<rect class="limit" x="{NAMES}" y="{y}" width="{width * point.limit / top:.1f}" height="{ROW - 8}"/>'
            )
        drawn.append(
            f'<text x="{NAMES - 8}" y="{y + 13}" text-anchor="end">{_text(_short(point.label))}</text>{frame}'
            f'<rect class="bar{" bad" if point.is_bad else ""}" x="{NAMES}" y="{y}" '
            f'width="{max(width * point.value / top, 1):.1f}" height="{ROW - 8}">'
            f"<title>{_say(point, unit)}</title></rect>"
            f'<text x="{WIDTH}" y="{y + 13}" text-anchor="end">{_number(point.value)}{escape(unit)}</text>'
        )
    said = f"{len(points)} values, {_extremes(points, unit)}."
    return _svg(title, said, 12 + len(points) * ROW, "".join(drawn))


@dataclass(frozen=True)
class Picture:
    """A chart, and the same as a table for whoever does not see it."""

    title: str
    about: str
    svg: str
    heads: tuple[str, str]
    rows: tuple[tuple[str, str], ...]


def picture(
    draw: Callable[..., str], title: str, points: Sequence[Point], *, about: str, head: str, unit: str = ""
) -> Picture:
    """`draw` is one of `line`, `bars` and `ranked`; `head` names what the labels are."""
    shown = points[:RANKED_MAX] if draw is ranked else points[-POINTS_MAX:]
    rows = tuple((point.label, f"{_number(point.value)}{unit}") for point in shown)
    return Picture(title, about, draw(title, points, unit=unit), (head, title), rows)


def _short(label: str) -> str:
    return label if len(label) <= NAME_LENGTH else label[: NAME_LENGTH - 1] + "…"


def _frame(title: str, points: Sequence[Point], top: float, unit: str, drawn: str) -> str:
    marks = "".join(
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{_y(value, top):.1f}" y2="{_y(value, top):.1f}"/>'
        f'<text x="{LEFT - 6}" y="{_y(value, top) + 4:.1f}" text-anchor="end">{_number(value)}{escape(unit)}</text>'
        for value in (0.0, top / 2, top)
    )
    ends = f'<text x="{LEFT}" y="{HEIGHT - 8}">{_text(points[0].label)}</text>'
    if len(points) > 1:
        ends += f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">{_text(points[-1].label)}</text>'
    said = f"{len(points)} values from {points[0].label} to {points[-1].label}, {_extremes(points, unit)}."
    return _svg(title, said, HEIGHT, f"{marks}{drawn}{ends}")


def _svg(title: str, said: str, height: int, drawn: str) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img">'
        f"<title>{_text(title)}</title><desc>{_text(said)}</desc>{drawn}</svg>"
    )


def _extremes(points: Sequence[Point], unit: str) -> str:
    values = [point.value for point in points]
    return f"lowest {_number(min(values))}{unit}, highest {_number(max(values))}{unit}"


def _nothing() -> str:
    return '<p class="empty">No values yet.</p>'


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


def _text(text: str) -> str:
    """Labels may be anybody's: neither markup nor signs that turn the writing around."""
    return escape(visible(text, TEXT_LENGTH))


def _say(point: Point, unit: str) -> str:
    return _text(f"{point.label}: {_number(point.value)}{unit}")
