"""Finds the rows that stand on one side only, from two streams of COPY lines, in memory of the differences' size.

Equal lines cancel out, whichever order they come in. Both sides print a row's stored values with the same system
functions under the same settings, so equal values are equal bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

# What one held line costs beside its bytes: the object, and its slot in a set.
LINE_OVERHEAD_BYTES = 100
RUN_LINES = 32  # compared at once to begin with
SHORT_LINES = 1_000  # in a batch: then few are ahead of the other side for long, and what they cost is not counted
MISSES_MAX = 24  # in a row, with hardly a line in common between them


class HeldTooMuch(Exception):
    """More unmatched lines than the limit allows."""


class Matcher:
    """Collects unmatched lines of the base (`old`) and the live side (`new`). Lines of a keyed table are unique.

    Both sides mostly say the same in the same order, so they are first walked side by side, a run of lines at a time;
    what does not fit there is matched wherever its other half turns up.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._old: set[bytes] = set()
        self._new: set[bytes] = set()
        self._old_ahead: Sequence[bytes] = ()  # read on one side before the other has come so far
        self._new_ahead: Sequence[bytes] = ()

    @property
    def held_bytes(self) -> int:
        return self._bytes

    def feed(self, old: Sequence[bytes], new: Sequence[bytes]) -> None:
        """Take one batch from each side (either may be empty). Raises HeldTooMuch."""
        are_long = len(old) + len(new) < SHORT_LINES  # a batch is a buffer's worth
        if self._old_ahead:
            old = [*self._old_ahead, *old]
        if self._new_ahead:
            new = [*self._new_ahead, *new]
        only_old, only_new, at, other = _walked(old, new)
        self._old_ahead, self._new_ahead = old[at:], new[other:]
        self._take(set(only_old), set(only_new))
        if are_long and self._bytes + _cost(self._old_ahead) + _cost(self._new_ahead) > self._bytes_max:
            raise HeldTooMuch

    def _take(self, old: set[bytes], new: set[bytes]) -> None:
        only_old, only_new = old - new, new - old
        self._cancel(only_old, self._new)
        self._cancel(only_new, self._old)
        self._hold(only_old, self._old)
        self._hold(only_new, self._new)
        if self._bytes > self._bytes_max:
            raise HeldTooMuch

    def _cancel(self, fresh: set[bytes], held: set[bytes]) -> None:
        if not held or not fresh:
            return
        matched = fresh & held
        if matched:
            fresh -= matched
            held -= matched
            self._bytes -= _cost(matched)

    def _hold(self, fresh: set[bytes], held: set[bytes]) -> None:
        if fresh:
            held |= fresh
            self._bytes += _cost(fresh)

    def leftovers(self) -> tuple[Iterator[bytes], Iterator[bytes]]:
        """Lines of the base only, lines of the live side only; the matcher gives them up. Raises HeldTooMuch."""
        self._take(set(self._old_ahead), set(self._new_ahead))
        self._old_ahead = self._new_ahead = ()
        old, new = self._old, self._new
        self._old, self._new = set(), set()
        return _drained(old), _drained(new)


class CountingMatcher:
    """The same for tables without a key, where one line may stand for several equal rows."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._counts: Counter[bytes] = Counter()
        self._bytes = 0

    @property
    def held_bytes(self) -> int:
        return self._bytes

    def feed(self, old: Sequence[bytes], new: Sequence[bytes]) -> None:
        if old == new:
            return
        fresh = Counter(new)
        fresh.subtract(old)
        for line, count in fresh.items():
            if not count:
                continue
            before = self._counts[line]
            if before + count:
                self._counts[line] = before + count
                self._bytes += 0 if before else len(line) + LINE_OVERHEAD_BYTES
            else:
                del self._counts[line]
                self._bytes -= len(line) + LINE_OVERHEAD_BYTES
        if self._bytes > self._bytes_max:
            raise HeldTooMuch

    def leftovers(self) -> tuple[Iterator[bytes], Iterator[bytes]]:
        old = (line for line, count in self._counts.items() for _ in range(-count))
        new = (line for line, count in self._counts.items() for _ in range(count))
        return old, new


def _walked(old: Sequence[bytes], new: Sequence[bytes]) -> tuple[list[bytes], list[bytes], int, int]:
    """Walk both side by side until one ends: what did not fit on either side, and how far each was walked.

    Any answer is right as long as only equal lines are left out; this one is quick where little differs, and gives up
    where the sides have nothing to do with each other.
    """
    only_old: list[bytes] = []
    only_new: list[bytes] = []
    at = other = misses = 0
    while at < len(old) and other < len(new):
        run = _common(old, at, new, other)
        at, other = at + run, other + run
        if at == len(old) or other == len(new):
            break
        misses = 0 if run >= MISSES_MAX else misses + 1
        if misses > MISSES_MAX:
            return [*only_old, *old[at:]], [*only_new, *new[other:]], len(old), len(new)
        if at + 1 < len(old) and old[at + 1] == new[other]:
            only_old.append(old[at])
            at += 1
        elif other + 1 < len(new) and old[at] == new[other + 1]:
            only_new.append(new[other])
            other += 1
        else:
            only_old.append(old[at])
            only_new.append(new[other])
            at, other = at + 1, other + 1
    return only_old, only_new, at, other


def _common(old: Sequence[bytes], at: int, new: Sequence[bytes], other: int) -> int:
    """How many lines are equal from here on: in growing steps, then halving the last one."""
    left = min(len(old) - at, len(new) - other)
    found, step = 0, RUN_LINES
    while found < left:
        size = min(step, left - found)
        if old[at + found : at + found + size] == new[other + found : other + found + size]:
            found += size
            step *= 2
            continue
        while size > 1:
            half = size // 2
            if old[at + found : at + found + half] == new[other + found : other + found + half]:
                found += half
                size -= half
            else:
                size = half
        break
    return found


def _drained(lines: set[bytes]) -> Iterator[bytes]:
    while lines:
        yield lines.pop()


def _cost(lines: Collection[bytes]) -> int:
    return sum(map(len, lines)) + LINE_OVERHEAD_BYTES * len(lines)
