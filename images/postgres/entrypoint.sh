#!/bin/sh
# For `docker compose` only: makes the data directory the first time, as the official image does for a trusted socket.
# Where the orchestrator starts a server itself, it names the program and this script is not used.
set -eu

if [ "${1:-}" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
    mkdir -p "$PGDATA"
    chmod 0700 "$PGDATA"
    initdb --username="${POSTGRES_USER:-postgres}" --auth="${POSTGRES_HOST_AUTH_METHOD:?only a method, never a password}" \
        --encoding=UTF8 --locale=C.UTF-8 --pgdata="$PGDATA"
    if [ -n "${POSTGRES_DB:-}" ]; then
        echo "CREATE DATABASE \"$POSTGRES_DB\"" | postgres --single -D "$PGDATA" -j postgres
    fi
fi
exec "$@"
