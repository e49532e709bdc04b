"""PgBouncer's configuration and container. Pure: text and specs in, text and specs out."""

from __future__ import annotations

from orchestrator.core.ports.engine import ContainerSpec, Mount
from orchestrator.core.ports.pools import PoolSpec
from orchestrator.core.tenants import PoolMode

PORT = 5432  # only names the socket: .s.PGSQL.5432, where clients look by default
CONSOLE_USER = "console"
CONSOLE_DATABASE = "pgbouncer"
CONFIGURATION_FILE = "pgbouncer.ini"
USERS_FILE = "users.txt"
DATABASES_TARGET = "/databases"
SOCKETS_TARGET = "/sockets"
CONFIGURATION_TARGET = "/configuration"
PROGRAM = "pgbouncer"

_POOL_MODES = {PoolMode.TRANSACTION: "transaction", PoolMode.SESSION: "session"}


def settings(spec: PoolSpec) -> dict[str, str]:
    """Every setting that is not PgBouncer's default, with the reasons."""
    return {
        # A Unix socket only; no TCP at all.
        "listen_addr": "",
        "listen_port": str(PORT),
        "unix_socket_dir": SOCKETS_TARGET,
        "unix_socket_mode": "0777",  # who may reach it is decided by who has the directory mounted
        "auth_type": "scram-sha-256",
        "auth_file": f"{CONFIGURATION_TARGET}/{USERS_FILE}",
        "admin_users": CONSOLE_USER,
        "pool_mode": _POOL_MODES[spec.mode],
        "max_client_conn": str(spec.clients_max),
        "default_pool_size": str(spec.connections_max),
        "max_db_connections": str(spec.connections_max),
        # Prepared statements survive transaction pooling, and the swap.
        "max_prepared_statements": "200",
        # Without it search_path, temporary tables and advisory locks leak from one client to the next.
        "server_reset_query": "DISCARD ALL",
        "server_reset_query_always": "1",
        # After a failed connection clients wait this long for the next try (15 by default): a restarted database
        # is then found again within a second, and nobody sees an error.
        "server_login_retry": "1",
        "server_connect_timeout": "5",
        "server_idle_timeout": "60",
        "server_lifetime": "3600",
        "query_wait_timeout": "60",
        # Drivers send it and it changes nothing here. `options` is not ignored: it would be dropped silently.
        "ignore_startup_parameters": "extra_float_digits",
        "tcp_keepalive": "0",
        "log_connections": "0",
        "log_disconnections": "0",
        "log_stats": "0",
        "stats_period": "60",
    }


def configuration_text(spec: PoolSpec) -> str:
    """pgbouncer.ini. The database is reached through the link `live`, so a reload is never part of a swap."""
    lines = [
        "[databases]",
        f"{spec.database} = host={DATABASES_TARGET}/live port={PORT} dbname={spec.database}",
        "",
        "[pgbouncer]",
        *(f"{name} = {value}" for name, value in settings(spec).items()),
    ]
    return "\n".join(lines) + "\n"


def users_text(spec: PoolSpec, *, role_verifier: str, console_verifier: str) -> str:
    """The list of users; verifiers only. The database leg needs none: peer maps the pool's uid to the role."""
    users = ((spec.role, role_verifier), (CONSOLE_USER, console_verifier))
    return "".join(f'"{user}" "{secret}"\n' for user, secret in users)


def container_spec(spec: PoolSpec) -> ContainerSpec:
    return ContainerSpec(
        name=spec.name,
        image=spec.image,
        argv=(PROGRAM, f"{CONFIGURATION_TARGET}/{CONFIGURATION_FILE}"),
        uid=spec.uid,
        gid=spec.uid,
        limits=spec.limits,
        role="pool",
        tenant_id=spec.tenant_id,
        mounts=(
            # Read-only: the pool follows the link, it never moves it.
            Mount(spec.databases, DATABASES_TARGET, read_only=True),
            Mount(spec.sockets, SOCKETS_TARGET),
            Mount(spec.configuration, CONFIGURATION_TARGET, read_only=True),
        ),
        loopback=False,
        stop_signal="SIGINT",  # SIGTERM would wait for every client to leave
    )
