"""Configuration: what is wrong is named with its file, its key and what is allowed there."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

from orchestrator import config
from orchestrator.config import FileSection, InvalidConfiguration, Settings, load

# What config.py works with itself; the other files are asked for by name.
READ_BY_CONFIG = {"dsn_file", "public_port", *FileSection.model_fields}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    shutil.copytree(config.PROJECT / "configs", tmp_path / "configs")
    return tmp_path / "configs"


def test_the_files_that_come_with_the_project_show_the_defaults() -> None:
    shipped = load(config.PROJECT / "configs", environment={})
    for name, field in Settings.model_fields.items():
        if name not in (*config.WORKED_OUT, "var"):
            assert getattr(shipped, name) == field.default, name


def test_every_key_stands_in_the_file_with_its_default() -> None:
    text = (config.PROJECT / "configs" / "orchestrator.yaml").read_text()
    values = config.read_yaml(config.PROJECT / "configs" / "orchestrator.yaml")
    for name, field in Settings.model_fields.items():
        if name in config.WORKED_OUT:
            continue
        section = field.annotation
        assert name in values, name
        for key in getattr(section, "model_fields", {}):
            assert key in values[name], f"{name}.{key} is not shown"
    assert text.startswith("#")


def test_an_unknown_key_is_named_with_what_is_allowed(directory: Path) -> None:
    (directory / "orchestrator.yaml").write_text("proxy: {prot: 8080}\nproduction: {mirror: {dns: x}}\n")
    with pytest.raises(InvalidConfiguration) as caught:
        load(directory, environment={})
    said = str(caught.value)
    assert "orchestrator.yaml" in said
    assert "proxy.prot is not a known key" in said and "Did you mean port?" in said
    assert "production.mirror.dns" in said and "password_file" in said


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ("proxy: {port: 70000}", "proxy.port"),
        ("instance: My-Own", "instance"),
        ("tenants: {launch_timeout: soon}", "tenants.launch_timeout"),
        ("control: {memory: 1 KiB}", "control.memory"),
        ("limits: {}", "limits"),
        ("- a list", "mapping"),
        ("proxy: [", "YAML"),
    ],
)
def test_a_wrong_value_is_named_by_its_key(directory: Path, content: str, key: str) -> None:
    (directory / "orchestrator.yaml").write_text(content + "\n")
    with pytest.raises(InvalidConfiguration, match=key):
        load(directory, environment={})


def test_the_other_files_are_read_as_strictly(directory: Path) -> None:
    (directory / "limits.yaml").write_text("profiles: {office: {sandbox: {memroy: 1 GiB}}}\n")
    with pytest.raises(InvalidConfiguration, match=r"limits\.yaml.*profiles\.office\.sandbox\.memroy"):
        load(directory, environment={})


def test_the_environment_wins_and_is_checked_too(directory: Path) -> None:
    found = load(directory, environment={"ORCHESTRATOR_PROXY__PORT": "9000", "ORCHESTRATOR_INSTANCE": "two"})
    assert (found.proxy.port, found.instance) == (9000, "two")
    with pytest.raises(InvalidConfiguration, match="ORCHESTRATOR_PROXI__PORT"):
        load(directory, environment={"ORCHESTRATOR_PROXI__PORT": "9000"})


def test_the_place_of_everything_follows_from_the_file(directory: Path) -> None:
    assert load(directory, environment={}).var == directory.parent / "var"
    assert load(directory, environment={"ORCHESTRATOR_VAR": "/srv/orc"}).places.audit == Path("/srv/orc/audit")


def test_secrets_are_read_from_files_and_never_shown(directory: Path, tmp_path: Path) -> None:
    secret = tmp_path / "dsn"
    secret.write_text("postgresql+psycopg://orc:hunter2@db/control\n")
    found = load(directory, environment={"ORCHESTRATOR_CONTROL__DSN_FILE": str(secret)})
    assert found.control_url().endswith("@db/control")
    named = load(directory, environment={"ORCHESTRATOR_CONTROL__DSN": "postgresql://u:hunter2@db/c"})
    assert "hunter2" not in repr(named) + str(named.model_dump(mode="json")) + repr(found)
    with pytest.raises(InvalidConfiguration, match="cannot be read"):
        config.secret(tmp_path / "missing")


def test_addresses_leave_out_the_schemes_own_port(directory: Path) -> None:
    plain = load(directory, environment={})
    assert plain.proxy.address("harbour.localhost") == "http://harbour.localhost:8080"
    behind = {"ORCHESTRATOR_PROXY__SCHEME": "https", "ORCHESTRATOR_PROXY__PUBLIC_PORT": "443"}
    assert load(directory, environment=behind).proxy.address("a.example.com") == "https://a.example.com"


@pytest.mark.parametrize("plan", ["10.0.0.0/24", "8.8.0.0/16", "10.0.0.1/16", "fd00::/64", "nowhere"])
def test_an_address_plan_that_cannot_hold_a_tenant_is_named(directory: Path, plan: str) -> None:
    (directory / "networks.yaml").write_text(f"plan: {plan}\n")
    with pytest.raises(InvalidConfiguration, match=r"networks\.yaml: plan"):
        load(directory, environment={})


def test_every_setting_is_read_by_something() -> None:
    """A key that changes nothing is worse than none: people believe it."""
    used = set()
    for path in (config.PROJECT / "orchestrator").rglob("*.py"):
        if path != Path(config.__file__):
            used |= {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    sections = [field.annotation for field in Settings.model_fields.values()]
    keys = {key for section in sections for key in getattr(section, "model_fields", {})}
    assert keys - used <= READ_BY_CONFIG
