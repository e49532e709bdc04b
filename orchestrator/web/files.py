"""The workspace's files: look, edit, and compare with production."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.datastructures import UploadFile

from orchestrator.core.access import Scope
from orchestrator.core.ports.files import READ_BYTES_MAX, WRITE_BYTES_MAX, EditMismatch, EntryKind, FileTooLarge
from orchestrator.core.tenants import Tenant
from orchestrator.errors import InvalidInput, OrchestratorError
from orchestrator.web.patch import patch_lines
from orchestrator.web.visit import Visit, acting, reading

router = APIRouter(prefix="/workspaces/{name}/files", include_in_schema=False)
Reader = Annotated[Visit, reading(Scope.COMMANDS_RUN)]
Writer = Annotated[Visit, acting(Scope.COMMANDS_RUN)]
PathText = Annotated[str, Query(max_length=1024)]
EDITED_BYTES_MAX = 400_000
PATCH_BYTES_MAX = 400_000
FORM_BYTES = 64_000  # what a form needs around its file


@router.get("")
def browse(name: str, visit: Reader, path: PathText = "", find: Annotated[str, Query(max_length=200)] = "") -> Response:
    """One directory, or the lines that hold what is looked for."""
    tenant = visit.tenant(name)
    files = visit.services.files
    actor = visit.who.actor
    values: dict[str, Any] = {"matches": None, "listing": None}
    if find.strip():
        values["matches"] = files.search(tenant, find.strip(), actor=actor, under=path)
    else:
        values["listing"] = files.entries(tenant, path, actor=actor)
    branch = visit.services.publish.view(tenant)
    return visit.show(
        "files/browse.html",
        tenant=tenant,
        path=path,
        find=find.strip(),
        crumbs=crumbs(path),
        branch=branch,
        kinds=EntryKind,
        **values,
    )


def crumbs(path: str) -> list[tuple[str, str]]:
    """Each part of a path with the path up to it."""
    parts = [part for part in path.split("/") if part]
    return [(part, "/".join(parts[: number + 1])) for number, part in enumerate(parts)]


@router.get("/edit")
def edit(name: str, visit: Reader, path: PathText = "") -> Response:
    """One file as text; an empty name starts a new one."""
    tenant = visit.tenant(name)
    if not path:
        return _editor(visit, tenant, "", "", "")
    part = visit.services.files.read(tenant, path, actor=visit.who.actor, limit=READ_BYTES_MAX)
    try:
        text = part.content.decode()
    except UnicodeDecodeError:
        text = None
    if text is None or part.size_bytes > EDITED_BYTES_MAX or "\0" in text:
        return visit.show("files/binary.html", tenant=tenant, path=path, part=part, crumbs=crumbs(path))
    return _editor(visit, tenant, path, text, part.digest)


def _editor(
    visit: Visit, tenant: Tenant, path: str, text: str, digest: str, *, problem: Any = None, status: int = 200
) -> Response:
    return visit.show(
        "files/edit.html",
        status=status,
        tenant=tenant,
        path=path,
        text=text,
        digest=digest,
        problem=problem,
        crumbs=crumbs(path),
    )


@router.post("/edit")
def save(name: str, visit: Writer) -> Response:
    """Write it, unless it changed since it was read."""
    tenant = visit.tenant(name)
    path = visit.text("path", length_max=1024)
    given = visit.form.get("text", "")
    text = given.replace("\r\n", "\n") if isinstance(given, str) else ""
    if not path:
        raise InvalidInput("The file needs a name.", effect="Nothing was written.")
    digest = visit.text("digest", length_max=64)
    try:
        visit.services.files.write(tenant, path, text.encode(), actor=visit.who.actor, expected_digest=digest)
    except EditMismatch as error:
        return _editor(visit, tenant, path, text, digest, problem=error, status=409)
    return visit.go(
        f"/workspaces/{name}/files", f"{path} is saved. Your app uses it; tonight it is saved to git by itself."
    )


def sized(request: Request) -> None:
    """Before the form is read: what announces no size, or too much, is not received at all. Raises FileTooLarge."""
    announced = request.headers.get("content-length", "")
    if not announced.isdigit() or int(announced) > WRITE_BYTES_MAX + FORM_BYTES:
        raise FileTooLarge(
            f"A file sent here is at most {WRITE_BYTES_MAX // 2**20} MiB large.",
            effect="Nothing was written.",
            next_step="Split it, or keep it outside the workspace.",
        )


@router.post("/upload", dependencies=[Depends(sized)])
def upload(name: str, visit: Writer) -> Response:
    """A file from the person's own machine, into the directory they look at."""
    tenant = visit.tenant(name)
    sent, directory = visit.form.get("file"), visit.text("path", length_max=1024)
    if not isinstance(sent, UploadFile) or not sent.filename:
        raise InvalidInput("Choose a file first.", effect="Nothing was written.")
    named = sent.filename.replace("\\", "/").rsplit("/", 1)[-1]  # some browsers tell where it lay
    path = f"{directory}/{named}".lstrip("/")
    content = sent.file.read(WRITE_BYTES_MAX + 1)
    expected = None if visit.is_set("replace") else ""
    try:
        visit.services.files.write(tenant, path, content, actor=visit.who.actor, expected_digest=expected)
    except EditMismatch as error:
        raise EditMismatch(
            f"There is a file {path!a} already.",
            effect="It stays as it was.",
            next_step="Go back and say that it shall be replaced, or rename yours.",
        ) from error
    return visit.go(f"/workspaces/{name}/files?path={quote(directory)}", f"{path} is there. Your app sees it at once.")


@router.post("/delete")
def delete(name: str, visit: Writer) -> Response:
    """Delete one file; git still has what was saved there."""
    tenant = visit.tenant(name)
    path = visit.text("path", length_max=1024)
    visit.services.files.delete(tenant, path, actor=visit.who.actor)
    return visit.go(f"/workspaces/{name}/files", f"{path} is deleted.")


@router.get("/difference")
def difference(name: str, visit: Reader) -> Response:
    """What the saved branch changes in production's code."""
    tenant = visit.tenant(name)
    branch = visit.services.publish.view(tenant)
    lines, problem = [], None
    if branch.head and branch.production:
        try:
            text = visit.services.code.repository.patch(branch.production, branch.head, bytes_max=PATCH_BYTES_MAX)
            lines = patch_lines(text) if text else []
        except OrchestratorError as error:
            problem = error
    return visit.show("files/difference.html", tenant=tenant, branch=branch, lines=lines, problem=problem)
