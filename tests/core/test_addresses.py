"""An address in the configuration is one, and holds no secret."""

from __future__ import annotations

import pytest
from psycopg.pq import Conninfo

from orchestrator.core.addresses import KEYWORDS, InvalidAddress, control_url, without_password


@pytest.mark.parametrize(
    "dsn",
    [
        "",
        "host=db.example port=5432 user=mirror_reader dbname=app sslmode=verify-full sslrootcert=/etc/ca.pem",
        "host = /var/run/postgresql dbname='two words'",
        "postgresql://mirror_reader@db.example:5432/app?sslmode=require",
    ],
)
def test_an_address_is_taken_as_it_is(dsn: str) -> None:
    assert without_password(dsn) == dsn


@pytest.mark.parametrize(
    ("dsn", "why"),
    [
        ("host=db password=hush", "password_file"),
        ("host=db password = 'hu sh'", "password_file"),
        ("postgresql://reader:hush@db/app", "password_file"),
        ("postgresql://db/app?user=reader&password=hush", "password_file"),
        ("hosst=db", "hosst"),
        ("db hush", "no connection string"),
        ("host='db", "no connection string"),
        ("mysql://db/hush", "no connection string"),
        ("postgresql://db:hush/app", "no connection string"),
    ],
)
def test_anything_else_is_refused_without_being_repeated(dsn: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as refused:
        without_password(dsn)
    assert "hush" not in str(refused.value)


def test_whatever_the_library_knows_is_known() -> None:
    assert {option.keyword.decode() for option in Conninfo.get_defaults()} <= KEYWORDS


def test_a_control_database_gets_its_drivers_name() -> None:
    for scheme in ("postgres", "postgresql", "postgresql+psycopg"):
        assert control_url(f"{scheme}://u:p%40@h:5432/c", "the file f") == "postgresql+psycopg://u:p%40@h:5432/c"
    assert control_url("", "the file f") == ""


@pytest.mark.parametrize("value", ["host=db password=hush", "mysql://u:hush@h/c", "postgresql://u:hush@h:port/c"])
def test_what_is_no_control_database_is_refused_without_being_repeated(value: str) -> None:
    with pytest.raises(InvalidAddress, match="the file f") as refused:
        control_url(value, "the file f")
    assert "hush" not in str(refused.value)
