"""Results are put into a workspace only onto what they were made from, and never through a link."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from orchestrator.core.ports.files import EditMismatch, PathRefused
from orchestrator.drivers.files.placing import ConfinedPlacer

PLACER = ConfinedPlacer()
UID = os.geteuid()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "workspace"
    (made / "deep").mkdir(parents=True)
    (made / "a.txt").write_bytes(b"one")
    (made / "link").symlink_to("a.txt")
    (made / "out").symlink_to(tmp_path)
    return made


def test_states_tell_files_links_and_the_rest_apart(root: Path) -> None:
    states = {path: PLACER.state(root, path) for path in ("a.txt", "link", "none", "deep", "none/at/all", "out/x")}
    assert states == {
        "a.txt": digest(b"one"),
        "link": "link:a.txt",
        "none": "",
        "deep": "something else",
        "none/at/all": "",
        "out/x": "something else",
    }


def test_a_large_file_is_streamed_from_where_it_was_kept(root: Path, tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "kept").write_bytes(content)
    PLACER.put_file(root, "new/large.bin", tmp_path / "kept", digest=digest(content), uid=UID, expected="")
    assert (root / "new" / "large.bin").read_bytes() == content
    assert [one.name for one in (root / "new").iterdir()] == ["large.bin"]


def test_what_was_damaged_while_it_was_kept_is_not_put_anywhere(root: Path, tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(b"changed")
    with pytest.raises(EditMismatch, match="damaged"):
        PLACER.put_file(root, "a.txt", tmp_path / "kept", digest=digest(b"kept"), uid=UID, expected=digest(b"one"))
    assert (root / "a.txt").read_bytes() == b"one"
    assert sorted(one.name for one in root.iterdir()) == ["a.txt", "deep", "link", "out"]


def test_an_executable_file_stays_one(root: Path) -> None:
    (root / "a.txt").chmod(0o755)
    PLACER.put_file(root, "a.txt", b"two", digest=digest(b"two"), uid=UID, expected=digest(b"one"))
    assert (root / "a.txt").stat().st_mode & 0o777 == 0o755


def test_links_replace_files_and_files_replace_links(root: Path) -> None:
    PLACER.put_link(root, "a.txt", "deep/x", uid=UID, expected=digest(b"one"))
    PLACER.put_file(root, "link", b"two", digest=digest(b"two"), uid=UID, expected="link:a.txt")
    assert (root / "a.txt").readlink() == Path("deep/x")
    assert not (root / "link").is_symlink() and (root / "link").read_bytes() == b"two"
    PLACER.delete(root, "a.txt", expected="link:deep/x")
    assert not (root / "a.txt").is_symlink()


def test_nothing_is_changed_that_is_not_what_was_expected(root: Path) -> None:
    with pytest.raises(EditMismatch):
        PLACER.put_file(root, "a.txt", b"two", digest=digest(b"two"), uid=UID, expected="")
    with pytest.raises(EditMismatch):
        PLACER.put_link(root, "a.txt", "deep", uid=UID, expected="")
    with pytest.raises(EditMismatch):
        PLACER.delete(root, "a.txt", expected=digest(b"two"))
    assert (root / "a.txt").read_bytes() == b"one"


def test_no_path_leads_through_a_link(root: Path, tmp_path: Path) -> None:
    with pytest.raises(PathRefused):
        PLACER.put_file(root, "out/x", b"two", digest=digest(b"two"), uid=UID, expected="")
    with pytest.raises(PathRefused):
        PLACER.put_link(root, "out/x", "a.txt", uid=UID, expected="")
    assert not (tmp_path / "x").exists()
