"""How secrets are kept: passwords by argon2id, our own random secrets by SHA-256 (they cannot be guessed)."""

from __future__ import annotations

import hashlib
import secrets
import threading

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

PASSWORD_LENGTH_MIN = 12
PASSWORD_LENGTH_MAX = 200
# OWASP's second profile (19 MiB, 2 passes): about 25 ms, small enough beside tenants.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
# Hashing holds memory: two at once bound what a flood of sign-ins can take.
_AT_ONCE = threading.BoundedSemaphore(2)
_NOBODY = "$argon2id$v=19$m=19456,t=2,p=1$MDAwMDAwMDAwMDAwMDAwMA$mNDs2DOvGRUEVTJmVJo0SjAOtDnP08YeiYl9xNTFQ0A"


def hash_password(password: str) -> str:
    with _AT_ONCE:
        return _HASHER.hash(password)


def is_password(password: str, hashed: str | None) -> bool:
    """Whether it matches; takes as long when there is nobody of that name (`hashed` None)."""
    with _AT_ONCE:
        try:
            _HASHER.verify(hashed or _NOBODY, password[:PASSWORD_LENGTH_MAX])
        except (VerificationError, InvalidHashError):
            return False
    return hashed is not None


def new_secret(prefix: str = "") -> str:
    """256 random bits, with a readable prefix for those that people copy."""
    return prefix + secrets.token_urlsafe(32)


def new_password() -> str:
    """A generated password people can type: 80 random bits."""
    alphabet = "abcdefghijkmnpqrstuvwxyz23456789"
    return "-".join("".join(secrets.choice(alphabet) for _ in range(4)) for _ in range(4))


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
