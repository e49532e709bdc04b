"""A changeset on a terminal: colours where there is one, plain text in a pipe, never a raw control character."""

from __future__ import annotations

import io
from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.changeset.risks import Risk, Severity
from orchestrator.core.changeset.rows import RowKind
from orchestrator.core.changeset.summary import summarize
from orchestrator.core.changeset.view import ViewCell, ViewRow, ViewTable, shown, view_table

ROWS_SHOWN = 50
CELL_LENGTH = 60
_SIGNS = {RowKind.INSERT: ("+", "green"), RowKind.UPDATE: ("~", "yellow"), RowKind.DELETE: ("-", "red")}
_SEVERITY_STYLES = {Severity.BLOCKING: "bold red", Severity.WARNING: "yellow", Severity.NOTICE: "dim"}


def render(changeset: Changeset, risks: tuple[Risk, ...] = (), *, rows_shown: int = ROWS_SHOWN) -> RenderableType:
    """Something a rich console prints. At most `rows_shown` rows per table."""
    return Group(*_parts(changeset, risks, rows_shown))


def render_text(
    changeset: Changeset,
    risks: tuple[Risk, ...] = (),
    *,
    colour: bool = False,
    width: int = 120,
    rows_shown: int = ROWS_SHOWN,
) -> str:
    """The same as a string, with escape sequences only when `colour` is asked for."""
    buffer = io.StringIO()
    console = Console(
        file=buffer,
        force_terminal=colour,
        color_system="standard" if colour else None,
        width=width,
        legacy_windows=False,
        emoji=False,
        markup=False,
        highlight=False,
    )
    console.print(render(changeset, risks, rows_shown=rows_shown))
    return buffer.getvalue()


def _parts(changeset: Changeset, risks: tuple[Risk, ...], rows_shown: int) -> Iterator[RenderableType]:
    summary = summarize(changeset)
    yield Text(str(summary), style="bold")
    yield Text(f"Base {changeset.base_snapshot_id}, digest {changeset.digest()[:16]}", style="dim")
    for risk in risks:
        yield Text(f"! {shown(risk.sentence)}", style=_SEVERITY_STYLES[risk.severity])
    for change in changeset.schema_changes:
        yield Text(f"schema: {shown(str(change.table))}: {change.kind}: {shown(change.detail)}", style="magenta")
    for shape in changeset.tables:
        yield Text("")
        yield _table(view_table(changeset, shape.table, limit=rows_shown, length_max=CELL_LENGTH))
    for note in changeset.notes:
        yield Text(shown(note), style="dim")


def _table(page: ViewTable) -> RenderableType:
    title = f"{shown(str(page.table))} ({page.total:,})"
    table = Table(title=Text(title, style="bold"), title_justify="left", box=None, pad_edge=False, show_edge=False)
    table.add_column("")
    for name in page.columns:
        table.add_column(Text(shown(name), style="underline" if name in page.key_columns else ""), overflow="fold")
    for row in page.rows:
        sign, style = _SIGNS[row.kind]
        table.add_row(Text(sign, style=style), *(_cell(row, cell) for cell in row.cells))
    if page.more:
        return Group(table, Text(f"… and {page.total - len(page.rows):,} more rows", style="dim"))
    return table


def _cell(row: ViewRow, cell: ViewCell) -> Text:
    if row.kind is RowKind.INSERT:
        return Text(cell.new or "", style="green")
    if row.kind is RowKind.DELETE:
        return Text(cell.old or "", style="red")
    if not cell.changed:
        return Text(cell.old or "", style="" if cell.is_key else "dim")
    return Text.assemble((cell.old or "", "red strike"), (" → ", "dim"), (cell.new or "", "green"))
