"""Alarms are judged from the measures as Prometheus would, as far as no history is needed."""

from __future__ import annotations

import yaml

from orchestrator.config import PROJECT
from orchestrator.core.alerts import judge
from orchestrator.core.metrics import Family, FamilyKind, Sample


def _family(name: str, *samples: Sample, kind: FamilyKind = FamilyKind.GAUGE) -> Family:
    return Family(name, "", kind, tuple(samples[0].labels) if samples else (), samples)


def _rule(expr: str) -> dict[str, object]:
    return {"alert": "A", "expr": expr, "annotations": {"summary": "{{ $labels.tenant }} is old", "cure": "do it"}}


def test_each_sample_over_the_bound_rings_with_its_own_words() -> None:
    ages = _family("age_seconds", Sample(40_000, {"tenant": "north"}), Sample(5, {"tenant": "south"}))
    found = judge([_rule("age_seconds > 9 * 3600")], [ages])
    assert [one.summary for one in found.firing] == ["north is old"] and found.firing[0].cure == "do it"
    assert judge([_rule("age_seconds > 90000")], [ages]).quiet == ("A",)


def test_sums_and_labels_are_understood_and_what_needs_a_history_is_left() -> None:
    jobs = _family(
        "jobs", Sample(60, {"state": "queued"}), Sample(50, {"state": "queued"}), Sample(9, {"state": "done"})
    )
    assert judge([_rule('sum(jobs{state="queued"}) > 100')], [jobs]).firing
    assert not judge([_rule('sum(jobs{state="done"}) > 100')], [jobs]).firing
    assert judge([_rule("increase(jobs_total[1h]) > 3")], [jobs]).elsewhere == ("A",)


def test_every_alarm_that_is_shipped_is_judged_or_left_to_prometheus() -> None:
    rules = yaml.safe_load((PROJECT / "configs" / "alerts.yaml").read_text())["groups"][0]["rules"]
    found = judge(rules, [])
    assert len(found.quiet) + len(found.elsewhere) + len(found.firing) == len(rules)
    assert "DataIsOld" in found.quiet and "RefreshesFail" in found.elsewhere
