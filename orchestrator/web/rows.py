"""Rows before → after for a page: by table, searched, a page at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from threading import Lock

from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.changeset.rows import RowChange, RowKind
from orchestrator.core.changeset.shape import TableName
from orchestrator.core.changeset.summary import Summary, TableSummary, summarize
from orchestrator.core.changeset.view import ViewTable, view_table
from orchestrator.web.paging import Page

FIRST_ROWS = 20
PAGE_ROWS = 100
SEARCH_LENGTH_MAX = 200
KEPT = 8


@dataclass(frozen=True)
class Section:
    """One table: its counts, and the rows shown of it. `page` is None while only its first rows are shown."""

    summary: TableSummary
    view: ViewTable
    page: Page | None

    @property
    def name(self) -> str:
        return str(self.summary.table)


@dataclass(frozen=True)
class Rows:
    summary: Summary
    sections: tuple[Section, ...]
    search: str
    table: str
    kind: str
    found: int
    path: str


def rows_of(changeset: Changeset, path: str, query: Mapping[str, str]) -> Rows:
    """What the page's query asks for: `table`, `kind`, `q` and `page`; anything senseless is left out."""
    summary = summarize(changeset)
    search = query.get("q", "").strip()[:SEARCH_LENGTH_MAX]
    kind = RowKind(query["kind"]) if query.get("kind") in set(RowKind) else None
    shown = _matching(changeset, search, kind)
    by_name = {str(one.table): one for one in summary.tables}
    chosen = query.get("table", "")
    wanted = [by_name[chosen]] if chosen in by_name else list(summary.tables)
    number = int(query["page"]) if query.get("page", "").isdecimal() and len(query["page"]) < 8 else 1
    sections = []
    for one in wanted:
        total = len(shown.rows_of(one.table))
        if not total and (search or kind):
            continue
        page = None
        is_narrowed = bool(search or kind or query.get("page"))
        if chosen or (len(summary.tables) == 1 and is_narrowed):
            kept = {"table": chosen, "q": search, "kind": kind.value if kind else ""}
            page = Page(max(number, 1), total, PAGE_ROWS, path, kept)
        sections.append(Section(one, _view(shown, one.table, page), page))
    return Rows(
        summary=summary,
        sections=tuple(sections),
        search=search,
        table=chosen if chosen in by_name else "",
        kind=kind.value if kind else "",
        found=len(shown.rows),
        path=path,
    )


def _view(changeset: Changeset, table: TableName, page: Page | None) -> ViewTable:
    if page is None:
        return view_table(changeset, table, limit=FIRST_ROWS)
    return view_table(changeset, table, offset=page.offset, limit=page.size)


def _matching(changeset: Changeset, search: str, kind: RowKind | None) -> Changeset:
    if not search and kind is None:
        return changeset
    wanted = search.casefold()
    rows = tuple(
        row for row in changeset.rows if (kind is None or row.kind is kind) and (not wanted or _holds(row, wanted))
    )
    return replace(changeset, rows=rows)


def _holds(row: RowChange, wanted: str) -> bool:
    return any(
        wanted in str(cell).casefold()
        for side in (row.old, row.new)
        if side is not None
        for cell in side.values()
        if cell is not None
    )


class Changesets:
    """The last few changesets that were looked at: paging through one does not unpack it anew each time."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], Changeset] = OrderedDict()
        self._lock = Lock()

    def get(self, change_id: str, rows_digest: str, load: Callable[[], Changeset]) -> Changeset:
        """By id and digest: other rows are another changeset."""
        key = (change_id, rows_digest)
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found
        loaded = load()
        with self._lock:
            self._kept[key] = loaded
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return loaded
