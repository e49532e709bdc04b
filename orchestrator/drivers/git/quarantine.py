"""Where a tenant's objects lie until they are checked and scanned: apart from the repository, which only lends its own.

What is refused is deleted with the directory: a secret or a huge file never becomes part of what we keep.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LEFT_AFTER_S = 6 * 3600  # far longer than any publish may take


@contextmanager
def objects_apart(repository: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """A directory for new objects beside `repository`'s own, and the variables that make git use it."""
    place = repository / "quarantine"
    place.mkdir(mode=0o700, exist_ok=True)
    _clear(place)
    held = Path(tempfile.mkdtemp(prefix="q", dir=place))
    (held / "pack").mkdir()
    variables = {
        "GIT_OBJECT_DIRECTORY": str(held),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(repository / "objects"),
    }
    try:
        yield held, variables
    finally:
        shutil.rmtree(held, ignore_errors=True)


def keep(held: Path, repository: Path) -> None:
    """Move the packs over; an index last, since it is what makes git see its pack."""
    packs = repository / "objects" / "pack"
    packs.mkdir(parents=True, exist_ok=True)
    for path in sorted((held / "pack").iterdir(), key=lambda path: path.suffix == ".idx"):
        path.rename(packs / path.name)


def _clear(place: Path) -> None:
    """What a process that died has left."""
    for left in place.iterdir():
        try:
            if time.time() - left.stat().st_mtime > LEFT_AFTER_S:
                shutil.rmtree(left, ignore_errors=True)
        except FileNotFoundError:
            continue
