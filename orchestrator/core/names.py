"""Every name derived from a tenant or an installation is made here and nowhere else."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from orchestrator.errors import InvalidInput

# A DNS label (RFC 1123), lower case; 40 leaves room for prefixes in container and branch names.
TENANT_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,38}[a-z0-9])?")
TENANT_NAME_LENGTH_MAX = 40
RESERVED = frozenset(
    {
        "admin",
        "api",
        "app",
        "auth",
        "console",
        "control",
        "db",
        "docs",
        "health",
        "localhost",
        "login",
        "logout",
        "main",
        "master",
        "metrics",
        "mirror",
        "orchestrator",
        "postgres",
        "production",
        "proxy",
        "root",
        "scheduler",
        "static",
        "status",
        "traefik",
        "www",
    }
)
ID_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"


class InvalidTenantName(InvalidInput):
    code = "invalid.tenant_name"


def check_tenant_name(name: str) -> str:
    """Return `name` if it can be a hostname label, a branch and a container part.

    Raises InvalidTenantName, which says which rule was broken and never repeats a hostile name unescaped.
    """
    shown = ascii(name)[:80]
    if len(name) > TENANT_NAME_LENGTH_MAX:
        raise InvalidTenantName(f"The tenant name {shown} is longer than {TENANT_NAME_LENGTH_MAX} characters.")
    if not TENANT_NAME.fullmatch(name) or "--" in name:
        raise InvalidTenantName(
            f"{shown} cannot be a tenant name.",
            next_step="Use lower-case letters, digits and single hyphens, starting with a letter: north-region.",
        )
    if name in RESERVED:
        raise InvalidTenantName(f"The name {shown} is reserved.", next_step="Choose another name.")
    return name


def new_id(prefix: str) -> str:
    """An opaque id that is never reused: a one-letter prefix and 60 random bits."""
    return prefix + "".join(ID_ALPHABET[byte % len(ID_ALPHABET)] for byte in secrets.token_bytes(12))


@dataclass(frozen=True)
class TenantNames:
    """The names of everything that belongs to one tenant. `instance` keeps installations on one engine apart."""

    instance: str
    tenant_id: str
    name: str

    @property
    def network(self) -> str:
        return f"{self.instance}-{self.tenant_id}-net"

    @property
    def sandbox(self) -> str:
        return f"{self.instance}-{self.tenant_id}-sandbox"

    @property
    def pool(self) -> str:
        return f"{self.instance}-{self.tenant_id}-pool"

    def database(self, generation_id: str) -> str:
        return f"{self.instance}-{self.tenant_id}-{generation_id}"

    @property
    def role(self) -> str:
        return "tenant_" + self.name.replace("-", "_")

    @property
    def branch(self) -> str:
        return f"tenant/{self.name}"

    def hostname(self, domain: str) -> str:
        return f"{self.name}.{domain}"
