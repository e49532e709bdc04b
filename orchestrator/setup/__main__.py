"""`python -m orchestrator.setup`: prepare this machine, or with --check only say what is missing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator import config
from orchestrator.core.places import Places
from orchestrator.errors import OrchestratorError
from orchestrator.setup import deputy
from orchestrator.setup.options import SetupOptions, from_settings
from orchestrator.setup.plan import facts, remove, set_up
from orchestrator.setup.steps import CheckResult, to_stderr


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status: 0 when everything is ready."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.setup", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, only report")
    parser.add_argument("--tests", action="store_true", help="also what the tests need (a browser)")
    parser.add_argument("--compose", action="store_true", help="also what docker compose needs")
    parser.add_argument(
        "--remove", action="store_true", help="delete the installation, its data and the images only it uses"
    )
    parser.add_argument("--keep-images", action="store_true", help="with --remove: other installations use them")
    parser.add_argument("--yes", action="store_true", help="do not ask before deleting")
    parser.add_argument("--var", type=Path, default=None, help="where the installation keeps its data")
    wanted = parser.parse_args(arguments)
    try:
        options = replace(from_settings(config.load()), for_tests=wanted.tests, for_compose=wanted.compose)
    except OrchestratorError as failure:
        to_stderr(f"set-up stopped: {failure}")
        return 1
    if wanted.var is not None:
        options = replace(options, places=Places(wanted.var.resolve()))
    if not options.is_root:
        to_stderr(deputy.SENTENCE)
    if wanted.tests and not options.is_root and not wanted.check:
        to_stderr(
            "set-up stopped: the whole suite needs root, because it mounts volumes and gives files to other users."
            "\n  Run `make test-fast` as this user, or `make test` as root."
        )
        return 1
    if wanted.remove:
        return _removed(options, asked=not wanted.yes, keep_images=wanted.keep_images)
    try:
        if wanted.check:
            return _reported(facts(options))
        set_up(options)
    except OrchestratorError as failure:
        to_stderr(f"set-up stopped: {failure}")
        return 1
    return 0


def _reported(results: Sequence[CheckResult]) -> int:
    for result in results:
        to_stderr(described(result))
    return 0 if all(result.ok for result in results) else 1


def _removed(options: SetupOptions, *, asked: bool, keep_images: bool) -> int:
    var = options.places.var
    if asked:
        sys.stderr.write(f"Delete everything of the installation in {var}, data included? Type yes: ")
        sys.stderr.flush()
        if sys.stdin.readline().strip() != "yes":
            to_stderr("nothing was deleted")
            return 1
    try:
        remove(options, keep_images=keep_images)
    except OrchestratorError as failure:
        to_stderr(f"not everything could be deleted: {failure}")
        return 1
    return 0


def described(result: CheckResult) -> str:
    """One check as a line for people."""
    if result.ok:
        return f"ok    {result.name}" + (f": {result.note}" if result.note else "")
    return f"FAIL  {result.name}: {result.cause}\n      {result.cure}"


if __name__ == "__main__":
    sys.exit(main())
