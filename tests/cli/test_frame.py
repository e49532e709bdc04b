"""The command line's frame: results on stdout, the rest on stderr, exit codes by family."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.cli import exits, output
from orchestrator.cli.output import Form
from orchestrator.core.access import ScopeMissing
from orchestrator.core.tenants import TenantExists, TenantMissing, TenantsMax
from orchestrator.errors import InvalidInput, OrchestratorError, OutsideFailure


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "COLUMNS": "200", **environment},
        check=False,
    )


def test_help_teaches_every_noun() -> None:
    said = run("--help")
    assert said.returncode == 0
    for word in ("tenant", "user", "token", "config", "up", "down", "demo", "Exit codes"):
        assert word in said.stdout


def test_unknown_words_are_usage_errors_on_stderr() -> None:
    said = run("tenant", "explode")
    assert (said.returncode, said.stdout) == (2, "")
    assert "explode" in said.stderr


def test_a_broken_configuration_is_an_error_with_a_code_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "orchestrator.yaml").write_text("colour: red\n")
    said = run("--configs", str(tmp_path), "tenant", "list")
    assert (said.returncode, said.stdout) == (2, "")
    assert "colour is not a known key" in said.stderr and "code: invalid.configuration" in said.stderr
    assert "Traceback" not in said.stderr


def test_the_configuration_that_comes_along_is_in_order() -> None:
    said = run("config", "check")
    assert said.returncode == 0 and "allowlist.yaml" in said.stderr
    shown = json.loads(run("config", "show", "-o", "json").stdout)
    assert shown["proxy"]["domain"] == "localhost"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidInput("x"), 2),
        (ScopeMissing("x"), 3),
        (TenantMissing("x"), 4),
        (TenantExists("x"), 5),
        (TenantsMax("x"), 6),
        (OutsideFailure("x"), 7),
        (OrchestratorError("x"), 1),
    ],
)
def test_exit_codes_follow_the_family(error: OrchestratorError, code: int) -> None:
    assert exits.code_of(error) == code


@dataclass(frozen=True)
class Row:
    name: str
    at: datetime
    note: str | None


def test_a_table_is_for_people_and_json_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        Row("harbour", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), None),
        Row("b", datetime(2026, 1, 2, tzinfo=UTC), "x"),
    ]
    output.show_rows(rows, ("name", "note"), Form.TABLE)
    assert capsys.readouterr().out == "NAME     NOTE\nharbour  -\nb        x\n"
    output.show_rows(rows, ("name",), Form.JSON)
    assert json.loads(capsys.readouterr().out)[0] == {"name": "harbour", "at": "2026-01-02T03:04:05Z", "note": None}


def test_nothing_a_terminal_obeys_gets_through() -> None:
    assert output.cell("a\x1b[2Jb\nc\u202ed") == "a\\x1b[2Jb\\nc\\u202ed"


def test_what_is_lost_is_asked_about_first(tmp_path: Path) -> None:
    with pytest.raises(output.NotConfirmed, match="Nobody could be asked"):
        output.confirm("Delete it?", yes=False)
    output.confirm("Delete it?", yes=True)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--timeout", "0"), "timeout_s"),
        (("--timeout", "inf"), "timeout_s"),
        (("--network", "WIDE open"), "network"),
        (("--cwd", "/" * 5_000), "cwd"),
        (("--approval", "k" * 50), "approval"),
    ],
)
def test_an_option_out_of_its_bounds_is_named_and_nothing_runs(options: tuple[str, ...], named: str) -> None:
    said = run("command", "run", "harbour", *options, "--", "ls")
    assert said.returncode == exits.CODES[InvalidInput]
    assert said.stderr.startswith(f"error: {named}: ") and "code: invalid.command" in said.stderr
    assert "Traceback" not in said.stderr
