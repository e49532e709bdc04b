"""Set-up against this machine: engine, images and volume, really made."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.core.places import Places
from orchestrator.drivers.docker.engine import DockerEngine
from orchestrator.drivers.docker.images import BuildFailed, ContextEntry, DockerImages
from orchestrator.drivers.volume import ioctls, mounts
from orchestrator.setup.__main__ import main
from orchestrator.setup.engine import EngineStep
from orchestrator.setup.facts import landlock_abi
from orchestrator.setup.images import BuildStep, NamedImageStep
from orchestrator.setup.recipes import Recipe
from orchestrator.setup.root_image import RootImageStep
from orchestrator.setup.steps import run_all
from orchestrator.setup.volume import VolumeStep, remove_volume
from tests.support.engine import SessionImages, options

pytestmark = pytest.mark.engine


@pytest.fixture
def tag(engine: DockerEngine) -> Iterator[str]:
    """The name of a throw-away image, forgotten afterwards."""
    name = f"orchestrator-throwaway:{secrets.token_hex(6)}"
    yield name
    DockerImages(engine.connection).remove(name)


def silent(_: str) -> None:
    """No progress wanted."""


def test_the_engine_step_finds_the_running_engine(engine: DockerEngine) -> None:
    result = EngineStep(options()).check()
    assert result.ok and "Docker Engine" in result.note


def test_an_engine_that_is_elsewhere_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    result = EngineStep(options()).check()
    assert not result.ok
    assert str(tmp_path) in result.cause and "DOCKER_HOST" in result.cure


def test_an_image_that_is_there_is_tagged_without_asking_a_registry(
    engine: DockerEngine, images: SessionImages, tag: str
) -> None:
    wanted = replace(options(), root_image=images.base, registry_patience_s=0)
    step = RootImageStep(wanted, DockerImages(engine.connection), name=tag)
    lines: list[str] = []
    assert not step.check().ok
    run_all([step], lines.append)
    assert step.check().ok
    assert not any("registry" in line for line in lines)


def test_a_registry_that_does_not_answer_is_given_up_soon(engine: DockerEngine) -> None:
    assert not DockerImages(engine.connection).registry_answers("127.0.0.1:9/nothing:1", timeout_s=5)


def test_a_named_image_that_is_nowhere_is_explained(engine: DockerEngine) -> None:
    step = NamedImageStep("pool", "127.0.0.1:9/nothing:1", DockerImages(engine.connection))
    result = step.check()
    assert not result.ok and "127.0.0.1:9/nothing:1" in result.cure


def test_a_build_runs_once_for_equal_inputs(engine: DockerEngine, images: SessionImages, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\nCOPY word /word\nRUN grep -q hello /word\n")
    (tmp_path / "word").write_text(f"hello {secrets.token_hex(6)}")
    made = Recipe("throwaway", (ContextEntry(tmp_path, "."),), arguments={"BASE": images.base})
    catalogue = DockerImages(engine.connection)
    step = BuildStep(made, catalogue)
    lines: list[str] = []
    try:
        run_all([step], lines.append)
        assert any("Step" in line for line in lines)
        lines.clear()
        run_all([BuildStep(made, catalogue)], lines.append)
        assert lines == [f"[1/1] image for throwaway: ok, {made.image}"]
        assert made.image in catalogue.named("orchestrator-throwaway")
    finally:
        catalogue.remove(made.image)
    assert not step.check().ok


def test_a_failed_build_shows_what_was_said(
    engine: DockerEngine, images: SessionImages, tmp_path: Path, tag: str
) -> None:
    (tmp_path / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\nRUN echo the reason && exit 3\n")
    catalogue = DockerImages(engine.connection)
    with pytest.raises(BuildFailed) as failure:
        catalogue.build([ContextEntry(tmp_path, ".")], tag, arguments={"BASE": images.base}, progress=silent)
    assert "the reason" in failure.value.effect
    assert not catalogue.exists(tag)


def test_the_volume_is_made_once_and_removed_whole(tmp_path: Path) -> None:
    wanted = replace(options(), places=Places(tmp_path), disk_bytes=400 << 20)
    step = VolumeStep(wanted)
    try:
        run_all([step], silent)
        disk = tmp_path / "disk"
        assert ioctls.can_clone(disk) and mounts.lacking_options(disk) == frozenset()
        (disk / "kept").touch()
        lines: list[str] = []
        run_all([VolumeStep(wanted)], lines.append)
        assert len(lines) == 1 and (disk / "kept").exists()
        mounts.unmount(disk)
        run_all([VolumeStep(wanted)], silent)
        assert (disk / "kept").exists(), "what was mounted before must be mounted again"
    finally:
        remove_volume(tmp_path)
    assert not (tmp_path / "disk.img").exists() and not mounts.is_mounted(tmp_path / "disk")


def test_a_volume_that_cannot_be_mounted_falls_back_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(4096))
    step = VolumeStep(replace(options(), places=Places(tmp_path)))
    lines: list[str] = []
    results = run_all([step], lines.append)
    assert results[0].ok and "gate only" in results[0].note
    assert any("plain copies" in line for line in lines)
    remove_volume(tmp_path)


def test_checking_reports_what_is_missing_and_changes_nothing(
    tmp_path: Path, engine: DockerEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--check", "--var", str(tmp_path / "var")]) == 1
    told = capsys.readouterr().err
    assert "ok    Docker Engine" in told
    assert "FAIL  reflink volume" in told and "make setup" in told
    assert not (tmp_path / "var").exists()


def test_this_machine_can_hold_the_gate() -> None:
    assert landlock_abi() >= 3
