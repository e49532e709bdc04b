"""The company's own identity provider: who somebody is, by its word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from orchestrator.core.access import SignInRefused
from orchestrator.errors import OutsideFailure


class IdentityRefused(SignInRefused):
    """The provider's answer does not prove who this is."""

    code = "denied.identity"


class ProviderFailed(OutsideFailure):
    """The provider cannot be reached, or answers what it may not."""

    code = "outside_failure.identity_provider"


@dataclass(frozen=True)
class Identity:
    """`subject` is the provider's own lasting key, unique within `issuer`; `tenants` is None without such a claim."""

    issuer: str
    subject: str
    name: str
    groups: frozenset[str]
    tenants: frozenset[str] | None = None


class IdentityProvider(Protocol):
    def start(self, *, redirect: str, state: str, nonce: str, verifier: str) -> str:
        """The address to send the browser to. Raises ProviderFailed."""

    def finish(self, code: str, *, redirect: str, nonce: str, verifier: str) -> Identity:
        """Who the one-time code stands for. Raises IdentityRefused or ProviderFailed."""
