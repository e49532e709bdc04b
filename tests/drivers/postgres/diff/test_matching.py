"""Two streams of lines, in whatever pieces and order: what is left is exactly what stands on one side only."""

from __future__ import annotations

import random

import pytest

from orchestrator.drivers.postgres.diff.matching import HeldTooMuch, Matcher


def pieces(lines: list[bytes], draw: random.Random) -> list[list[bytes]]:
    found, at = [], 0
    while at < len(lines):
        size = draw.choice([1, 2, 7, 40, 300, 5000])
        found.append(lines[at : at + size])
        at += size
    return found


def edited(lines: list[bytes], draw: random.Random) -> list[bytes]:
    """What a tenant leaves of them: rows gone, new, changed in place, moved to the end or all over the place."""
    share = draw.choice([0.0, 0.001, 0.01, 0.3, 1.0])
    kept: list[bytes] = []
    moved: list[bytes] = []
    for line in lines:
        fate = draw.random()
        if fate >= share:
            kept.append(line)
        elif fate < share * 0.25:
            moved.append(line + b"x")
        elif fate < share * 0.5:
            kept.append(line + b"y")
        elif fate < share * 0.75:
            moved.append(line)
    if draw.random() < 0.2:
        draw.shuffle(kept)
    return kept + moved + [b"new %d" % number for number in range(draw.choice([0, 3, 400]))]


@pytest.mark.parametrize("seed", range(40))
def test_what_is_left_stands_on_one_side_only(seed: int) -> None:
    draw = random.Random(seed)
    old = [b"row %d" % number for number in range(draw.choice([0, 1, 50, 6000]))]
    new = edited(old, draw)
    sides = [pieces(old, draw), pieces(new, draw)]
    matcher = Matcher(1 << 30)
    while sides[0] or sides[1]:
        matcher.feed(*(side.pop(0) if side and draw.random() < 0.7 else [] for side in sides))
    left_old, left_new = (sorted(side) for side in matcher.leftovers())
    assert left_old == sorted(set(old) - set(new))
    assert left_new == sorted(set(new) - set(old))


def test_more_unmatched_lines_than_may_be_held_are_refused() -> None:
    matcher = Matcher(1_000)
    with pytest.raises(HeldTooMuch):
        matcher.feed([b"old %d" % number for number in range(100)], [b"new %d" % number for number in range(100)])
    matcher = Matcher(200_000)
    matcher.feed([b"old %d" % number for number in range(2_000)], [])
    with pytest.raises(HeldTooMuch):
        matcher.leftovers()
    matcher = Matcher(200_000)
    with pytest.raises(HeldTooMuch):
        matcher.feed([b"x" * 300_000], [])
