"""Profiles: sizes and durations as people write them, nothing beyond the host, no key nobody knows."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from orchestrator.core.limits import BeyondHost, Limits, Profile, UnknownProfile


def test_sizes_and_durations_are_read_as_written() -> None:
    values = {"database": {"memory": "1.5 GiB", "statement_timeout": "5 min"}, "workspace": "512 MiB"}
    profile = Profile.model_validate(values)
    assert profile.database_limits.memory_bytes == 3 * 2**29
    assert profile.database_limits.statement_timeout_s == 300
    assert profile.workspace == 2**29


@pytest.mark.parametrize(
    "values",
    [
        {"database": {"memory": "1 gigabyte"}},
        {"database": {"durability": "not full"}},
        {"database": {"statement_timeout": "soon"}},
        {"sandbox": {"memory": "1 MiB"}},
        {"sandbox": {"cpu": 1}},
    ],
)
def test_what_cannot_be_meant_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Profile.model_validate(values)


def test_a_profile_larger_than_the_machine_is_refused() -> None:
    with pytest.raises(BeyondHost, match="exceed this machine"):
        Profile().check_host(memory_bytes=2**28, cpus=8)


def test_an_unknown_profile_names_the_ones_there_are() -> None:
    with pytest.raises(UnknownProfile, match="office"):
        Limits().profile("nothing")
