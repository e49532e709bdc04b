"""`orchestrator snapshot …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import session
from orchestrator.cli.output import Form, FormOption, YesOption, confirm, say, show_one, show_rows
from orchestrator.core.ports.snapshots import Source
from orchestrator.core.snapshots import Snapshot, SnapshotState, SnapshotStep

app = typer.Typer(no_args_is_help=True, help="Take, look at and prune masked copies of production.")
COLUMNS = ("id", "profile", "state", "taken_at", "rows", "size_mb", "step", "error_message")
TABLE_COLUMNS = ("table", "source_rows", "restored_rows", "kept_rows")


@app.command(epilog="Example: orchestrator snapshot take --profile harbour")
def take(
    profile: Annotated[str, typer.Option(help="which rows, from configs/masking.yaml")] = "",
    dump: Annotated[
        Path | None, typer.Option(help="a pg_dump file (custom format) or directory instead of the mirror")
    ] = None,
    form: FormOption = Form.TABLE,
) -> None:
    """Copy production, mask it and put the copy in force; the last good one stays if anything goes wrong."""
    with session.opened() as services:
        source = Source(f"the dump {dump}", dump=dump.resolve()) if dump else services.source()
        taken = services.snapshots.take(
            source,
            profile=profile or services.settings.tenants.snapshot_profile,
            actor=session.principal().actor,
            on_step=Telling(),
        )
    show_one(_row(taken), form, columns=COLUMNS[:6])


@app.command("list")
def list_(
    profile: Annotated[str, typer.Option(help="of this profile only")] = "", form: FormOption = Form.TABLE
) -> None:
    """Every snapshot, newest first; failed and removed ones with what became of them."""
    with session.opened() as services:
        rows = [_row(snapshot) for snapshot in services.snapshots.listed(profile=profile or None)]
    show_rows(rows, COLUMNS, form, empty="no snapshots yet: orchestrator snapshot take")


@app.command()
def show(
    snapshot_id: Annotated[str, typer.Argument(metavar="ID", help="as `snapshot list` names it")],
    form: FormOption = Form.TABLE,
) -> None:
    """One snapshot: where it is from, what was masked, and how many rows each table has."""
    with session.opened() as services:
        snapshot = services.snapshots.get(snapshot_id)
    manifest = snapshot.manifest.document() if snapshot.manifest else {}
    if form is Form.JSON:
        return show_one({**_row(snapshot), "manifest": manifest or None}, form)
    counts = manifest.pop("tables", {})
    show_one({**_row(snapshot), **manifest}, form)
    show_rows([{"table": name, **report} for name, report in sorted(counts.items())], TABLE_COLUMNS, form)


@app.command()
def prune(
    keep: Annotated[int | None, typer.Option(min=1, max=1000, help="how many of each profile stay")] = None,
    yes: YesOption = False,
    form: FormOption = Form.TABLE,
) -> None:
    """Delete old snapshots that no database, draft or open change refers to."""
    with session.opened() as services:
        kept = keep or services.settings.snapshots.kept
        confirm(f"Delete all but the newest {kept} snapshot(s) of each profile that nothing refers to?", yes)
        removed = services.snapshots.prune(keep=kept, actor=session.principal().actor)
    show_rows([{"removed": snapshot_id} for snapshot_id in removed], ("removed",), form, empty="nothing to delete")


class Telling:
    """Progress on stderr: a line for every new step and every quarter of a long one."""

    def __init__(self) -> None:
        self.told: tuple[SnapshotStep | None, int] = (None, 0)

    def __call__(self, step: SnapshotStep, share: float, text: str) -> None:
        reached = (step, int(share * 4))
        if reached != self.told:
            self.told = reached
            say(f"  {step.value:<8} {text}")


def _row(snapshot: Snapshot) -> dict[str, object]:
    names = ("id", "profile", "state", "step", "source", "started_at", "taken_at", "finished_at")
    row: dict[str, object] = {name: getattr(snapshot, name) for name in names}
    if snapshot.state is not SnapshotState.FAILED:
        row["step"] = None if snapshot.state is not SnapshotState.BUILDING else snapshot.step
    manifest = snapshot.manifest
    row |= {"rows": manifest.rows if manifest else None, "size_mb": manifest.size_bytes >> 20 if manifest else None}
    return row | {"error_code": snapshot.error_code, "error_message": snapshot.error_message}
