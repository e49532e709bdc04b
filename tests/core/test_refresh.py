"""What a refresh will cost is foreseen, and the link decides what an interrupted one needs."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from orchestrator.core.refresh import (
    DiskForecastExceeded,
    Recovery,
    Refresh,
    RefreshKind,
    RefreshState,
    RefreshStep,
    check_disk,
    forecast_bytes,
    recovery,
)

GIB = 1 << 30


def _refresh(step: RefreshStep) -> Refresh:
    return Refresh(
        id="r1",
        tenant_id="t1",
        kind=RefreshKind.REFRESH,
        state=RefreshState.RUNNING,
        step=step,
        requested_by="scheduler",
        reason="",
        job_id=None,
        snapshot_id="s1",
        generation_id="g2",
        previous_id="g1",
        draft_id=None,
        carried=None,
        timings={},
        gap_s=None,
        ended_sessions=0,
        error_code=None,
        error=None,
        recovered=False,
        started_at=datetime.now(UTC),
        finished_at=None,
    )


@pytest.mark.parametrize("step", list(RefreshStep))
def test_the_link_alone_decides(step: RefreshStep) -> None:
    assert recovery(_refresh(step), "g2") is Recovery.FINISH
    assert recovery(_refresh(step), "g1") is Recovery.UNDO
    assert recovery(_refresh(step), None) is Recovery.UNDO


def test_a_copy_that_shares_blocks_costs_little_and_a_full_one_its_size() -> None:
    shared = forecast_bytes(10 * GIB, is_reflink=True)
    assert shared < GIB < 10 * GIB < forecast_bytes(10 * GIB, is_reflink=False)
    assert forecast_bytes(10 * GIB, is_reflink=True, copies=4) == 4 * shared


def test_what_would_not_fit_is_refused_with_the_numbers() -> None:
    check_disk(free_bytes=20 * GIB, total_bytes=100 * GIB, snapshot_bytes=10 * GIB, is_reflink=False)
    with pytest.raises(DiskForecastExceeded, match="cannot share blocks") as refused:
        check_disk(free_bytes=20 * GIB, total_bytes=100 * GIB, snapshot_bytes=16 * GIB, is_reflink=False)
    assert refused.value.fields["free_bytes"] == 20 * GIB
    with pytest.raises(DiskForecastExceeded):
        check_disk(free_bytes=5 * GIB, total_bytes=100 * GIB, snapshot_bytes=GIB, is_reflink=True)
