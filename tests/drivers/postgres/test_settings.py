"""Settings and access files, by kind and version."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.core.ports.engine import ContainerLimits
from orchestrator.core.ports.servers import ServerKind, ServerSpec
from orchestrator.drivers.postgres.settings import account_names, passwd, pg_hba, pg_ident, server_settings

SPEC = ServerSpec(
    name="g",
    data=Path("/d"),
    sockets=Path("/s"),
    uid=20_001,
    limits=ContainerLimits(1 << 28, 1.0, 40),
    kind=ServerKind.GENERATION,
    pool_uid=20_002,
    pool_role="tenant_north",
)


@pytest.mark.parametrize("kind", list(ServerKind))
def test_no_version_gets_a_setting_it_does_not_know(kind: str) -> None:
    since_17, since_18 = {"summarize_wal", "wal_summary_keep_time", "allow_alter_system"}, {"io_workers"}
    assert not (since_17 | since_18) & set(server_settings(kind, 14, {}))
    assert not since_18 & set(server_settings(kind, 17, {}))
    assert since_18 <= set(server_settings(kind, 18, {}))


@pytest.mark.parametrize("kind", list(ServerKind))
def test_no_server_listens_on_a_network(kind: str) -> None:
    assert server_settings(kind, 18, {})["listen_addresses"] == ""


def test_a_builder_leaves_no_wal_with_clear_text_lying_about() -> None:
    settings = server_settings(ServerKind.BUILDER, 18, {})
    assert settings["wal_level"] == "minimal" and settings["wal_recycle"] == "off"


def test_only_the_pool_becomes_the_tenant_and_only_we_become_superuser() -> None:
    accounts = account_names(SPEC, orchestrator_uid=0)
    assert pg_ident(SPEC, accounts, 0).splitlines() == [
        "adm orchestrator postgres",
        "adm orchestrator reader",
        "adm orchestrator watchdog",
        'pool pool "tenant_north"',
    ]
    assert pg_hba(SPEC).splitlines()[-2:] == ["local app all peer map=pool", "local all all reject"]
    assert passwd(accounts).startswith("orchestrator:x:0:0:")


def test_one_user_for_everything_still_maps() -> None:
    alone = replace(SPEC, uid=1000, pool_uid=1000)
    accounts = account_names(alone, orchestrator_uid=1000)
    assert accounts == {1000: "orchestrator"}
    assert 'pool orchestrator "tenant_north"' in pg_ident(alone, accounts, 1000)


@pytest.mark.parametrize("kind", [ServerKind.CONTROL, ServerKind.BASE, ServerKind.SEAL, ServerKind.BUILDER])
def test_no_password_logs_in_anywhere_but_on_production(kind: str) -> None:
    assert "scram" not in pg_hba(replace(SPEC, kind=kind))
    assert "scram" in pg_hba(replace(SPEC, kind=ServerKind.PRODUCTION))
