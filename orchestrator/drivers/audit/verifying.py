"""`audit verify`: recompute every hash, compare with the signed head and every checkpoint, and say what was done.

A chain alone shows edits, drops and reordering. That the tail was cut or the whole chain computed anew shows only
against something signed: the head beside the log, the checkpoints, and best the checkpoints kept elsewhere.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.core.audit import Checkpoint, record_hash
from orchestrator.core.ports.audit import Finding, Verdict, Verification
from orchestrator.drivers.audit.files import START, AuditFiles, Head

FINDINGS_MAX = 100


@dataclass
class _Walk:
    """The state while walking the chain."""

    base: Head
    hashes: dict[int, str] = field(default_factory=dict)  # at checkpointed counts only
    wanted: frozenset[int] = frozenset()
    findings: list[Finding] = field(default_factory=list)
    count: int = 0
    head: str = ""
    highest: int = 0

    def find(self, verdict: Verdict, seq: int | None, file: str, explanation: str) -> None:
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(Finding(verdict, seq, file, explanation))


@dataclass(frozen=True)
class Extent:
    """How far the log reached at one moment, so that the walk itself needs no lock and holds up no writer."""

    sizes: tuple[tuple[Path, int], ...]
    head: Head | None
    head_problem: str


def extent(files: AuditFiles, key: bytes) -> Extent:
    """Note the log's end. The caller holds the lock."""
    sizes = tuple((path, path.stat().st_size) for path in files.days())
    try:
        head = files.read_head(key)
    except (ValueError, KeyError, TypeError):
        return Extent(sizes, None, "The signed head is damaged or was signed with another key.")
    return Extent(sizes, head, "The signed head is missing." if head is None and sizes else "")


def verify(files: AuditFiles, key: bytes, reach: Extent, elsewhere: Sequence[Checkpoint]) -> Verification:
    """Walk the log as far as `reach` and compare it with everything signed."""
    walk = _Walk(START)
    try:
        walk.base = files.read_base(key)
    except (ValueError, KeyError, TypeError):
        walk.find(Verdict.DAMAGED, None, files.base.name, "The record of what was pruned has a wrong signature.")
    checkpoints = _genuine(walk, key, [*_local(walk, files.checkpoints), *(("elsewhere", one) for one in elsewhere)])
    walk.wanted = frozenset(one.count for _, one in checkpoints)
    signed = reach.head
    if signed is not None:
        walk.wanted |= {signed.count}
    _records(walk, reach)
    if reach.head_problem:
        walk.find(Verdict.DAMAGED, None, files.head.name, reach.head_problem)
    _compare(walk, checkpoints, signed)
    return Verification(walk.count, walk.head, len(checkpoints), tuple(walk.findings))


def _records(walk: _Walk, reach: Extent) -> None:
    expected, previous = walk.base.count + 1, walk.base.hash
    walk.head, walk.highest = previous, walk.base.count
    places: list[tuple[int, str]] = []
    for name, number, text in _lines(reach):
        values = _values(text)
        if values is None:
            walk.find(Verdict.DAMAGED, None, name, f"Line {number} is not an audit record.")
            continue
        walk.count += 1
        seq, own = values.get("seq"), str(values.get("hash"))
        if not isinstance(seq, int) or record_hash(values) != own:
            walk.find(
                Verdict.EDITED, expected, name, f"Line {number} does not match its own hash: its content was changed."
            )
            seq = seq if isinstance(seq, int) else expected
        elif values.get("prev") != previous and seq == expected:
            walk.find(
                Verdict.EDITED,
                seq,
                name,
                f"Record {seq} does not follow from the one before it: one of them was changed.",
            )
        places.append((seq, name))
        expected, previous = seq + 1, own
        walk.head, walk.highest = own, max(walk.highest, seq)
        if seq in walk.wanted:
            walk.hashes[seq] = own
    _sequence(walk, places)


def _sequence(walk: _Walk, places: list[tuple[int, str]]) -> None:
    """Missing numbers were dropped; numbers that are all there but not in order were moved."""
    times = Counter(seq for seq, _ in places)
    previous = walk.base.count
    for seq in sorted(times):
        if seq > previous + 1:
            first, last = previous + 1, seq - 1
            shown = f"Record {first} is" if first == last else f"Records {first} to {last} are"
            walk.find(Verdict.DROPPED, first, "", f"{shown} missing from the middle of the log.")
        previous = max(previous, seq)
    before = walk.base.count
    for seq, name in places:
        if seq <= before:
            again = "twice" if times[seq] > 1 else "out of its place"
            walk.find(Verdict.REORDERED, seq, name, f"Record {seq} stands {again}.")
        before = max(before, seq)


def _compare(walk: _Walk, checkpoints: list[tuple[str, Checkpoint]], signed: Head | None) -> None:
    last = walk.highest
    claims = [(where, one.count, one.head) for where, one in checkpoints]
    if signed is not None:
        claims.append(("the signed head", signed.count, signed.hash))
    for where, count, head in claims:
        source = where if where == "the signed head" else f"a checkpoint ({where})"
        if count > last:
            walk.find(
                Verdict.TRUNCATED,
                last,
                "",
                f"The log ends at record {last}, but {source} proves that {count} were written.",
            )
        elif count > walk.base.count and walk.hashes.get(count) != head and not _is_explained(walk, count):
            walk.find(
                Verdict.RESTAMPED,
                count,
                "",
                f"The chain fits together, but record {count} is not the one {source} was signed for: "
                "the log was computed anew.",
            )


def _is_explained(walk: _Walk, count: int) -> bool:
    """A record already reported as edited, dropped or moved needs no second finding."""
    kinds = (Verdict.EDITED, Verdict.DROPPED, Verdict.REORDERED, Verdict.DAMAGED)
    return any(one.verdict in kinds and one.seq is not None and one.seq <= count for one in walk.findings)


def _local(walk: _Walk, path: Path) -> Iterator[tuple[str, Checkpoint]]:
    if not path.exists():
        return
    for number, text in enumerate(path.read_text("utf-8", "replace").splitlines(), start=1):
        try:
            yield "here", Checkpoint.from_line(text)
        except ValueError:
            walk.find(Verdict.DAMAGED, None, path.name, f"Line {number} is not a checkpoint.")


def _genuine(walk: _Walk, key: bytes, found: list[tuple[str, Checkpoint]]) -> list[tuple[str, Checkpoint]]:
    kept = []
    for where, one in found:
        if one.is_genuine(key):
            kept.append((where, one))
        else:
            walk.find(
                Verdict.DAMAGED, None, "", f"The checkpoint for record {one.count} ({where}) has a wrong signature."
            )
    return kept


def _lines(reach: Extent) -> Iterator[tuple[str, int, bytes]]:
    for path, size in reach.sizes:
        with path.open("rb") as file:
            for number, text in enumerate(file, start=1):
                if file.tell() > size:
                    break
                yield path.name, number, text


def _values(text: bytes) -> dict[str, object] | None:
    try:
        values = json.loads(text)
    except ValueError:
        return None
    return values if isinstance(values, dict) else None
