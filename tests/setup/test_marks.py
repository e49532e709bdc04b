"""An image that another installation of this machine uses outlives ours."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.core.places import Places
from orchestrator.drivers.docker.engine import DockerEngine
from orchestrator.drivers.docker.images import ContextEntry, DockerImages
from orchestrator.setup import marks
from orchestrator.setup.marks import MarkStep, delete_unused, forget
from orchestrator.setup.options import SetupOptions
from orchestrator.setup.recipes import PREFIX
from orchestrator.setup.steps import run_all
from tests.support.engine import options

pytestmark = pytest.mark.engine


@pytest.fixture
def made(engine: DockerEngine, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Two small images, as set-up would have made them, under a name of this test's own."""
    images, repository = DockerImages(engine.connection), f"{PREFIX}throwaway{secrets.token_hex(4)}"
    names = (f"{repository}:1", f"{repository}:2")
    for name in names:
        (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY word /word\n")
        (tmp_path / "word").write_text(name)
        images.build([ContextEntry(tmp_path, ".")], name, arguments={}, progress=lambda _: None)
    yield names
    for name in names:
        images.remove(name)


def installed(instance: str) -> SetupOptions:
    return replace(options(), places=Places(Path(f"/nowhere/{secrets.token_hex(4)}")), instance=instance)


def test_only_what_no_installation_uses_is_deleted(engine: DockerEngine, made: tuple[str, str]) -> None:
    images, (old, new) = DockerImages(engine.connection), made
    ours, theirs = installed("ours"), installed("theirs")
    assert marks.repository(ours) != marks.repository(theirs) != marks.repository(installed("theirs"))
    repository = (new.partition(":")[0],)
    try:
        run_all([MarkStep(ours, images, {"pool": old, "base": "elsewhere:1"})], lambda _: None)
        run_all([MarkStep(theirs, images, {"pool": new})], lambda _: None)
        # The sources changed: we use the new one too, and nobody the old one.
        step = MarkStep(ours, images, {"pool": new})
        assert not step.check().ok
        run_all([step], lambda _: None)
        assert delete_unused(images, repository) == [old]
        forget(ours, images)
        assert delete_unused(images, repository) == [] and images.exists(new)
        forget(theirs, images)
        assert delete_unused(images, repository) == [new] and not images.exists(new)
    finally:
        for one in (ours, theirs):
            forget(one, images)
