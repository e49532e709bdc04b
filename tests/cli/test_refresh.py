"""The command line of refreshes and jobs refuses what it cannot mean, before it opens anything."""

from __future__ import annotations

from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from orchestrator.cli.app import create
from orchestrator.config import PROJECT


@pytest.mark.parametrize(
    "arguments",
    [
        ("refresh", "run"),
        ("refresh", "run", "north", "--all"),
        ("refresh", "run", "--all", "--snapshot", "s1"),
        ("refresh", "run", "north", "--scheduled"),
        ("refresh", "restore", "north"),
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
    verbs = {
        "refresh": ("run", "undo", "restore", "history", "schedule", "postpone"),
        "job": ("list", "show", "wait", "cancel"),
    }
    assert all(verb in shown for verb in verbs[noun])


def _crontab() -> list[list[str]]:
    lines = (PROJECT / "cron/crontab").read_text().splitlines()
    return [line.split()[5:] for line in lines if line[:1].isdigit() or line[:1] == "*"]


def test_the_crontab_says_what_the_command_line_understands_and_nobody_is_asked() -> None:
    asked = _crontab()
    assert {tuple(one[2:4]) for one in asked} == {
        ("snapshot", "take"),
        ("snapshot", "prune"),
        ("refresh", "run"),
        ("branch", "publish"),
    }
    for user, program, *arguments in asked:
        assert (user, program) == ("root", "orchestrator")
        command: Any = typer.main.get_command(create())
        context = command.context_class(command)
        while hasattr(command, "resolve_command"):
            _, found, arguments = command.resolve_command(context, arguments)
            assert found is not None
            command = found
        parsed = command.make_context(None, arguments, parent=context)
        assert parsed.params.get("yes", True), f"cron cannot answer: {arguments}"
