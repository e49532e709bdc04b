"""Server settings and access files, by kind of instance and major version. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.core.ports.servers import (
    APP_DATABASE,
    READER_ROLE,
    SUPERUSER,
    WATCHDOG_ROLE,
    ServerKind,
    ServerSpec,
)

MIB = 1 << 20
# Settings older servers do not know: an unknown one is fatal.
SINCE = {
    "summarize_wal": 17,
    "wal_summary_keep_time": 17,
    "allow_alter_system": 17,
    "io_workers": 18,
}
COMMON = {
    "listen_addresses": "",
    "unix_socket_directories": "/sockets",
    "huge_pages": "off",
    "logging_collector": "off",
    "log_timezone": "UTC",
    "TimeZone": "UTC",
    "password_encryption": "scram-sha-256",
    "io_workers": "1",
    "autovacuum_max_workers": "1",
    "max_logical_replication_workers": "0",
    "max_replication_slots": "0",
    "max_prepared_transactions": "0",
}
RESTORER_ROLE = "restorer"  # a builder's own: what pg_restore connects as, so that what it made is told apart
SMALL_WAL = {"min_wal_size": "32MB", "max_wal_size": "128MB", "wal_recycle": "off"}
KINDS: dict[str, dict[str, str]] = {
    # Small tables, asked by key: the system's own cache does for the rest, and gives way when others need memory.
    ServerKind.CONTROL: {
        "shared_buffers": "8MB",
        "max_connections": "100",
        "max_wal_senders": "0",
        "wal_level": "minimal",
        "min_wal_size": "32MB",
        "max_wal_size": "256MB",
    },
    ServerKind.PRODUCTION: {
        "shared_buffers": "64MB",
        "max_connections": "60",
        "max_wal_senders": "0",
        "wal_level": "replica",
        "min_wal_size": "64MB",
        "max_wal_size": "512MB",
    },
    # Rebuilt from nothing after any crash, so nothing in it is synced; what leaves WAL or recycled segments
    # with clear text behind is off.
    ServerKind.BUILDER: {
        "shared_buffers": "128MB",
        "maintenance_work_mem": "128MB",
        "max_connections": "30",
        "max_locks_per_transaction": "256",
        "wal_level": "minimal",
        "max_wal_senders": "0",
        "fsync": "off",
        "full_page_writes": "off",
        "synchronous_commit": "off",
        "autovacuum": "off",
        "wal_recycle": "off",
        "wal_init_zero": "off",
        "max_wal_size": "4GB",
        "checkpoint_timeout": "1h",
    },
    ServerKind.SEAL: {
        "shared_buffers": "32MB",
        "max_connections": "10",
        "wal_level": "replica",
        "max_wal_senders": "0",
        "autovacuum": "off",
        "wal_recycle": "off",
        "min_wal_size": "32MB",
        "max_wal_size": "64MB",
    },
    ServerKind.BASE: {
        "shared_buffers": "32MB",
        "max_connections": "30",
        "wal_level": "replica",
        "max_wal_senders": "0",
        "autovacuum": "off",
        "default_transaction_read_only": "on",
        "allow_alter_system": "off",
        **SMALL_WAL,
    },
    ServerKind.GENERATION: {
        "shared_buffers": "64MB",
        "max_connections": "30",
        "wal_level": "replica",
        "max_wal_senders": "0",
        "summarize_wal": "on",
        "wal_summary_keep_time": "0",
        "allow_alter_system": "off",
        "max_worker_processes": "4",
        "max_parallel_workers_per_gather": "1",
        **SMALL_WAL,
    },
}


def server_settings(kind: str, major: int, extra: Mapping[str, str]) -> dict[str, str]:
    """Every `-c` of an instance: common, then the kind's, then the caller's; unknown ones of `major` left out."""
    merged = {**COMMON, **KINDS[kind], **extra}
    return {name: value for name, value in merged.items() if SINCE.get(name, 0) <= major}


def account_names(spec: ServerSpec, orchestrator_uid: int) -> dict[int, str]:
    """The OS accounts the instance knows, by uid; the same uid keeps the first name."""
    names = {orchestrator_uid: "orchestrator"}
    if spec.pool_uid is not None:
        names.setdefault(spec.pool_uid, "pool")
    names.setdefault(spec.uid, "server")
    return names


def passwd(accounts: Mapping[int, str]) -> str:
    """An /etc/passwd: peer authentication and initdb look uids up in it."""
    return "".join(f"{name}:x:{uid}:{uid}::/:/usr/sbin/nologin\n" for uid, name in accounts.items())


def pg_ident(spec: ServerSpec, accounts: Mapping[int, str], orchestrator_uid: int) -> str:
    ours = accounts[orchestrator_uid]
    lines = [f"adm {ours} {role}" for role in (SUPERUSER, READER_ROLE, WATCHDOG_ROLE)]
    if spec.pool_uid is not None and spec.pool_role:
        pool = accounts[spec.pool_uid]
        lines.append(f'pool {pool} "{spec.pool_role}"')
    if spec.kind == ServerKind.BUILDER:
        lines.append(f"restore {accounts[spec.uid]} {RESTORER_ROLE}")
    return "\n".join(lines) + "\n"


def pg_hba(spec: ServerSpec) -> str:
    """Ours by peer, the tenant by its pool's uid, password roles only on a production server, then nobody."""
    lines = [f"local all {role} peer map=adm" for role in (SUPERUSER, READER_ROLE, WATCHDOG_ROLE)]
    if spec.kind == ServerKind.GENERATION:
        lines.append(f"local {APP_DATABASE} all peer map=pool")
    if spec.kind == ServerKind.BUILDER:
        lines.append(f"local {APP_DATABASE} {RESTORER_ROLE} peer map=restore")
    if spec.kind == ServerKind.PRODUCTION:
        lines.append("local all all scram-sha-256")
    lines.append("local all all reject")
    return "\n".join(lines) + "\n"
