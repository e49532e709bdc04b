"""Logs follow standard error wherever it goes, and never break what they report on."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator

import pytest

from orchestrator import logs


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    logs.configure(as_json=True)


def test_a_line_goes_to_the_standard_error_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    gone, now = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", gone)
    logs.configure(as_json=True)
    logger = logs.get("tests")
    logger.info("first.line", number=1)
    assert json.loads(gone.getvalue())["event"] == "first.line"
    gone.close()
    monkeypatch.setattr(sys, "stderr", now)
    logger.info("second.line", number=2)
    assert json.loads(now.getvalue()) | {"event": "second.line", "number": 2, "room": "tests"} == json.loads(
        now.getvalue()
    )


def test_lines_below_the_level_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    now = io.StringIO()
    monkeypatch.setattr(sys, "stderr", now)
    logs.configure(level="WARNING", as_json=True)
    logs.get("tests").info("too.quiet")
    assert now.getvalue() == ""
