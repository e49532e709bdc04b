"""`orchestrator file …`: a workspace's files, by the same rules as over the API."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import session
from orchestrator.cli.output import Form, FormOption, YesOption, confirm, say, show_one, show_rows, write_json
from orchestrator.core.ports.files import READ_BYTES_MAX, WRITE_BYTES_MAX, Entry, FilePart
from orchestrator.errors import InvalidInput
from orchestrator.store import tenants

app = typer.Typer(no_args_is_help=True, help="The files of a tenant's workspace, as far as the allowlist lets them.")
Name = Annotated[str, typer.Argument(help="the tenant's name")]
PathIn = Annotated[str, typer.Argument(help="the path in the workspace")]
EXPECTED = "--expected-digest"
Expected = Annotated[str | None, typer.Option(EXPECTED, help="write only if this was read; empty: if there is none")]
COLUMNS = ("path", "kind", "size_bytes", "changed_at")


class LocalFileProblem(InvalidInput):
    """The file on this side cannot be read or written."""

    code = "invalid.local_file"


@app.command("list", epilog="Example: orchestrator file list north reports")
def list_(
    name: Name,
    path: Annotated[str, typer.Argument(help="a directory of the workspace")] = "",
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="with everything below")] = False,
    form: FormOption = Form.TABLE,
) -> None:
    """Names in a directory; links are shown and never followed."""
    with session.opened() as services:
        tenant = tenants.named(services.store, name)
        found = services.files.entries(tenant, path, actor=session.principal().actor, recursive=recursive)
    _entries(found.entries, found.truncated, form)


@app.command(epilog="Example: orchestrator file glob north '**/*.sql'")
def glob(
    name: Name,
    pattern: Annotated[str, typer.Argument(help="* within a name, ** over directories")],
    form: FormOption = Form.TABLE,
) -> None:
    """Paths that match a pattern."""
    with session.opened() as services:
        tenant = tenants.named(services.store, name)
        found = services.files.glob(tenant, pattern, actor=session.principal().actor)
    _entries(found.entries, found.truncated, form)


@app.command(epilog='Example: orchestrator file search north "price_of"')
def search(
    name: Name,
    text: Annotated[str, typer.Argument(help="what to look for, literally")],
    under: Annotated[str, typer.Option(help="only below this directory")] = "",
    form: FormOption = Form.TABLE,
) -> None:
    """Lines that hold a text."""
    with session.opened() as services:
        tenant = tenants.named(services.store, name)
        found = services.files.search(tenant, text, actor=session.principal().actor, under=under)
    show_rows(found.matches, ("path", "line", "text"), form, empty=f"not found in {found.files_searched} files")
    if found.truncated:
        say("there is more: look below a directory with --under")


@app.command(epilog="Example: orchestrator file read north backoffice/main.py")
def read(
    name: Name,
    path: PathIn,
    offset: Annotated[int, typer.Option(min=0, help="the first byte")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=READ_BYTES_MAX, help="how many bytes")] = READ_BYTES_MAX,
    form: FormOption = Form.TABLE,
) -> None:
    """Print some bytes of a file as they are; -o json adds its size and digest."""
    with session.opened() as services:
        tenant = tenants.named(services.store, name)
        part = services.files.read(tenant, path, actor=session.principal().actor, offset=offset, limit=limit)
    if form is Form.JSON:
        return write_json({**_part(part), "text": part.content.decode("utf-8", "replace"), "offset": part.offset})
    _print(part.content)
    if part.offset + len(part.content) < part.size_bytes:
        say(f"{part.offset + len(part.content)} of {part.size_bytes} bytes; go on with --offset")


@app.command(epilog="Example: orchestrator file write north notes.txt < notes.txt")
def write(name: Name, path: PathIn, expected_digest: Expected = None, form: FormOption = Form.TABLE) -> None:
    """Replace or create a file with what comes on standard input."""
    content = sys.stdin.buffer.read(WRITE_BYTES_MAX + 1)
    _write(name, path, content, expected_digest, form)


@app.command(epilog="Example: orchestrator file edit north backoffice/main.py --old 'Rate' --new 'Price'")
def edit(
    name: Name,
    path: PathIn,
    old: Annotated[str, typer.Option(help="what stands in the file exactly once")],
    new: Annotated[str, typer.Option(help="what shall stand there")],
    form: FormOption = Form.TABLE,
) -> None:
    """Replace a text that stands in the file exactly once."""
    with session.opened() as services:
        tenant = tenants.named(services.store, name)
        done = services.files.edit(tenant, path, old, new, actor=session.principal().actor)
    show_one(_part(done), form)


@app.command(epilog="Example: orchestrator file upload north prices.csv reports/prices.csv")
def upload(
    name: Name,
    source: Annotated[Path, typer.Argument(help="a file on this side")],
    path: Annotated[str, typer.Argument(help="where it goes in the workspace; its own name if not given")] = "",
    expected_digest: Expected = None,
    form: FormOption = Form.TABLE,
) -> None:
    """Copy a file from here into the workspace."""
    try:
        with source.open("rb") as file:
            content = file.read(WRITE_BYTES_MAX + 1)
    except OSError as error:
        raise LocalFileProblem(
            f"{str(source)!a} cannot be read: {error.strerror}.", effect="Nothing was written."
        ) from error
    _write(name, path or source.name, content, expected_digest, form)


@app.command(epilog="Example: orchestrator file download north reports/prices.csv prices.csv")
def download(
    name: Name,
    path: PathIn,
    target: Annotated[Path, typer.Argument(help="where it goes on this side; - prints it")] = Path("-"),
    force: Annotated[bool, typer.Option("--force", help="replace what is there")] = False,
) -> None:
    """Copy a file from the workspace to here."""
    with session.opened() as services:
        tenant = tenants.named(services.store, name)
        size_bytes, pieces = services.files.download(tenant, path, actor=session.principal().actor)
        if str(target) == "-":
            for piece in pieces:
                _print(piece)
            return
        try:
            with target.open("wb" if force else "xb") as file:
                for piece in pieces:
                    file.write(piece)
        except OSError as error:
            next_step = "Name another file, or add --force." if isinstance(error, FileExistsError) else ""
            raise LocalFileProblem(
                f"{str(target)!a} cannot be written: {error.strerror}.", next_step=next_step
            ) from error
    say(f"{size_bytes} bytes")


@app.command(epilog="Example: orchestrator file delete north notes.txt --yes")
def delete(name: Name, path: PathIn, yes: YesOption = False) -> None:
    """Delete one file or link; what was published stays in git."""
    confirm(f"Delete {path!a} in the workspace of {name!a}?", yes)
    with session.opened() as services:
        tenant = tenants.named(services.store, name)
        services.files.delete(tenant, path, actor=session.principal().actor)
    say("deleted")


def _write(name: str, path: str, content: bytes, expected_digest: str | None, form: Form) -> None:
    with session.opened() as services:
        tenant = tenants.named(services.store, name)
        actor = session.principal().actor
        done = services.files.write(tenant, path, content, actor=actor, expected_digest=expected_digest)
    show_one(_part(done), form)


def _entries(entries: tuple[Entry, ...], truncated: bool, form: Form) -> None:
    show_rows(entries, COLUMNS, form, empty="nothing there")
    if truncated:
        say("there is more: name a directory, or a narrower pattern")


def _part(part: FilePart) -> dict[str, object]:
    return {"path": part.path, "size_bytes": part.size_bytes, "digest": part.digest}


def _print(content: bytes) -> None:
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()
