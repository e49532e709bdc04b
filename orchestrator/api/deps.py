"""What routes ask for: the services, who asks, the tenant named in the path, and doing a creation once.

Route functions, and whatever waits for a database, are plain (not async): FastAPI runs them in its thread pool.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Header, Path, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from orchestrator.api import cookies
from orchestrator.api.problems import reference_of
from orchestrator.core.access import Principal, Scope, SignInRequired
from orchestrator.core.tenants import Tenant, TenantMissing
from orchestrator.errors import InvalidInput
from orchestrator.flows.access import Access
from orchestrator.store import idempotency, tenants
from orchestrator.wiring.services import Services

KEY_LENGTH_MAX = 200


class Body(BaseModel):
    """A request's body: unknown fields and wrong types are refused, nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class View(BaseModel):
    """An answer's body, made from a record of the core: `TenantView.of(tenant)`."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


async def get_services(request: Request) -> Services:
    """What only takes from memory is `async`: it runs on the event loop and needs no thread."""
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(get_services)]


@dataclass(frozen=True)
class Caller:
    """Whoever asks, not looked up yet: that waits for the database.

    A route that is asked often looks in the thread it works in anyway; the others have `require` do it in one more.
    """

    access: Access
    authorization: str
    cookie: str

    def principal(self) -> Principal:
        """By bearer token, else by the console's session cookie. Raises SignInRequired."""
        scheme, _, secret = self.authorization.partition(" ")
        if scheme:
            if scheme.lower() != "bearer" or not secret:
                raise SignInRequired("Only bearer tokens are understood.", next_step="Authorization: Bearer orc_…")
            return self.access.by_token(secret.strip())
        if not self.cookie:
            raise SignInRequired("You are not signed in.", next_step="Sign in, or send a bearer token.")
        return self.access.by_session(self.cookie)

    def with_scope(self, scope: Scope) -> Principal:
        """What `require` gives. Raises SignInRequired or ScopeMissing."""
        principal = self.principal()
        principal.require(scope)
        return principal


def caller_of(request: Request, services: Services) -> Caller:
    """Who says to be asking."""
    cookie = cookies.taken(request, cookies.console_name(services.settings))
    return Caller(services.access, request.headers.get("authorization", ""), cookie)


async def get_caller(request: Request, services: ServicesDep) -> Caller:
    """As caller_of."""
    return caller_of(request, services)


CallerDep = Annotated[Caller, Depends(get_caller)]


def get_principal(caller: CallerDep) -> Principal:
    """Raises SignInRequired."""
    return caller.principal()


PrincipalDep = Annotated[Principal, Depends(get_principal)]


def require(scope: Scope) -> Any:
    """A route's first parameter: `who: Annotated[Principal, require(Scope.TENANTS_READ)]`."""

    async def checked(principal: PrincipalDep) -> Principal:
        principal.require(scope)
        return principal

    return Depends(checked)


def get_tenant(services: ServicesDep, principal: PrincipalDep, name: Annotated[str, Path(max_length=60)]) -> Tenant:
    """The tenant named in the path. Raises TenantMissing, also for one the caller may not see."""
    return visible_tenant(services, principal, name)


TenantDep = Annotated[Tenant, Depends(get_tenant)]


def visible_tenant(services: Services, principal: Principal, name: str) -> Tenant:
    """By name. Raises TenantMissing, also for one the caller may not see: foreign names are not told."""
    tenant = tenants.named(services.store, name)
    if not principal.may_see(tenant.id):
        raise TenantMissing(f"There is no tenant {ascii(name)[:60]}.")
    return tenant


@dataclass(frozen=True)
class Mark:
    """What tells one creation from another: the key its caller gave it, and the digest of the whole request."""

    key: str | None
    digest: bytes


def _mark(request: Request, key: str | None, body: bytes) -> Mark:
    what = f"{request.method} {request.url.path}\0".encode() + body
    return Mark(key, hashlib.sha256(what).digest())


async def get_mark(
    request: Request, idempotency_key: Annotated[str | None, Header(max_length=KEY_LENGTH_MAX)] = None
) -> Mark:
    """Reads the body (already received)."""
    return _mark(request, idempotency_key, await request.body())


MarkDep = Annotated[Mark, Depends(get_mark)]


async def get_once(services: ServicesDep, principal: PrincipalDep, mark: MarkDep) -> Once:
    """For whoever asks."""
    return Once(services, principal, mark)


class Once:
    """Does a creation once per idempotency key: the same key and request again get the first answer again."""

    def __init__(self, services: Services, owner: Principal, mark: Mark) -> None:
        self._store = services.store
        self._owner = owner.user_id
        self._key = mark.key
        self._digest = mark.digest

    def __call__(self, work: Callable[[], BaseModel], *, status: int = 201) -> JSONResponse:
        """Answer with what `work` returns. A failure is not kept: the key may be used again."""
        if self._key is None:
            return JSONResponse(work().model_dump(mode="json"), status)
        if not self._key.strip():
            raise InvalidInput("An idempotency key must not be empty.")
        known = idempotency.claim(self._store, self._owner, self._key, self._digest)
        if known is not None:
            return JSONResponse(known.body, known.status, headers={"Idempotency-Replayed": "true"})
        try:
            body = work().model_dump(mode="json")
        except BaseException:
            idempotency.forget(self._store, self._owner, self._key)
            raise
        idempotency.answer(self._store, self._owner, self._key, status, body)
        return JSONResponse(body, status)


OnceDep = Annotated[Once, Depends(get_once)]


@dataclass(frozen=True)
class Call:
    """What a route needs that is asked all the time: one dependency, because each costs the time of a small query."""

    services: Services
    caller: Caller
    mark: Mark
    reference: str


async def call_of(request: Request, caller: Caller) -> Call:
    """Only takes from memory: the body is received already. Raises InvalidInput."""
    key = request.headers.get("idempotency-key")
    if key is not None and len(key) > KEY_LENGTH_MAX:
        raise InvalidInput(f"An idempotency key has at most {KEY_LENGTH_MAX} characters.")
    mark = _mark(request, key, await request.body())
    return Call(request.app.state.services, caller, mark, reference_of(request))


async def get_call(request: Request) -> Call:
    """As call_of."""
    return await call_of(request, caller_of(request, request.app.state.services))


CallDep = Annotated[Call, Depends(get_call)]
IDEMPOTENT: dict[str, Any] = {
    "parameters": [
        {
            "name": "idempotency-key",
            "in": "header",
            "required": False,
            "schema": {
                "anyOf": [{"type": "string", "maxLength": KEY_LENGTH_MAX}, {"type": "null"}],
                "title": "Idempotency-Key",
            },
        }
    ]
}
