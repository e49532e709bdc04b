"""One measured number, printed as a JSON object a line."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence


def emit(
    name: str,
    values: Sequence[float],
    unit: str,
    *,
    value: float | None = None,
    baseline: float | None = None,
    **more: object,
) -> None:
    """Print the number: the median of `values` unless `value` says otherwise; `baseline` is the alternative's."""
    shown = statistics.median(values) if value is None else value
    document: dict[str, object] = {
        "name": name,
        "value": round(shown, 6),
        "unit": unit,
        "n": len(values),
        "min": round(min(values), 6),
        "max": round(max(values), 6),
    }
    if baseline is not None:
        document["baseline"] = round(baseline, 6)
        document["ratio"] = round(baseline / shown, 3) if shown else None
    print(json.dumps({**document, **more}), flush=True)


def say(text: str) -> None:
    """Progress, beside the numbers."""
    print(text, file=sys.stderr, flush=True)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(len(ordered) * share * 1000) // 1000) - 1))]
