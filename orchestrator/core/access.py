"""Who may do what: roles, scopes and the principal behind a request. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from orchestrator.core.actors import Actor, ActorKind
from orchestrator.errors import Conflict, Denied, InvalidInput, LimitReached, NotFound


class SignInRequired(Denied):
    """Nobody is signed in, or the session or token is not valid (any more)."""

    code = "denied.sign_in_required"


class SignInRefused(Denied):
    """One answer for every reason a sign-in can fail."""

    code = "denied.sign_in_refused"


class TooManySignIns(LimitReached):
    code = "limit_reached.sign_in"


class ScopeMissing(Denied):
    code = "denied.scope"


class UserMissing(NotFound):
    code = "not_found.user"


class UserExists(Conflict):
    code = "conflict.user_exists"


class InvalidUser(InvalidInput):
    code = "invalid.user"


class TokenMissing(NotFound):
    code = "not_found.token"


class SessionMissing(NotFound):
    code = "not_found.session"


class Role(StrEnum):
    """From most to least; an agent acts for a person and can never decide or promote."""

    ADMIN = "admin"
    REVIEWER = "reviewer"
    MANAGER = "manager"
    AGENT = "agent"


class Scope(StrEnum):
    """`NOUN:VERB`, what a token or a role is good for."""

    TENANTS_READ = "tenants:read"
    TENANTS_OPERATE = "tenants:operate"  # stop and start
    TENANTS_ADMIN = "tenants:admin"  # launch and remove
    SNAPSHOTS_READ = "snapshots:read"
    SNAPSHOTS_WRITE = "snapshots:write"
    REFRESH_READ = "refresh:read"
    REFRESH_RUN = "refresh:run"
    COMMANDS_READ = "commands:read"
    COMMANDS_RUN = "commands:run"
    APPROVALS_READ = "approvals:read"
    APPROVALS_DECIDE = "approvals:decide"
    ALLOWLIST_READ = "allowlist:read"
    ALLOWLIST_WRITE = "allowlist:write"
    CHANGES_READ = "changes:read"
    CHANGES_WRITE = "changes:write"  # draft, submit, withdraw
    CHANGES_REVIEW = "changes:review"
    CHANGES_PROMOTE = "changes:promote"
    BRANCHES_READ = "branches:read"
    BRANCHES_PUBLISH = "branches:publish"
    BRANCHES_MERGE = "branches:merge"
    AUDIT_READ = "audit:read"
    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    USERS_READ = "users:read"
    USERS_WRITE = "users:write"
    SYSTEM_READ = "system:read"
    SYSTEM_WRITE = "system:write"  # try webhooks, send again


_AGENT = frozenset(
    {
        Scope.TENANTS_READ,
        Scope.SNAPSHOTS_READ,
        Scope.REFRESH_READ,
        Scope.COMMANDS_READ,
        Scope.COMMANDS_RUN,
        Scope.APPROVALS_READ,
        Scope.ALLOWLIST_READ,
        Scope.CHANGES_READ,
        Scope.CHANGES_WRITE,
        Scope.BRANCHES_READ,
        Scope.JOBS_READ,
    }
)
_MANAGER = _AGENT | {
    Scope.TENANTS_OPERATE,
    Scope.REFRESH_RUN,
    Scope.BRANCHES_PUBLISH,
    Scope.BRANCHES_MERGE,
    Scope.JOBS_WRITE,
}
_REVIEWER = frozenset(scope for scope in Scope if scope.value.endswith(":read")) | {
    Scope.APPROVALS_DECIDE,
    Scope.CHANGES_REVIEW,
    Scope.CHANGES_PROMOTE,
}
ROLE_SCOPES: Mapping[Role, frozenset[Scope]] = {
    Role.ADMIN: frozenset(Scope),
    Role.REVIEWER: _REVIEWER,
    Role.MANAGER: _MANAGER,
    Role.AGENT: _AGENT,
}


@dataclass(frozen=True)
class User:
    """A person who signs in. `tenant_ids` are the tenants a manager belongs to; admins and reviewers see all."""

    id: str
    name: str
    role: Role
    tenant_ids: frozenset[str]
    is_disabled: bool
    created_at: datetime
    last_seen_at: datetime | None = None


@dataclass(frozen=True)
class Token:
    """An API token, without its secret. One with role `agent` makes its bearer an agent of its user."""

    id: str
    user_id: str
    user_name: str
    name: str
    role: Role
    scopes: frozenset[Scope]
    tenant_ids: frozenset[str] | None  # None: every tenant its user may see
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True)
class Principal:
    """Who is behind a request, what they may do, and which tenants they may see (None: all)."""

    user_id: str
    name: str
    role: Role
    scopes: frozenset[Scope]
    tenant_ids: frozenset[str] | None = None
    token_id: str = ""
    session_id: str = ""
    csrf: str = field(default="", repr=False)  # forms of pages send it back

    @property
    def actor(self) -> Actor:
        """As audit records and approvals name them."""
        if self.role is Role.AGENT:
            return Actor(ActorKind.AGENT, self.token_id or self.user_id, self.name, on_behalf_of=self.user_id)
        return Actor(ActorKind.PERSON, self.user_id, self.name)

    def has(self, scope: Scope) -> bool:
        return scope in self.scopes

    def require(self, scope: Scope) -> None:
        """Raises ScopeMissing."""
        if scope not in self.scopes:
            raise ScopeMissing(
                f"{self.name} ({self.role.value}) may not do this: it needs {scope.value}.",
                effect="Nothing was done.",
                next_step="Ask an admin, or use a token with this scope.",
                scope=scope.value,
            )

    def may_see(self, tenant_id: str) -> bool:
        return self.tenant_ids is None or tenant_id in self.tenant_ids


def principal_of(user: User, *, session_id: str = "", csrf: str = "") -> Principal:
    """A signed-in person."""
    return Principal(
        user_id=user.id,
        name=user.name,
        role=user.role,
        scopes=ROLE_SCOPES[user.role],
        tenant_ids=None if user.role in (Role.ADMIN, Role.REVIEWER) else user.tenant_ids,
        session_id=session_id,
        csrf=csrf,
    )


def principal_of_token(user: User, token: Token) -> Principal:
    """The bearer of a token: never more than its user, its role and its own scopes together."""
    own = None if user.role in (Role.ADMIN, Role.REVIEWER) else user.tenant_ids
    if token.tenant_ids is not None:
        own = token.tenant_ids if own is None else own & token.tenant_ids
    return Principal(
        user_id=user.id,
        name=f"{user.name}/{token.name}",
        role=token.role,
        scopes=ROLE_SCOPES[user.role] & ROLE_SCOPES[token.role] & token.scopes,
        tenant_ids=own,
        token_id=token.id,
    )


def operator(name: str) -> Principal:
    """Whoever runs the command line on the host: they own the files, the engine and the databases already."""
    return Principal(user_id=f"os:{name}", name=name, role=Role.ADMIN, scopes=frozenset(Scope))
