"""The corpus: every row is decided as it says, by the shipped allowlist and one rule that is stricter than it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from orchestrator.core.allowlist.decide import Gate
from orchestrator.core.allowlist.errors import InvalidArgv
from orchestrator.core.allowlist.load import load
from orchestrator.core.allowlist.request import CommandRequest
from orchestrator.core.allowlist.rules import Decision
from orchestrator.drivers.workspace.links import HostLinks

HERE = Path(__file__).parent
SHIPPED = HERE.parents[2] / "configs" / "allowlist.yaml"
# The corpus asks a person before every commit; rules only ever add strictness, so one more rule says so.
STRICTER = """
  - id: git.commit.ask
    program: git
    subcommand: [commit]
    flags: {-m: {value: text, required: true}}
    decision: approval
    reason: A person sees every commit first.
    match: [git commit -m m]
"""


def _rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = yaml.safe_load((HERE / "corpus.yaml").read_text())["rows"]
    return rows


def _cases() -> Iterator[Any]:
    for row in _rows():
        for number, case in enumerate(row.get("cases", ())):
            yield pytest.param(row["expect"], case, id=f"{row['n']}-{row['expect']}-{number}")


@pytest.fixture(scope="module")
def gate() -> Gate:
    return load(SHIPPED.read_text() + STRICTER, source="corpus").gate(profile="office", tenant="north")


@pytest.fixture(scope="module")
def links(tmp_path_factory: pytest.TempPathFactory) -> HostLinks:
    workspace = tmp_path_factory.mktemp("workspace")
    (workspace / "notes.txt").write_text("x")
    (workspace / "inside").mkdir()
    (workspace / "inside" / "notes.txt").write_text("x")
    (workspace / "inward-link").symlink_to("/workspace/notes.txt")
    (workspace / "inward-directory").symlink_to("inside")
    (workspace / "outward-link").symlink_to("/etc/passwd")
    (workspace / "outward-directory").symlink_to("/etc")
    (workspace / "link-to-link").symlink_to("outward-link")
    (workspace / "winding").symlink_to("outward-directory/../etc/passwd")
    os.mkfifo(workspace / "fifo")
    return HostLinks({"/workspace": workspace})


def _filled(argument: str) -> list[str]:
    match argument:
        case "{many}":
            return ["x"] * 5_000
        case "{large}":
            return ["x" * 1_000_000]
        case "{binary}":
            return ["\udcff\udcfe"]
    return [argument]


def _decide(gate: Gate, links: HostLinks, case: Any) -> Decision:
    """Decide like the product does: what cannot become a request at all is denied."""
    values = dict(case) if isinstance(case, dict) else {"argv": case}
    if not isinstance(values["argv"], str):
        values["argv"] = [filled for argument in values["argv"] for filled in _filled(argument)]
    values["stdin"] = "x" * values.pop("stdin_bytes", 0)
    values.update(values.pop("extra", {}))
    try:
        request = CommandRequest.model_validate(values)
    except (InvalidArgv, ValidationError):
        return Decision.DENY
    return gate.decide(request, links).decision


@pytest.mark.parametrize(("expect", "case"), list(_cases()))
def test_row(gate: Gate, links: HostLinks, expect: str, case: Any) -> None:
    assert _decide(gate, links, case) is Decision(expect)


def test_every_row_is_here_and_says_who_tries_it() -> None:
    assert {row["n"] for row in _rows()} == set(range(1, 109))
    assert all(row.get("cases") or row.get("by") for row in _rows())


def test_the_shipped_file_lets_agents_commit_to_their_own_branch() -> None:
    shipped = load(SHIPPED.read_text(), source="shipped").gate(profile="office", tenant="north")
    assert shipped.decide(CommandRequest(argv=("git", "commit", "-m", "m"))).decision is Decision.ALLOW
