"""docker-compose.yml says what the one-host arrangement promises."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

FILE = Path(__file__).resolve().parents[1] / "docker-compose.yml"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())["services"]
    return found


def test_it_has_the_control_plane_its_database_and_the_proxy(services: dict[str, Any]) -> None:
    assert set(services) == {"control", "orchestrator", "scheduler", "proxy"}


def test_every_image_can_be_replaced_and_has_a_default(services: dict[str, Any]) -> None:
    for service in services.values():
        assert re.fullmatch(r"\$\{[A-Z_]+:-[a-z0-9./-]+:[a-z0-9.]+\}", service["image"])


def test_the_control_plane_sees_data_where_the_engine_sees_it(services: dict[str, Any]) -> None:
    for name in ("orchestrator", "scheduler"):
        mounts = services[name]["volumes"]
        var = "${ORCHESTRATOR_VAR:-/var/lib/orchestrator}"
        assert f"{var}:{var}" in mounts
        assert services[name]["environment"]["ORCHESTRATOR_VAR"] == var


def test_only_the_control_plane_has_the_engines_socket(services: dict[str, Any]) -> None:
    holders = {name for name, one in services.items() if any("docker.sock" in str(mount) for mount in one["volumes"])}
    assert holders == {"orchestrator", "scheduler"}


def test_only_the_proxy_listens_and_by_default_on_this_host_alone(services: dict[str, Any]) -> None:
    assert {name for name, one in services.items() if one.get("ports")} == {"proxy"}
    assert all(port.startswith("${PROXY_LISTEN:-127.0.0.1}:") for port in services["proxy"]["ports"])
    assert services["control"]["network_mode"] == "none"


def test_it_holds_no_password() -> None:
    assert not re.search(r"password\s*[:=]\s*\S", FILE.read_text(), re.IGNORECASE)


def test_nothing_in_it_can_gain_rights_and_logs_are_bounded(services: dict[str, Any]) -> None:
    for service in services.values():
        assert "no-new-privileges:true" in service["security_opt"]
        assert service["logging"]["options"]["max-size"]
    for name in ("control", "proxy"):
        assert services[name]["cap_drop"] == ["ALL"]
