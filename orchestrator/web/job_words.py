"""Pure: a job in the words of whoever asked for it: what it is, where it belongs, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.core.jobs import Job, JobState
from orchestrator.web.wording import duration, many

TITLES: Mapping[str, str] = {
    "refresh": "Refresh of the data",
    "snapshot": "A new snapshot of production",
    "publish": "Saving files to git",
    "prune": "Deleting snapshots nobody needs",
    "reconcile": "Looking after everything",
    "launch": "Launching the tenant",
    "start": "Starting the workspace",
    "stop": "Stopping the workspace",
    "remove": "Removing the tenant",
    "probe": "Probing the boundaries",
    "merge": "Bringing the files up to date",
    "submit": "Checking and submitting a change",
    "check": "Making every check again",
    "rebase": "Moving a change onto newer data",
    "rehearse": "Rehearsing a change",
    "promote": "Promoting a change to production",
    "revert": "Taking a change back out of production",
}
# Where a person may stop it while it runs; elsewhere stopping would leave something half done.
STOPPABLE = frozenset({"refresh", "snapshot"})
OF_A_CHANGE = frozenset({"submit", "check", "rebase", "rehearse", "promote", "revert"})
# What stood in the way is shown in full on the page it belongs to.
SHOWN_ELSEWHERE = frozenset({"conflict.blocked", "conflict.promotion"})
SAVED: Mapping[str, str] = {
    "published": "Your files are saved to your branch in git.",
    "unchanged": "Nothing had changed since the last save.",
    "pending": "Your files are saved here; the company's git server could not be reached and is tried again.",
}


def title(job: Job) -> str:
    """What kind of work it is, as people say it."""
    if job.kind == "refresh" and job.arguments.get("undo"):
        return "Back to the earlier database"
    return TITLES.get(job.kind, job.kind.replace("_", " ").capitalize())


def home(job: Job, tenant_name: str | None) -> tuple[str, str]:
    """The page it belongs to, and what to call the way there."""
    change_id = job.arguments.get("change_id")
    if job.kind in OF_A_CHANGE and isinstance(change_id, str):
        is_found = job.kind in ("check", "rehearse", "rebase") or job.state is JobState.FAILED
        place = "#checks" if is_found and job.kind != "revert" else ""
        return f"/changes/{change_id}{place}", "To the change"
    back = job.arguments.get("back")
    if isinstance(back, str) and back.startswith("/") and not back.startswith("//"):
        return back, "Go on"
    if job.kind in ("snapshot", "prune"):
        return "/snapshots", "To the snapshots"
    if tenant_name:
        return f"/workspaces/{tenant_name}", "To the workspace"
    return "/", "To the start page"


def outcome(job: Job, tenant_name: str | None) -> tuple[str, str]:
    """What came of it in a sentence, and its tone (good, warn, bad)."""
    if job.state is JobState.FAILED and job.error_code == "conflict.blocked":
        return f"{job.error} It stays a draft; the findings stand below.", "bad"
    if job.state is JobState.FAILED and job.error_code == "conflict.promotion":
        if job.kind == "revert":
            return "Production changed some of these rows since, so nothing was written. See the timeline.", "bad"
        return "Production had moved on, so nothing was written. Both values stand below, row by row.", "bad"
    if job.state is JobState.FAILED:
        said = " ".join(part for part in (job.error or "It failed.", job.effect, job.next_step) if part)
        return said, "bad"
    if job.state is JobState.CANCELLED:
        return "It was stopped before it did anything that lasts.", "warn"
    return _done(job, tenant_name or "It", dict(job.result or {}))


def _done(job: Job, name: str, result: Mapping[str, Any]) -> tuple[str, str]:
    said = {
        "launch": f"{name} runs, and its address answers.",
        "start": f"{name} runs, and its address answers.",
        "stop": f"{name} is stopped. Its files and data are kept.",
        "remove": f"{result.get('tenant', name)} is removed. Its published branch and its records stay.",
        "merge": "Your files now hold production's newest code too.",
        "check": "Every check was made again; nothing stands in the way.",
    }.get(job.kind, "")
    if job.kind == "launch" and result.get("manager"):
        return f"{said} {result['manager']} may use it.", "good"
    if job.kind == "refresh":
        return _refreshed(job, result), "good"
    if job.kind == "publish":
        state = str(result.get("state"))
        return SAVED.get(state, f"The save is {state}."), "warn" if state == "pending" else "good"
    if job.kind == "snapshot":
        return "The snapshot is taken. Tenants get its data at their next refresh.", "good"
    if job.kind == "prune":
        gone = len(result.get("snapshots") or ())
        return (f"{many(gone, 'snapshot')} deleted." if gone else "There was nothing to delete."), "good"
    if job.kind == "probe":
        broken = int(result.get("broken") or 0)
        if broken:
            return f"{broken} of its boundaries did not hold.", "bad"
        return "Every boundary that was tried held.", "good"
    if job.kind in OF_A_CHANGE and not (job.kind == "check" and not result.get("blocking")):
        return _changed(job, result)
    return said or "It is done.", "good"


def _refreshed(job: Job, result: Mapping[str, Any]) -> str:
    if job.arguments.get("undo"):
        return "You have the database from before the last refresh again."
    said = "Your data is rebuilt from the newest snapshot of production."
    gap_s = result.get("gap_s")
    if isinstance(gap_s, int | float):
        said += f" Whoever worked in the app waited {duration(gap_s)}."
    carried = str(result.get("carried") or "")
    if carried.startswith("saved as draft"):
        said += " Changes you had not proposed are saved as a draft."
    elif carried:
        said += f" {carried}"
    return said


def _changed(job: Job, result: Mapping[str, Any]) -> tuple[str, str]:
    if job.kind == "submit":
        if result.get("state") == "approved":
            return "Submitted, and approved by the company's rules. A reviewer can promote it.", "good"
        return "Submitted. The reviewers see it now; you are told here what they decide.", "good"
    if job.kind == "check":
        return f"{many(int(result.get('blocking') or 0), 'finding')} in the way.", "bad"
    if job.kind == "rebase":
        conflicts = int(result.get("conflicts") or 0)
        if conflicts:
            lost = many(conflicts, "row")
            return f"Moved onto newer data. {lost} could not be carried over; see below.", "warn"
        return "Moved onto newer data without a conflict. Submit it again when you are ready.", "good"
    if job.kind == "rehearse":
        where = "production, rolled back" if result.get("stage") == "production" else "a throw-away copy"
        if result.get("blocking"):
            return f"Rehearsed on {where}: something stands in the way.", "bad"
        return f"Rehearsed on {where}: it would go through.", "good"
    rows = many(int(result.get("written") or 0), "row")
    if job.kind == "promote":
        return f"Promoted. {rows} written to production in one transaction.", "good"
    return f"Reverted. {rows} of production are as they were before.", "good"
