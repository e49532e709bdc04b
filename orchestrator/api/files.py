"""/api/v1/tenants/NAME/files: a workspace's files."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import Field

from orchestrator.api.deps import Body, ServicesDep, TenantDep, View, require
from orchestrator.core.access import Principal, Scope
from orchestrator.core.ports.files import READ_BYTES_MAX, WRITE_BYTES_MAX, FilePart, FileTooLarge, Listing
from orchestrator.errors import InvalidInput

router = APIRouter(prefix="/tenants/{name}/files", tags=["files"])
Reader = Annotated[Principal, require(Scope.COMMANDS_RUN)]
PathText = Annotated[str, Query(max_length=1024)]


class EntryView(View):
    path: str
    kind: str
    size_bytes: int
    changed_at: datetime
    is_executable: bool


class ListingView(View):
    """Names in a directory; `truncated` says that there are more."""

    entries: list[EntryView]
    truncated: bool

    @classmethod
    def of(cls, listing: Listing) -> ListingView:
        return cls(entries=[EntryView.model_validate(one) for one in listing.entries], truncated=listing.truncated)


class FileView(View):
    """Some bytes of a file: as `text` where they are UTF-8, else as `base64`.

    `digest` is the whole file's, and empty where only a part of it was read.
    """

    path: str
    text: str | None
    base64: str | None
    offset: int
    size_bytes: int
    digest: str

    @classmethod
    def of(cls, part: FilePart) -> FileView:
        try:
            text, coded = part.content.decode(), None
        except UnicodeDecodeError:
            text, coded = None, base64.b64encode(part.content).decode("ascii")
        return cls(
            path=part.path,
            text=text,
            base64=coded,
            offset=part.offset,
            size_bytes=part.size_bytes,
            digest=part.digest,
        )


class WrittenView(View):
    path: str
    size_bytes: int
    digest: str


class MatchView(View):
    path: str
    line: int
    text: str


class MatchesView(View):
    matches: list[MatchView]
    truncated: bool
    files_searched: int


class WriteBody(Body):
    """A file's new content. `expected_digest`: what was read (empty: it must not exist yet)."""

    path: str = Field(min_length=1, max_length=1024)
    text: str | None = Field(None, max_length=8_388_608)
    base64: str | None = Field(None, max_length=11_184_812)
    expected_digest: str | None = Field(None, max_length=64)

    def content(self) -> bytes:
        """Raises InvalidInput."""
        if (self.text is None) == (self.base64 is None):
            raise InvalidInput("Send either text or base64.", effect="Nothing was written.")
        if self.text is not None:
            try:
                return self.text.encode()
            except UnicodeEncodeError:
                raise InvalidInput("The text is not valid Unicode.", effect="Nothing was written.") from None
        try:
            return base64.b64decode(self.base64 or "", validate=True)
        except ValueError:
            raise InvalidInput("This is not base64.", effect="Nothing was written.") from None


class EditBody(Body):
    """`old` must stand in the file exactly once."""

    path: str = Field(min_length=1, max_length=1024)
    old: str = Field(min_length=1, max_length=1_000_000)
    new: str = Field(max_length=1_000_000)


@router.get("")
def list_files(
    services: ServicesDep, who: Reader, tenant: TenantDep, path: PathText = "", recursive: bool = False
) -> ListingView:
    """Names in a directory of the workspace; links are shown and never followed."""
    return ListingView.of(services.files.entries(tenant, path, actor=who.actor, recursive=recursive))


@router.get("/content")
def read_file(
    services: ServicesDep,
    who: Reader,
    tenant: TenantDep,
    path: PathText,
    offset: Annotated[int, Query(ge=0, le=2**50)] = 0,
    limit: Annotated[int, Query(ge=1, le=READ_BYTES_MAX)] = READ_BYTES_MAX,
) -> FileView:
    """Some bytes of a file."""
    return FileView.of(services.files.read(tenant, path, actor=who.actor, offset=offset, limit=limit))


@router.get("/download", response_class=StreamingResponse)
def download_file(services: ServicesDep, who: Reader, tenant: TenantDep, path: PathText) -> StreamingResponse:
    """The whole of a file as it is. A browser saves it and never shows it: it is the tenant's, not ours."""
    size_bytes, pieces = services.files.download(tenant, path, actor=who.actor)
    return attached(path, size_bytes, pieces)


def attached(path: str, size_bytes: int, pieces: Iterator[bytes]) -> StreamingResponse:
    """An answer that is saved under the file's own name."""
    name = quote(path.rsplit("/", 1)[-1], safe="")
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Cache-Control": "no-store",
        "X-File-Size": str(size_bytes),
    }
    return StreamingResponse(pieces, media_type="application/octet-stream", headers=headers)


async def received(request: Request) -> bytes:
    """The request's body, as far as a file may be large. Raises FileTooLarge."""
    content = bytearray()
    async for piece in request.stream():
        content += piece
        if len(content) > WRITE_BYTES_MAX:
            raise FileTooLarge(
                f"A file written here is at most {WRITE_BYTES_MAX // 2**20} MiB large.", effect="Nothing was written."
            )
    return bytes(content)


@router.put("/upload")
def upload_file(
    services: ServicesDep,
    who: Reader,
    tenant: TenantDep,
    path: Annotated[str, Query(min_length=1, max_length=1024)],
    content: Annotated[bytes, Depends(received)],
    expected_digest: Annotated[str | None, Query(max_length=64)] = None,
) -> WrittenView:
    """Replace or create a file with the request's body, byte for byte, whatever its type is called."""
    done = services.files.write(tenant, path, content, actor=who.actor, expected_digest=expected_digest)
    return WrittenView.model_validate(done)


@router.get("/glob")
def glob_files(
    services: ServicesDep, who: Reader, tenant: TenantDep, pattern: Annotated[str, Query(max_length=200)]
) -> ListingView:
    """Paths matching a pattern: `*` within a name, `**` over directories."""
    return ListingView.of(services.files.glob(tenant, pattern, actor=who.actor))


@router.get("/search")
def search_files(
    services: ServicesDep,
    who: Reader,
    tenant: TenantDep,
    text: Annotated[str, Query(min_length=1, max_length=300)],
    under: PathText = "",
) -> MatchesView:
    """Lines that hold a text literally."""
    found = services.files.search(tenant, text, actor=who.actor, under=under)
    return MatchesView(
        matches=[MatchView.model_validate(one) for one in found.matches],
        truncated=found.truncated,
        files_searched=found.files_searched,
    )


@router.put("/content")
def write_file(body: WriteBody, services: ServicesDep, who: Reader, tenant: TenantDep) -> WrittenView:
    """Replace or create a file, in one step for whoever reads it."""
    done = services.files.write(
        tenant, body.path, body.content(), actor=who.actor, expected_digest=body.expected_digest
    )
    return WrittenView.model_validate(done)


@router.post("/edit")
def edit_file(body: EditBody, services: ServicesDep, who: Reader, tenant: TenantDep) -> WrittenView:
    """Replace a text that stands in the file exactly once."""
    return WrittenView.model_validate(services.files.edit(tenant, body.path, body.old, body.new, actor=who.actor))


@router.delete("/content", status_code=204)
def delete_file(services: ServicesDep, who: Reader, tenant: TenantDep, path: PathText) -> None:
    """Delete one file or link."""
    services.files.delete(tenant, path, actor=who.actor)
