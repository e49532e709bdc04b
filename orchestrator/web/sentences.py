"""Pure: what happened and what would happen, in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.core.actors import Actor
from orchestrator.core.changes import Change, ChangeEvent
from orchestrator.core.promotion.findings import FINDINGS
from orchestrator.web.wording import many

TABLES_NAMED = 3
EVENTS: Mapping[str, str] = {
    "change.drafted": "kept it as a draft",
    "change.edited": "edited the draft",
    "change.blocked": "tried to submit it; a check stood in the way",
    "change.submitted": "submitted it",
    "change.checked": "had every check made again",
    "change.commented": "commented",
    "change.approved": "approved it",
    "change.rejected": "rejected it",
    "change.returned": "asked for changes",
    "change.withdrawn": "withdrew it",
    "change.rebased": "moved it onto newer data",
    "change.expired": "it waited too long",
    "change.conflicted": "tried to promote it; production had moved on",
    "change.promoted": "promoted it: it is in production",
    "change.promote_failed": "tried to promote it; nothing was written",
    "change.reverted": "reverted it: production is as before",
    "change.revert_failed": "tried to revert it; nothing was written",
    "change.revert_conflicted": "tried to revert it; production had moved on",
    "change.merged": "holds it now: somebody merged it there",
    "change.code_merged": "holds its code now: somebody merged it there",
}
CHECKS: Mapping[str, tuple[str, str]] = {
    "rules": ("Rules", "What may be promoted at all, by the company's rules"),
    "production": ("Production now", "Whether anybody changed the same rows since the snapshot"),
    "rehearsal": ("Rehearsal", "The exact rows written to a throw-away copy, with its real constraints and triggers"),
    "production_rehearsal": ("Rehearsal on production", "The exact rows written to production and rolled back"),
    "code": ("Code", "Whether the code merges into production's branch"),
    "rebase": ("Moved onto newer data", "Rows that could not be carried over"),
    "promote": ("The last try to promote", "What stood in the way"),
}


@dataclass(frozen=True)
class TimelineEntry:
    at: datetime
    who: str
    is_agent: bool
    said: str
    note: str
    kind: str


@dataclass(frozen=True)
class CheckView:
    name: str
    title: str
    about: str
    blocking: int
    told: int
    skipped: str
    findings: list[Mapping[str, Any]]
    left_out: int
    document: Mapping[str, Any]

    @property
    def tone(self) -> str:
        return "bad" if self.blocking else "warn" if self.told or self.skipped else "good"

    @property
    def verdict(self) -> str:
        if self.blocking:
            return f"{many(self.blocking, 'finding')} in the way"
        if self.skipped:
            return "not made"
        return f"{many(self.told, 'remark')}" if self.told else "nothing found"


def of_change(change: Change) -> str:
    """`3 rows in 2 tables: 1 new, 2 changed; and code.`"""
    counts = (("new", change.counts.inserted), ("changed", change.counts.updated), ("deleted", change.counts.deleted))
    if not change.has_rows:
        return "Code only: no row of the data." if change.has_code else "It holds nothing yet."
    parts = ", ".join(f"{count:,} {word}" for word, count in counts if count)
    named = ", ".join(change.tables[:TABLES_NAMED])
    more = len(change.tables) - TABLES_NAMED
    where = f"{named} and {more} more" if more > 0 else named
    return f"{many(change.counts.total, 'row')} in {where}: {parts}{'; and code' if change.has_code else ''}."


def author(actor: Actor) -> str:
    return f"{actor.name} (agent)" if actor.is_agent else actor.name


def timeline(events: Iterable[ChangeEvent]) -> list[TimelineEntry]:
    """In order; comments stand beside it in full, so they are only named here."""
    return [
        TimelineEntry(
            at=event.at,
            who=event.actor.name,
            is_agent=event.actor.is_agent,
            said=EVENTS.get(event.kind, event.kind.replace("_", " ")),
            note=_note(event),
            kind=event.kind,
        )
        for event in events
    ]


def _note(event: ChangeEvent) -> str:
    data = event.data
    if event.kind == "change.approved" and data.get("needed", 1) != 1:
        return f"{data.get('approvals')} of {data['needed']} approvals"
    if event.kind == "change.rebased":
        return f"{data.get('conflicts', 0)} rows could not be carried over, {data.get('done', 0)} were there already"
    if event.kind == "change.blocked":
        return many(int(data.get("blocking", 0)), "finding")
    return str(data.get("reason") or data.get("by") or "")


def checks(change: Change) -> list[CheckView]:
    """Every check made, in reading order."""
    found = []
    for name, (title, about) in CHECKS.items():
        document = change.checks.get(name)
        if not isinstance(document, Mapping):
            continue
        found.append(
            CheckView(
                name=name,
                title=title,
                about=about,
                blocking=int(document.get("blocking", 0)),
                told=int(document.get("told", 0)),
                skipped=str(document.get("skipped", "")),
                findings=list(document.get("findings", ())),
                left_out=int(document.get("left_out_findings", 0)),
                document=document,
            )
        )
    return found


def meaning(code: str) -> str:
    """What a finding's code means in general."""
    return FINDINGS.get(code, "")
