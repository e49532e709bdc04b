"""SCRAM-SHA-256 verifiers: what a server stores instead of a password. Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac

ITERATIONS = 4096


def verifier(password: str, salt: bytes, *, iterations: int = ITERATIONS) -> str:
    """The string PostgreSQL and PgBouncer keep for an ASCII `password`; equal input gives equal output."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored_key = hashlib.sha256(client_key).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    encoded = (base64.b64encode(part).decode() for part in (salt, stored_key, server_key))
    salt_text, stored_text, server_text = encoded
    return f"SCRAM-SHA-256${iterations}:{salt_text}${stored_text}:{server_text}"
