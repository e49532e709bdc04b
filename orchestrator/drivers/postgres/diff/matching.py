"""Finds the rows that stand on one side only, from two streams of COPY lines, in memory of the differences' size.

Equal lines cancel out, whichever order they come in. Both sides print a row's stored values with the same system
functions under the same settings, so equal values are equal bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

# What one held line costs beside its bytes: the object, and its slot in a set.
LINE_OVERHEAD_BYTES = 100


class HeldTooMuch(Exception):
    """More unmatched lines than the limit allows."""


class Matcher:
    """Collects unmatched lines of the base (`old`) and the live side (`new`). Lines of a keyed table are unique."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._old: set[bytes] = set()
        self._new: set[bytes] = set()

    @property
    def held_bytes(self) -> int:
        return self._bytes

    def feed(self, old: Sequence[bytes], new: Sequence[bytes]) -> None:
        """Take one batch from each side (either may be empty). Raises HeldTooMuch."""
        if old == new:
            return
        old_set, new_set = set(old), set(new)
        only_old, only_new = old_set - new_set, new_set - old_set
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
        """Lines of the base only, lines of the live side only; the matcher gives them up."""
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


def _drained(lines: set[bytes]) -> Iterator[bytes]:
    while lines:
        yield lines.pop()


def _cost(lines: set[bytes]) -> int:
    return sum(map(len, lines)) + LINE_OVERHEAD_BYTES * len(lines)
