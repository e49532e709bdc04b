#!/bin/sh
# For `docker compose` only: makes the data directory the first time, as the official image does for a trusted socket.
# Where the orchestrator starts a server itself, it names the program and this script is not used.
set -eu

if [ "${1:-}" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
    # Under another name until it is whole: one that was cut off is begun anew.
    new="$PGDATA.new"
    rm -rf "$new"
    mkdir -p "$new"
    chmod 0700 "$new"
    initdb --username="${POSTGRES_USER:-postgres}" --auth="${POSTGRES_HOST_AUTH_METHOD:?only a method, never a password}" \
        --encoding=UTF8 --locale=C.UTF-8 --pgdata="$new"
    if [ -n "${POSTGRES_DB:-}" ]; then
        echo "CREATE DATABASE \"$POSTGRES_DB\"" | postgres --single -D "$new" -j postgres
    fi
    rmdir "$PGDATA" 2> /dev/null || true
    mv -T "$new" "$PGDATA"
fi
exec "$@"
