"""Pure: a unified diff as lines a template can colour, never as markup."""

from __future__ import annotations

from dataclasses import dataclass

HEADS = ("diff ", "index ", "+++", "---", "new file", "deleted file", "rename ", "similarity ", "old mode")
LINES_MAX = 4_000
LINE_LENGTH_MAX = 500


@dataclass(frozen=True)
class PatchLine:
    """`kind` is file, place, added, removed or same."""

    kind: str
    text: str


def patch_lines(text: str) -> list[PatchLine]:
    """At most LINES_MAX lines, each cut; what was left out is said at the end."""
    found: list[PatchLine] = []
    lines = text.split("\n")
    for line in lines[:LINES_MAX]:
        found.append(PatchLine(_kind(line), line[:LINE_LENGTH_MAX]))
    if len(lines) > LINES_MAX:
        found.append(PatchLine("place", f"… {len(lines) - LINES_MAX:,} more lines are left out here"))
    return found


def _kind(line: str) -> str:
    if line.startswith(
        ("diff ", "index ", "+++", "---", "new file", "deleted file", "rename ", "similarity ", "old mode")
    ):
        return "file"
    if line.startswith("@@"):
        return "place"
    return "added" if line.startswith("+") else "removed" if line.startswith("-") else "same"
