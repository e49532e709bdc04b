"""A file from a person's own machine into the workspace, and back, by the pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from httpx2 import Response

from orchestrator.core.access import Role
from orchestrator.core.ports.files import WRITE_BYTES_MAX
from orchestrator.web import files
from tests.support.cluster import Cluster
from tests.support.console import Browser, console
from tests.support.desk import furnish

UPLOAD = "/workspaces/harbour/files/upload"


@pytest.fixture
def desk(cluster: Cluster, tmp_path: Path) -> Iterator[tuple[Browser, Path]]:
    with console(cluster, tmp_path) as house:
        tree, _ = furnish(house, tmp_path)
        yield house.sign_in("mia", Role.MANAGER, house.tenant("harbour")), tree


def put(mia: Browser, name: str, content: bytes, **fields: str) -> Response:
    return mia.client.post(
        UPLOAD,
        data={"csrf_token": mia.token, **fields},
        files={"file": (name, content)},
        headers={"accept": "text/html", "sec-fetch-site": "same-origin"},
        follow_redirects=False,
    )


def test_a_file_goes_into_the_directory_looked_at_and_back_again(desk: tuple[Browser, Path]) -> None:
    mia, tree = desk
    assert "Put a file from my computer here" in mia.get("/workspaces/harbour/files?path=reports").text
    content = bytes(range(256))
    answer = put(mia, "photo.jpg", content, path="reports")
    assert (answer.status_code, answer.headers["location"]) == (303, "/workspaces/harbour/files?path=reports")
    assert (tree / "reports" / "photo.jpg").read_bytes() == content
    page = mia.get("/workspaces/harbour/files/edit?path=reports/photo.jpg").text
    link = "/api/v1/tenants/harbour/files/download?path=reports/photo.jpg"
    assert link in page.replace("%2F", "/")
    assert mia.get(link).content == content


def test_what_is_there_stays_unless_it_shall_be_replaced(desk: tuple[Browser, Path]) -> None:
    mia, tree = desk
    assert put(mia, "prices.sql", b"x", path="reports").status_code == 409
    assert (tree / "reports" / "prices.sql").read_text() == "select 1;\n"
    assert put(mia, "prices.sql", b"x", path="reports", replace="1").status_code == 303
    assert (tree / "reports" / "prices.sql").read_text() == "x"


@pytest.mark.parametrize("name", ["../../outside", "C:\\Users\\mia\\outside", "a/b/outside"])
def test_only_the_last_part_of_a_name_counts(desk: tuple[Browser, Path], name: str) -> None:
    mia, tree = desk
    assert put(mia, name, b"x").status_code == 303
    assert (tree / "outside").read_bytes() == b"x"


def test_what_is_too_large_or_no_file_is_refused(desk: tuple[Browser, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    mia, tree = desk
    before = sorted(path.name for path in tree.rglob("*"))
    assert put(mia, "", b"").status_code in (400, 422)
    assert put(mia, "up", b"x", path="../..").status_code == 403
    monkeypatch.setattr(files, "WRITE_BYTES_MAX", 1000)
    monkeypatch.setattr(files, "FORM_BYTES", 1000)
    assert put(mia, "large", b"x" * 4000).status_code >= 400
    monkeypatch.undo()
    assert put(mia, "large", b"x" * (WRITE_BYTES_MAX + 1)).status_code >= 400
    assert sorted(path.name for path in tree.rglob("*")) == before
