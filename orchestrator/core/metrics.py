"""What is measured, independent of how it is shown. Values come from the records, so every process tells the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class FamilyKind(StrEnum):
    GAUGE = "gauge"
    COUNTER = "counter"


@dataclass(frozen=True)
class Sample:
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Family:
    """One measure; every sample has the same label names, in `labels`. Counters' names end without `_total`."""

    name: str
    text: str
    kind: FamilyKind
    labels: tuple[str, ...] = ()
    samples: tuple[Sample, ...] = ()
