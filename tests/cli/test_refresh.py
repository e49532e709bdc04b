"""The command line of refreshes and jobs refuses what it cannot mean, before it opens anything."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from orchestrator.cli.app import create


@pytest.mark.parametrize(
    "arguments",
    [
        ("refresh", "run"),
        ("refresh", "run", "north", "--all"),
        ("refresh", "run", "--all", "--snapshot", "s1"),
        ("refresh", "history", "--limit", "0"),
        ("job", "wait", "j1", "--timeout", "0"),
        ("job", "list", "--state", "sleeping"),
    ],
)
def test_a_command_that_means_nothing_ends_with_2(arguments: tuple[str, ...]) -> None:
    assert CliRunner().invoke(create(), list(arguments)).exit_code == 2


@pytest.mark.parametrize("noun", ["refresh", "job"])
def test_help_names_every_verb(noun: str) -> None:
    shown = CliRunner().invoke(create(), [noun, "--help"]).output
    verbs = {"refresh": ("run", "undo", "history", "schedule", "postpone"), "job": ("list", "show", "wait", "cancel")}
    assert all(verb in shown for verb in verbs[noun])
