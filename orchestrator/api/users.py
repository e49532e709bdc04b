"""/api/v1/users, where they are signed in, and /api/v1/tokens."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import Field

from orchestrator.api.deps import Body, PrincipalDep, ServicesDep, View, require, visible_tenant
from orchestrator.core.access import Principal, Role, Scope, Token, User
from orchestrator.store import tenants, tokens, users
from orchestrator.store.sessions import Session
from orchestrator.wiring.services import Services

router = APIRouter(tags=["users"])
Reader = Annotated[Principal, require(Scope.USERS_READ)]
Writer = Annotated[Principal, require(Scope.USERS_WRITE)]
UserName = Annotated[str, Path(max_length=80)]
DAY_S = 86_400.0


class UserBody(Body):
    """A new user; the password is given to them by whoever creates them."""

    name: str = Field(max_length=80)
    role: Role = Field(strict=False)
    password: str = Field(max_length=200)
    tenants: list[str] = Field(default_factory=list, max_length=2000)


class UserChange(Body):
    """What is to change; what is left out stays."""

    role: Role | None = Field(None, strict=False)
    disabled: bool | None = None
    password: str | None = Field(None, max_length=200)
    join: list[str] = Field(default_factory=list, max_length=2000)
    leave: list[str] = Field(default_factory=list, max_length=2000)


class UserView(View):
    """One user, without secrets."""

    name: str
    role: str
    tenants: list[str]
    disabled: bool
    created_at: datetime
    last_seen_at: datetime | None

    @classmethod
    def of(cls, user: User, names: dict[str, str]) -> UserView:
        return cls(
            name=user.name,
            role=user.role,
            tenants=sorted(names.get(tenant_id, tenant_id) for tenant_id in user.tenant_ids),
            disabled=user.is_disabled,
            created_at=user.created_at,
            last_seen_at=user.last_seen_at,
        )


class SessionView(View):
    """One sign-in at the console; the hosts of tenants that were entered from it end with it."""

    id: str
    address: str
    browser: str
    created_at: datetime
    seen_at: datetime
    expires_at: datetime

    @classmethod
    def of(cls, session: Session) -> SessionView:
        return cls(
            id=session.id,
            address=session.address,
            browser=session.agent,
            created_at=session.created_at,
            seen_at=session.seen_at,
            expires_at=session.expires_at,
        )


class SessionsEnded(View):
    """How many sign-ins were ended."""

    ended: int


class TokenBody(Body):
    """A new token. Without scopes it may do all its role may; role `agent` makes its bearer an agent."""

    name: str = Field(max_length=80)
    user: str | None = Field(None, max_length=80)
    role: Role | None = Field(None, strict=False)
    scopes: list[Annotated[Scope, Field(strict=False)]] = Field(default_factory=list, max_length=100)
    tenants: list[str] | None = Field(None, max_length=2000)
    lifetime_days: float = Field(30.0, gt=0, le=3660)


class TokenView(View):
    """One token, without its secret."""

    id: str
    name: str
    user: str
    role: str
    scopes: list[str]
    tenants: list[str] | None
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None

    @classmethod
    def of(cls, token: Token, names: dict[str, str]) -> TokenView:
        chosen = token.tenant_ids
        return cls(
            id=token.id,
            name=token.name,
            user=token.user_name,
            role=token.role,
            scopes=sorted(token.scopes),
            tenants=None if chosen is None else sorted(names.get(one, one) for one in chosen),
            created_at=token.created_at,
            expires_at=token.expires_at,
            last_used_at=token.last_used_at,
            revoked_at=token.revoked_at,
        )


class NewToken(TokenView):
    """The token with its secret, shown this once."""

    secret: str


@router.get("/users")
def list_users(services: ServicesDep, who: Reader) -> list[UserView]:
    """Everybody who may sign in."""
    del who
    names = tenants.names(services.store)
    return [UserView.of(user, names) for user in users.listed(services.store)]


@router.post("/users", status_code=201)
def create_user(body: UserBody, services: ServicesDep, who: Writer) -> UserView:
    """Create a user."""
    ids = [visible_tenant(services, who, name).id for name in body.tenants]
    user = services.access.create_user(who.actor, body.name, body.role, body.password, tenant_ids=ids)
    return UserView.of(user, tenants.names(services.store))


@router.get("/users/{name}")
def show_user(name: UserName, services: ServicesDep, who: Reader) -> UserView:
    """One user."""
    del who
    return UserView.of(users.named(services.store, name), tenants.names(services.store))


@router.patch("/users/{name}")
def change_user(name: UserName, body: UserChange, services: ServicesDep, who: Writer) -> UserView:
    """Change a user's role, password or tenants, or disable them; their sessions end with a new password."""
    user = services.access.change_user(
        who.actor,
        users.named(services.store, name),
        role=body.role,
        is_disabled=body.disabled,
        password=body.password,
        join=[visible_tenant(services, who, one).id for one in body.join],
        leave=[visible_tenant(services, who, one).id for one in body.leave],
    )
    return UserView.of(user, tenants.names(services.store))


@router.get("/users/{name}/sessions")
def list_sessions(name: UserName, services: ServicesDep, who: Writer) -> list[SessionView]:
    """Where a user is signed in, what was used last first."""
    del who
    found = services.access.sessions_of(users.named(services.store, name))
    return [SessionView.of(one) for one in found]


@router.delete("/users/{name}/sessions")
def end_sessions(name: UserName, services: ServicesDep, who: Writer) -> SessionsEnded:
    """Sign a user out everywhere."""
    return SessionsEnded(ended=services.access.end_sessions(who, users.named(services.store, name)))


@router.delete("/users/{name}/sessions/{session_id}", status_code=204)
def end_session(
    name: UserName, session_id: Annotated[str, Path(max_length=60)], services: ServicesDep, who: Writer
) -> None:
    """End one sign-in of a user; whoever used it has to sign in again."""
    services.access.end_sessions(who, users.named(services.store, name), session_id)


@router.get("/tokens")
def list_tokens(services: ServicesDep, who: PrincipalDep) -> list[TokenView]:
    """One's own tokens; everybody's with users:read."""
    owner = None if who.has(Scope.USERS_READ) else who.user_id
    names = tenants.names(services.store)
    return [TokenView.of(token, names) for token in tokens.listed(services.store, user_id=owner)]


@router.post("/tokens", status_code=201)
def create_token(body: TokenBody, services: ServicesDep, who: PrincipalDep) -> NewToken:
    """Create a token; its secret is in this answer and nowhere else, so no idempotency key can bring it back."""
    secret, token = services.access.create_token(
        who,
        _owner(body, services, who),
        body.name,
        role=body.role,
        scopes=body.scopes,
        tenant_ids=None if body.tenants is None else [visible_tenant(services, who, one).id for one in body.tenants],
        lifetime_s=body.lifetime_days * DAY_S,
    )
    return NewToken(secret=secret, **TokenView.of(token, tenants.names(services.store)).model_dump())


def _owner(body: TokenBody, services: Services, who: Principal) -> User:
    return users.get(services.store, who.user_id) if body.user is None else users.named(services.store, body.user)


@router.delete("/tokens/{token_id}", status_code=204)
def revoke_token(token_id: Annotated[str, Path(max_length=60)], services: ServicesDep, who: PrincipalDep) -> None:
    """Revoke a token; it stops working at once."""
    services.access.revoke_token(who, token_id)
