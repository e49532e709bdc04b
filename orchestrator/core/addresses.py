"""Addresses of databases as the configuration may name them. Pure."""

from __future__ import annotations

import re
import shlex
from urllib.parse import parse_qs, urlsplit

from orchestrator.errors import InvalidInput

# What libpq knows, up to the one of PostgreSQL 18.
KEYWORDS = frozenset(
    (  # noqa: SIM905
        "application_name channel_binding client_encoding connect_timeout dbname fallback_application_name "
        "gssdelegation gssencmode gsslib host hostaddr keepalives keepalives_count keepalives_idle "
        "keepalives_interval krbsrvname load_balance_hosts max_protocol_version min_protocol_version "
        "oauth_client_id oauth_client_secret oauth_issuer oauth_scope options passfile password port "
        "replication require_auth requirepeer scram_client_key scram_server_key service servicefile "
        "ssl_max_protocol_version ssl_min_protocol_version sslcert sslcertmode sslcompression sslcrl "
        "sslcrldir sslkey sslkeylogfile sslmode sslnegotiation sslpassword sslrootcert sslsni "
        "target_session_attrs tcp_user_timeout user "
    ).split()
)
ABSENT = "there is no such"  # database or role: one that is being made may be there soon
REFUSALS = {
    "password authentication failed": "the account or its password is wrong",
    "Peer authentication failed": "its socket lets only the account of the same name in",
    "no password supplied": "it asks for a password and none is configured",
    "no pg_hba.conf entry": "its pg_hba.conf has no line for this account from here",
    "not permitted to log in": "the account may not log in",
    "permission denied for database": "the account may not connect to this database",
}
SCHEMES = ("postgresql+psycopg://", "postgresql://", "postgres://")


class InvalidAddress(InvalidInput):
    code = "invalid.address"


def without_password(dsn: str) -> str:
    """The connection string as it is. Raises ValueError, without its text, when it is none or holds a password.

    What stands in the configuration is shown, and given to programs as an argument.
    """
    if not dsn:
        return dsn
    if "://" in dsn:
        has_password = _password_in_url(dsn)
    else:
        try:
            words = [word.partition("=") for word in shlex.split(dsn.replace(" =", "=").replace("= ", "="))]
        except ValueError:
            words = []
        if not words or not all(name and equals for name, equals, _ in words):
            raise ValueError("is no connection string; write host=… user=… dbname=… or postgresql://user@host/db")
        unknown = next((name for name, _, _ in words if name not in KEYWORDS), "")
        if unknown:
            raise ValueError(f"has {unknown[:30]!r}, which is no keyword of a connection string")
        has_password = any(name in ("password", "sslpassword") and value for name, _, value in words)
    if has_password:
        raise ValueError("must not hold a password; put it into a file and name that as password_file")
    return dsn


def _password_in_url(dsn: str) -> bool:
    try:
        parts = urlsplit(dsn)
        fits = parts.scheme in ("postgresql", "postgres") and parts.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise ValueError("is no connection string; write host=… user=… dbname=… or postgresql://user@host/db")
    return bool(parts.password) or bool({"password", "sslpassword"} & set(parse_qs(parts.query)))


def control_url(value: str, where: str) -> str:
    """A control database's address with the driver's name in it. Raises InvalidAddress without telling the value."""
    if not value:
        return ""
    scheme = next((one for one in SCHEMES if value.startswith(one)), "")
    try:
        fits = bool(scheme) and urlsplit(value).port != 0
    except ValueError:
        fits = False
    if not fits:
        raise InvalidAddress(
            f"{where} holds no address of a control database.",
            effect="Nothing was started or changed.",
            next_step="Write postgresql://USER:PASSWORD@HOST:5432/DATABASE (in a password % is %25, @ %40, / %2F).",
        )
    return SCHEMES[0] + value.removeprefix(scheme)


def why_refused(said: str) -> str:
    """What a server that answers has against us, in our words; empty when it said nothing of the kind.

    Its own words are not repeated: they may name an account.
    """
    found = re.search(r'(database|role) "[^"]*" does not exist', said)
    if found is not None:
        return f"{ABSENT} {found.group(1)}"
    return next((why for sign, why in REFUSALS.items() if sign in said), "")


def passwords_written(production: object) -> list[str]:
    """Which sections of `production`, as a file has it, hold a password."""
    sections = production.items() if isinstance(production, dict) else ()
    return [str(name) for name, one in sections if isinstance(one, dict) and one.get("password")]
