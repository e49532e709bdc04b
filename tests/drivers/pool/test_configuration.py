"""The pool's configuration: a socket and nothing else, no secret in clear, one way to the live database."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

from orchestrator.core.ports.engine import ContainerLimits
from orchestrator.core.ports.pools import PoolSpec
from orchestrator.core.scram import verifier
from orchestrator.core.tenants import PoolMode
from orchestrator.drivers.pool.configuration import configuration_text, container_spec, users_text


def _spec(mode: PoolMode = PoolMode.TRANSACTION) -> PoolSpec:
    return PoolSpec(
        name="orc-t1-pool",
        tenant_id="t1",
        image="pool",
        uid=30_001,
        limits=ContainerLimits(memory_bytes=64 << 20, cpus=1.0, pids=16),
        mode=mode,
        databases=Path("/var/d"),
        sockets=Path("/var/p"),
        configuration=Path("/var/c"),
        role="tenant_north",
        database="app",
        password_file=Path("/secrets/tenant"),
        console_password_file=Path("/secrets/console"),
    )


@pytest.mark.parametrize("mode", list(PoolMode))
def test_it_follows_the_link_over_a_socket_and_forgets_between_clients(mode: PoolMode) -> None:
    parsed = configparser.ConfigParser()
    parsed.read_string(configuration_text(_spec(mode)))
    assert dict(parsed["databases"]) == {"app": "host=/databases/live port=5432 dbname=app"}
    main = parsed["pgbouncer"]
    assert main["listen_addr"] == ""
    assert main["pool_mode"] == mode.value
    assert (main["server_reset_query_always"], main["server_reset_query"]) == ("1", "DISCARD ALL")
    assert int(main["max_prepared_statements"]) == 200
    assert main["server_login_retry"] == "1"
    assert main["auth_type"] == "scram-sha-256"
    assert "options" not in main["ignore_startup_parameters"]


def test_its_users_are_verifiers_never_passwords() -> None:
    secret = verifier("a-password", b"salt")
    text = users_text(_spec(), role_verifier=secret, console_verifier=verifier("another", b"salt"))
    assert text.splitlines()[0] == f'"tenant_north" "{secret}"'
    assert "a-password" not in text and len(text.splitlines()) == 2


def test_its_container_has_no_network_and_writes_only_its_socket() -> None:
    spec = container_spec(_spec())
    assert spec.networks == () and spec.published == ()
    assert [mount.target for mount in spec.mounts if not mount.read_only] == ["/sockets"]
    assert "password" not in " ".join((*spec.argv, *spec.environment.values()))
