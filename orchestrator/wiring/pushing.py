"""Whether the key that publishes can move production's branch: what `doctor` says about the company's repository."""

from __future__ import annotations

from pathlib import Path

from orchestrator.config import Settings
from orchestrator.errors import OrchestratorError
from orchestrator.setup.steps import CheckResult
from orchestrator.wiring.drivers import company_repository, push_keys

NAME = "push keys"


def push_results(settings: Settings) -> list[CheckResult]:
    """One line: enforced and tried, held by the company's own remote, or a convention."""
    branch, production = settings.branch, settings.branch.production
    if not branch.remote:
        return [_own(settings)]
    publish, merge = branch.publish_credential_file, branch.merge_credential_file
    if publish is None or merge is None:
        note = (
            "conventional: publishes and promotes push with the same rights, so that only a promote moves "
            f"{production} is this product's habit. Set branch.publish_credential_file and "
            f"branch.merge_credential_file, and protect {production} on the remote"
        )
        return [CheckResult(NAME, True, note=note)]
    if _is_same(publish, merge):
        cure = f"Use two keys, and let the one of publishes write tenant/* alone on the remote, never {production}."
        return [CheckResult(NAME, False, "publishes and promotes use the same key.", cure)]
    note = (
        f"two keys; that the one of publishes cannot move {production} is held by the remote, and not tried from here"
    )
    return [CheckResult(NAME, True, note=note)]


def _own(settings: Settings) -> CheckResult:
    if not (company_repository(settings.places) / "HEAD").exists():
        return CheckResult(NAME, True, note="not checked: there is no repository yet")
    keys = push_keys(settings)
    try:
        holds, evidence = keys.probe()
    except (OrchestratorError, OSError) as error:
        return CheckResult(NAME, False, str(error), "Look at the repository's hook: `orchestrator up` writes it again.")
    if not holds:
        return CheckResult(NAME, False, evidence, "Look at the repository's hook: `orchestrator up` writes it again.")
    return CheckResult(NAME, True, note=f"enforced: {evidence}")


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.resolve() == other.resolve() or one.read_bytes() == other.read_bytes()
    except OSError:
        return False
