"""A workspace's files: nothing leads out of it, nothing is unbounded, nothing is half-written."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.ports import files as port
from orchestrator.core.ports.files import (
    EditMismatch,
    EntryKind,
    FileNotThere,
    FileTooLarge,
    InvalidPath,
    PathRefused,
)
from orchestrator.drivers.files.confined import ConfinedFiles

FILES = ConfinedFiles()
UID = os.getuid()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("outside\n")
    made = tmp_path / "tree"
    (made / "d" / "e").mkdir(parents=True)
    (made / "a.txt").write_text("one\ntwo\nthree\n")
    (made / "d" / "b.py").write_text("print('two')\n")
    (made / "out").symlink_to("../secret")
    (made / "up").symlink_to("..")
    (made / "inner").symlink_to("a.txt")
    os.mkfifo(made / "fifo")
    return made


OUTSIDE = ["../secret", "d/../../secret", "/etc/passwd", "out", "up/secret", "inner", "fifo", "d", ".."]


@pytest.mark.parametrize("path", OUTSIDE)
def test_nothing_outside_or_special_is_read(root: Path, path: str) -> None:
    with pytest.raises(PathRefused):
        FILES.read(root, path)


@pytest.mark.parametrize("path", ["../new", "up/new", "/tmp/new-file", "d/../../new"])
def test_nothing_outside_is_written(root: Path, path: str) -> None:
    with pytest.raises(PathRefused):
        FILES.write(root, path, b"x", uid=UID)
    assert sorted(entry.name for entry in root.parent.iterdir()) == ["secret", "tree"]


def test_writing_over_a_link_is_refused_and_leaves_its_target_alone(root: Path) -> None:
    with pytest.raises(PathRefused):
        FILES.write(root, "out", b"taken", uid=UID)
    assert (root.parent / "secret").read_text() == "outside\n"


def test_a_link_swapped_in_while_reading_never_leads_out(root: Path) -> None:
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            (root / "d").rename(root / "d2")
            (root / "d").symlink_to("..")
            (root / "d").unlink()
            (root / "d2").rename(root / "d")

    (root / "d" / "secret").write_text("inside\n")
    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(2000):
            try:
                assert FILES.read(root, "d/secret").content == b"inside\n"
            except (PathRefused, FileNotThere):
                continue
    finally:
        stop.set()
        thread.join()


def test_reading_by_offset_and_limit(root: Path) -> None:
    part = FILES.read(root, "a.txt", offset=4, limit=3)
    assert (part.content, part.size_bytes, part.digest) == (b"two", 14, "")
    assert FILES.read(root, "a.txt").digest == hashlib.sha256(b"one\ntwo\nthree\n").hexdigest()


def test_writing_makes_directories_and_keeps_the_mode(root: Path) -> None:
    (root / "run").write_text("#!")
    (root / "run").chmod(0o755)
    FILES.write(root, "run", b"new", uid=UID)
    assert (root / "run").stat().st_mode & 0o777 == 0o755
    FILES.write(root, "x/y/z.txt", b"deep", uid=UID)
    assert (root / "x/y/z.txt").read_bytes() == b"deep"
    assert not list(root.rglob("*.writing"))


def test_a_write_based_on_an_old_reading_is_refused(root: Path) -> None:
    seen = FILES.read(root, "a.txt").digest
    (root / "a.txt").write_text("moved on\n")
    with pytest.raises(EditMismatch):
        FILES.write(root, "a.txt", b"x", uid=UID, expected_digest=seen)
    with pytest.raises(EditMismatch):
        FILES.write(root, "a.txt", b"x", uid=UID, expected_digest="")


@pytest.mark.parametrize(("old", "count"), [("nothing", 0), ("o", 2), ("", 0)])
def test_an_edit_needs_exactly_one_place(root: Path, old: str, count: int) -> None:
    with pytest.raises(EditMismatch) as caught:
        FILES.edit(root, "a.txt", old, "x", uid=UID)
    assert caught.value.fields["count"] == count


def test_an_edit_replaces_one_place(root: Path) -> None:
    FILES.edit(root, "a.txt", "two\n", "TWO\n", uid=UID)
    assert (root / "a.txt").read_text() == "one\nTWO\nthree\n"


def test_lists_show_links_and_never_follow_them(root: Path) -> None:
    kinds = {entry.path: entry.kind for entry in FILES.entries(root, "", recursive=True).entries}
    assert kinds["up"] is EntryKind.LINK
    assert kinds["fifo"] is EntryKind.OTHER
    assert kinds["d/b.py"] is EntryKind.FILE
    assert not any(path.startswith("up/") for path in kinds)


def test_a_huge_directory_is_cut_and_says_so(root: Path) -> None:
    for number in range(port.ENTRIES_MAX + 5):
        (root / "d" / f"f{number}").touch()
    listing = FILES.entries(root, "d")
    assert listing.truncated
    assert len(listing.entries) == port.ENTRIES_MAX


@pytest.mark.parametrize(
    ("pattern", "found"),
    [("*.txt", ["a.txt"]), ("**/*.py", ["d/b.py"]), ("d/?.py", ["d/b.py"]), ("*.py", []), ("[a].txt", [])],
)
def test_globs(root: Path, pattern: str, found: list[str]) -> None:
    assert [entry.path for entry in FILES.glob(root, pattern).entries] == found


def test_search_is_literal_and_names_lines(root: Path) -> None:
    matches = FILES.search(root, "TWO", ignore_case=True).matches
    assert [(match.path, match.line) for match in matches] == [("a.txt", 2), ("d/b.py", 1)]
    assert FILES.search(root, "t.o").matches == ()
    assert FILES.search(root, "outside").matches == ()


def test_too_much_is_refused(root: Path) -> None:
    with pytest.raises(FileTooLarge):
        FILES.write(root, "big", b"x" * (port.WRITE_BYTES_MAX + 1), uid=UID)
    with pytest.raises(InvalidPath):
        FILES.read(root, "/".join(["d"] * 40))
    with pytest.raises(InvalidPath):
        FILES.read(root, "x" * 300)


def test_deleting_a_link_spares_its_target(root: Path) -> None:
    FILES.delete(root, "out")
    assert (root.parent / "secret").exists()
    with pytest.raises(PathRefused):
        FILES.delete(root, "d")
    with pytest.raises(FileNotThere):
        FILES.delete(root, "gone")


@given(path=st.text(max_size=60))
def test_no_path_escapes(tmp_path_factory: pytest.TempPathFactory, path: str) -> None:
    base = tmp_path_factory.getbasetemp() / "fuzz"
    (base / "tree").mkdir(parents=True, exist_ok=True)
    (base / "secret").write_text("outside\n")
    with contextlib.suppress(PathRefused, InvalidPath, FileNotThere):
        FILES.write(base / "tree", path, b"x", uid=UID)
    assert sorted(entry.name for entry in base.iterdir()) == ["secret", "tree"]
    assert (base / "secret").read_text() == "outside\n"
