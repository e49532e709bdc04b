"""A step of set-up, and running steps in order. The same checks are what `doctor` repeats later."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.errors import OrchestratorError, OutsideFailure

Progress = Callable[[str], None]


class SetupFailed(OutsideFailure):
    code = "outside_failure.setup"


@dataclass(frozen=True)
class CheckResult:
    """One fact about this machine. `cause` and `cure` say why it is not so and what to do; `note` adds to a yes."""

    name: str
    ok: bool
    cause: str = ""
    cure: str = ""
    note: str = ""


class Check(Protocol):
    """A question about this machine."""

    @property
    def name(self) -> str: ...

    def check(self) -> CheckResult: ...


class Step(Check, Protocol):
    """Something that must be true here. `do` is called only when `check` says it is not."""

    def do(self, progress: Progress) -> None:
        """Make it true. Raises an OrchestratorError that says what to do when it cannot."""
        ...


def to_stderr(text: str) -> None:
    """Progress for people: stdout is for results."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def check_all(checks: Sequence[Check]) -> list[CheckResult]:
    """Every check, changing nothing; one that raises is a check that failed."""
    return [_checked(check) for check in checks]


def run_all(steps: Sequence[Step], progress: Progress = to_stderr) -> list[CheckResult]:
    """Make every step true, in order. Raises SetupFailed at the first that cannot be."""
    results = []
    for number, step in enumerate(steps, start=1):
        label = f"[{number}/{len(steps)}] {step.name}"
        result = _checked(step)
        if not result.ok:
            progress(f"{label}: {result.cause or 'not yet'} …")
            started = time.monotonic()
            step.do(lambda text: progress(f"      {text}"))
            result = _checked(step)
            if not result.ok:
                raise SetupFailed(f"{step.name}: {result.cause}", next_step=result.cure)
            label = f"{label} (took {time.monotonic() - started:.0f} s)"
        progress(f"{label}: ok" + (f", {result.note}" if result.note else ""))
        results.append(result)
    return results


def _checked(step: Check) -> CheckResult:
    try:
        return step.check()
    except OrchestratorError as failure:
        cause = " ".join(part for part in (failure.message, failure.effect) if part)
        return CheckResult(step.name, False, cause, failure.next_step)
