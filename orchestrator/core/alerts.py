"""Which alarms of configs/alerts.yaml would ring now, judged from the measures themselves. Pure.

Understood are comparisons of one measure, or of its sum, with a number; a rule that needs a history (`increase`) is
left to Prometheus, and said so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.core.metrics import Family, FamilyKind, Sample

RULE = re.compile(
    r"(?P<sum>sum\()?(?P<name>\w+)(?:\{(?P<labels>[^}]*)\})?\)?\s*(?P<sign>>=|<=|==|!=|>|<)\s*(?P<bound>[\d.]+(?:\s*\*\s*[\d.]+)*)"
)
LABEL = re.compile(r'(\w+)\s*=\s*"([^"]*)"')
FILLED = re.compile(r"\{\{\s*\$labels\.(\w+)\s*\}\}")


@dataclass(frozen=True)
class Alert:
    """One alarm that rings: what is so, and what to do about it."""

    name: str
    summary: str
    cure: str


@dataclass(frozen=True)
class Judged:
    """`quiet` names the rules that do not ring, `elsewhere` those that only Prometheus can judge."""

    firing: tuple[Alert, ...]
    quiet: tuple[str, ...]
    elsewhere: tuple[str, ...]


def judge(rules: Iterable[Mapping[str, Any]], families: Sequence[Family]) -> Judged:
    """Every rule once, in their order."""
    firing: list[Alert] = []
    quiet: list[str] = []
    elsewhere: list[str] = []
    for rule in rules:
        name = str(rule.get("alert", ""))
        found = RULE.fullmatch(str(rule.get("expr", "")).strip())
        if found is None:
            elsewhere.append(name)
            continue
        notes = rule.get("annotations") or {}
        ringing = [
            Alert(name, _filled(str(notes.get("summary", name)), one), _filled(str(notes.get("cure", "")), one))
            for one in _samples(found, families)
            if _holds(one.value, found["sign"], math.prod(float(part) for part in found["bound"].split("*")))
        ]
        firing += ringing
        if not ringing:
            quiet.append(name)
    return Judged(tuple(firing), tuple(quiet), tuple(elsewhere))


def _samples(rule: re.Match[str], families: Sequence[Family]) -> list[Sample]:
    wanted = dict(LABEL.findall(rule["labels"] or ""))
    samples = [
        sample
        for family in families
        if family.name + ("_total" if family.kind is FamilyKind.COUNTER else "") == rule["name"]
        for sample in family.samples
        if all(sample.labels.get(label) == value for label, value in wanted.items())
    ]
    return [Sample(sum(one.value for one in samples))] if rule["sum"] else samples


def _holds(value: float, sign: str, bound: float) -> bool:
    return {
        ">": value > bound,
        "<": value < bound,
        ">=": value >= bound,
        "<=": value <= bound,
        "==": value == bound,
        "!=": value != bound,
    }[sign]


def _filled(text: str, sample: Sample) -> str:
    return FILLED.sub(lambda match: sample.labels.get(match[1], ""), text)
