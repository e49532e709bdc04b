"""One provider, as its discovery document describes it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from orchestrator.config import InvalidConfiguration, OidcSection, secret
from orchestrator.core.ports.identity import Identity, IdentityRefused, ProviderFailed
from orchestrator.drivers.oidc.fetching import document, is_safe

# What a private key of the provider signs; never `none`, never a secret that we share.
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]
LEEWAY_S = 30
ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")
NAME_LENGTH_MAX = 200
GROUPS_MAX = 2000


@dataclass(frozen=True)
class OidcProvider:
    """Asks anew at every sign-in: keys and endpoints may change."""

    rules: OidcSection
    _client_secret: str = field(repr=False)

    def start(self, *, redirect: str, state: str, nonce: str, verifier: str) -> str:
        """The address to send the browser to. Raises ProviderFailed."""
        from authlib.oauth2.rfc7636 import create_s256_code_challenge

        endpoint = self._description()["authorization_endpoint"]
        query = {
            "response_type": "code",
            "client_id": self.rules.client_id,
            "redirect_uri": redirect,
            "scope": " ".join(self.rules.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": create_s256_code_challenge(verifier),
            "code_challenge_method": "S256",
        }
        return f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{urlencode(query)}"

    def finish(self, code: str, *, redirect: str, nonce: str, verifier: str) -> Identity:
        """Who the one-time code stands for. Raises IdentityRefused or ProviderFailed."""
        description = self._description()
        answer = self._token(description, code, redirect, verifier)
        claims = self._claims(description, answer.get("id_token"), nonce)
        name = claims.get(self.rules.name_claim)
        if not isinstance(name, str) or not 0 < len(name) <= NAME_LENGTH_MAX:
            raise _refused(f"it holds no {self.rules.name_claim}")
        if self.rules.name_claim == "email" and claims.get("email_verified") is False:
            raise _refused("the e-mail address is not verified")
        tenants = _words(claims, self.rules.tenants_claim) if self.rules.tenants_claim else None
        groups = _words(claims, self.rules.groups_claim)
        return Identity(self.rules.issuer, claims["sub"], name.lower(), groups, tenants)

    def _description(self) -> dict[str, Any]:
        found = document(f"{self.rules.issuer.rstrip('/')}/.well-known/openid-configuration")
        if found.get("issuer") != self.rules.issuer:
            raise ProviderFailed(
                "The identity provider calls itself by another name than `oidc.issuer`.",
                effect="Nobody was signed in.",
                next_step="Write the issuer exactly as the provider does.",
            )
        if not all(is_safe(found.get(name)) for name in ENDPOINTS):
            raise ProviderFailed("An endpoint of the identity provider is missing or is not https.")
        return found

    def _token(self, description: Mapping[str, Any], code: str, redirect: str, verifier: str) -> dict[str, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect,
            "code_verifier": verifier,
            "client_id": self.rules.client_id,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        if self._client_secret:
            known = description.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
            if "client_secret_basic" in known:
                pair = f"{quote(self.rules.client_id, safe='')}:{quote(self._client_secret, safe='')}"
                headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
            else:
                form["client_secret"] = self._client_secret
        return document(description["token_endpoint"], form=urlencode(form).encode(), headers=headers)

    def _claims(self, description: Mapping[str, Any], token: object, nonce: str) -> dict[str, Any]:
        from authlib.oidc.core import CodeIDToken
        from joserfc import jwt
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        if not isinstance(token, str):
            raise _refused("there is none")
        published = document(description["jwks_uri"])
        try:
            keys = KeySet.import_key_set(published)  # type: ignore[arg-type]
            decoded = jwt.decode(token, keys, algorithms=ALGORITHMS)
            jwt.JWTClaimsRegistry(
                leeway=LEEWAY_S,
                iss={"essential": True, "value": self.rules.issuer},
                aud={"essential": True, "value": self.rules.client_id},
                exp={"essential": True},
                iat={"essential": True},
                sub={"essential": True},
                nonce={"essential": True, "value": nonce},
            ).validate(decoded.claims)
            expected = {"client_id": self.rules.client_id, "nonce": nonce}
            CodeIDToken(decoded.claims, decoded.header, {}, expected).validate(leeway=LEEWAY_S)
        except (JoseError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _refused(type(error).__name__) from None
        except Exception as error:  # authlib has a family of its own; whatever it is, nobody is let in
            raise _refused(type(error).__name__) from None
        return dict(decoded.claims)


def make_provider(rules: OidcSection) -> OidcProvider | None:
    """None when none is configured. Raises InvalidConfiguration without the packages or the secret."""
    if not rules.issuer:
        return None
    try:
        import authlib.oidc.core  # noqa: F401
        import joserfc.jwt  # noqa: F401
    except ImportError:
        raise InvalidConfiguration(
            "oidc.issuer is set, but the packages for it are not installed.",
            next_step="Install them: pip install 'orchestrator[oidc]'.",
        ) from None
    return OidcProvider(rules, secret(rules.client_secret_file) if rules.client_secret_file else "")


def _words(claims: Mapping[str, Any], name: str) -> frozenset[str]:
    found = claims.get(name, [])
    listed = [found] if isinstance(found, str) else found
    if not isinstance(listed, list) or len(listed) > GROUPS_MAX:
        return frozenset()
    return frozenset(one for one in listed if isinstance(one, str))


def _refused(why: str) -> IdentityRefused:
    return IdentityRefused(
        f"The identity provider's token cannot be accepted: {why}.",
        effect="Nobody was signed in.",
        next_step="Try again from the sign-in page.",
    )
