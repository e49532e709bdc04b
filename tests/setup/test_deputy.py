"""What is run as root for a user who is not: exact argument lists, no secret among them."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import config
from orchestrator.cli import plain
from orchestrator.core.images import ImageSet
from orchestrator.core.places import Places
from orchestrator.setup import deputy, outside
from orchestrator.setup.deputy import Deputy
from orchestrator.setup.images import RememberImagesStep
from orchestrator.setup.options import from_settings
from orchestrator.setup.steps import SetupFailed, run_all

ACTING = Deputy(
    image="control:1",
    instance="orc",
    var=Path("/home/ann/o/var"),
    configs=Path("/home/ann/o/configs"),
    cron=Path("/home/ann/o/cron"),
    user="ann",
    here=Path("/home/ann/work"),
    environment={"ORCHESTRATOR_CONTROL__DSN": "postgresql://u:hidden@db/x", "HOME": "/home/ann"},
)


def test_a_command_sees_the_installation_at_its_own_paths_and_names_who_asked() -> None:
    argv = ACTING.command(["tenant", "list"], is_terminal=False)
    assert argv[:2] == ["docker", "run"] and argv[-3:] == ["control:1", "tenant", "list"]
    for place in (ACTING.var, ACTING.configs, ACTING.cron, ACTING.here):
        assert f"--volume={place}:{place}" in argv
    assert f"--workdir={ACTING.here}" in argv and "--rm" in argv and "--tty" not in argv
    assert "--env=LOGNAME=ann" in argv and f"--env=ORCHESTRATOR_VAR={ACTING.var}" in argv
    assert "--privileged" not in argv and "--pull=never" in argv
    assert "--tty" in ACTING.command(["status"], is_terminal=True)


def test_settings_from_the_environment_are_passed_by_name_and_never_by_value() -> None:
    for argv in (ACTING.command(["status"], is_terminal=False), ACTING.service("serve")):
        assert "--env=ORCHESTRATOR_CONTROL__DSN" in argv
        assert not any("hidden" in word or "HOME" in word for word in argv)


def test_a_service_stays_and_is_known_by_what_it_was_started_with() -> None:
    argv = ACTING.service("serve")
    assert argv[-2:] == ["control:1", "serve"] and "--name=orc-serve" in argv and "--rm" not in argv
    assert f"--label={deputy.LABEL}={ACTING.digest()}" in argv
    assert ACTING.digest() == replace(ACTING, here=Path("/tmp")).digest(), "where one stands does not matter"
    others = [
        replace(ACTING, image="control:2"),
        replace(ACTING, environment={"ORCHESTRATOR_CONTROL__DSN": "another"}),
        replace(ACTING, configs=Path("/elsewhere")),
    ]
    assert len({ACTING.digest(), *(other.digest() for other in others)}) == 4


@pytest.mark.parametrize(
    ("directory", "expected"),
    [
        ("/home/ann", True),
        ("/tmp/x", True),
        ("/srv/data", True),
        ("/srv", False),
        ("/opt", False),
        ("/opt/venv/bin", False),
        ("/", False),
        ("/usr/share", False),
        ("/etc", False),
        ("/var", False),
    ],
)
def test_a_working_directory_never_covers_the_program(directory: str, expected: bool) -> None:
    assert deputy.visible(Path(directory)) is expected


def test_only_mounting_has_the_rights_for_it_and_it_happens_among_the_hosts_mounts() -> None:
    argv = deputy.host_tool("control:1", ["mount", "-t", "xfs", "a", "b"])
    assert "--privileged" not in argv and "--cap-add=SYS_ADMIN" in argv and "--pid=host" in argv
    program = argv[argv.index("control:1") + 1 :]
    assert program == ["-m", "orchestrator.setup.outside", "mount", "-t", "xfs", "a", "b"]
    assert outside.arguments(7, ["mount"]) == ["nsenter", "--target=7", "--mount", "--", "mount"]
    made = deputy.tool("control:1", Path("/v"), ["mkfs.xfs", "-q", "/v/disk.img"])
    assert "SYS_ADMIN" not in str(made) and "--volume=/v:/v" in made and made[-3:] == ["control:1", "-q", "/v/disk.img"]


def test_files_the_configuration_names_elsewhere_are_shown_and_ours_are_not_twice(tmp_path: Path) -> None:
    settings = config.load(config.PROJECT / "configs", environment={"ORCHESTRATOR_VAR": str(tmp_path / "var")})
    secret = tmp_path / "mirror.password"
    secret.write_text("x")
    inside = tmp_path / "var" / "primary.password"
    inside.parent.mkdir()
    inside.write_text("x")
    mirror = settings.production.mirror.model_copy(update={"password_file": secret})
    primary = settings.production.primary.model_copy(update={"password_file": inside})
    production = settings.production.model_copy(update={"mirror": mirror, "primary": primary})
    assert deputy.files_named(settings.model_copy(update={"production": production})) == (secret,)
    argv = replace(ACTING, files=(secret,)).command(["status"], is_terminal=False)
    assert f"--volume={secret}:{secret}:ro" in argv


def test_an_engine_on_another_machine_is_refused_with_the_reason() -> None:
    assert deputy.engine_socket({}) == deputy.SOCKET
    assert deputy.engine_socket({"DOCKER_HOST": "unix:///run/e.sock"}) == Path("/run/e.sock")
    with pytest.raises(SetupFailed, match="tcp") as refused:
        deputy.engine_socket({"DOCKER_HOST": "tcp://10.0.0.1:2375"})
    assert refused.value.next_step


def test_without_the_control_planes_image_it_says_to_set_up(tmp_path: Path) -> None:
    places = Places(tmp_path)
    with pytest.raises(SetupFailed, match="not known"):
        deputy.image(places)
    run_all([RememberImagesStep(places, ImageSet("s:1"))], lambda _: None)
    with pytest.raises(SetupFailed, match="own image") as missing:
        deputy.image(places)
    assert "make setup" in missing.value.next_step
    run_all([RememberImagesStep(places, ImageSet("s:1", control="control:1"))], lambda _: None)
    assert deputy.image(places) == "control:1"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("status", True),
        ("-v tenant list", True),
        ("--configs x demo", True),
        ("command run harbour -- ls --help", True),
        ("", False),
        ("--help", False),
        ("tenant --help", False),
        ("config check", False),
        ("--configs=x config show", False),
    ],
)
def test_only_what_needs_the_installation_needs_root(words: str, expected: bool) -> None:
    assert plain.is_meant(words.split()) is expected


def test_the_configuration_directory_is_resolved_on_the_host() -> None:
    assert plain.split(["-v", "--configs", "here", "status"]) == (Path("here"), ["-v", "status"])
    assert plain.split(["--configs=here", "status"]) == (Path("here"), ["status"])
    assert plain.split(["change", "submit", "x", "--configs", "y"])[0] is None


def test_compose_is_told_what_the_configuration_says(tmp_path: Path) -> None:
    """The file's own defaults and the configuration's agree, and every variable it reads is written."""
    settings = config.load(config.PROJECT / "configs", environment={"ORCHESTRATOR_VAR": str(tmp_path)})
    written = from_settings(settings).compose
    text = (config.PROJECT / "docker-compose.yml").read_text()
    read = set(re.findall(r"\$\{([A-Z_]+):-", text))
    images = {"ORCHESTRATOR_IMAGE", "POSTGRES_IMAGE", "PROXY_IMAGE"}
    assert read == (set(written) | images) - {"COMPOSE_PROJECT_NAME"}
    for name, default in re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", text):
        if name not in images | {"ORCHESTRATOR_VAR"}:
            assert written[name] == default, name


def test_this_process_is_not_contained() -> None:
    assert config.CONTAINED not in os.environ
