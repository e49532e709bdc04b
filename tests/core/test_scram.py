"""Our verifiers are PostgreSQL's own."""

from __future__ import annotations

import base64

import psycopg

from orchestrator.core.scram import verifier


def test_a_verifier_is_what_postgresql_would_have_stored(database: str) -> None:
    password = "correct horse battery staple"
    with psycopg.connect(database) as connection:
        connection.execute("SET password_encryption = 'scram-sha-256'")
        connection.execute(f"CREATE ROLE scram_probe PASSWORD '{password}'".encode())
        row = connection.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'scram_probe'").fetchone()
        connection.rollback()
    assert row is not None
    stored = str(row[0])
    iterations, salt = stored.split("$")[1].split(":")
    assert verifier(password, base64.b64decode(salt), iterations=int(iterations)) == stored
