"""Signing in: people at the console, their browsers at tenants' hosts, programs by token.

A console session never leaves the console's host. A tenant's host gets a session of its own, good for that host
alone, carried over by a one-time code: the tenant's code is not trusted with more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import Engine

from orchestrator.core import passes
from orchestrator.core.access import (
    ROLE_SCOPES,
    InvalidUser,
    Principal,
    Role,
    Scope,
    ScopeMissing,
    SessionMissing,
    SignInRefused,
    SignInRequired,
    Token,
    TooManySignIns,
    User,
    UserExists,
    principal_of,
    principal_of_token,
)
from orchestrator.core.actors import Actor, ActorKind
from orchestrator.core.audit import AuditEvent, Result
from orchestrator.core.ports.audit import AuditLog
from orchestrator.core.ports.identity import Identity
from orchestrator.core.tenants import TenantMissing
from orchestrator.store import sessions, tenants, tokens, users
from orchestrator.store.secrets import digest, is_password
from orchestrator.store.sessions import Session


@dataclass(frozen=True)
class AccessRules:
    """`domain` is what tenants' names are put in front of; lifetimes in seconds."""

    console_host: str
    domain: str
    idle_s: float
    absolute_s: float
    code_lifetime_s: float
    token_lifetime_max_s: float
    failures_max: int
    failure_window_s: float


@dataclass(frozen=True)
class Access:
    """Everything about who somebody is. `pass_key` signs the control plane's own passes."""

    store: Engine
    audit: AuditLog
    rules: AccessRules
    pass_key: bytes = field(repr=False)

    def sign_in(self, name: str, password: str, *, address: str = "", agent: str = "") -> tuple[str, Session]:
        """A console session and its secret. Raises SignInRefused (whatever the reason) or TooManySignIns."""
        shown = name[:64]
        window_s = self.rules.failure_window_s
        if users.failures(self.store, shown, window_s=window_s) >= self.rules.failures_max:
            raise TooManySignIns(
                "Signing in as this user failed too often.",
                next_step=f"Wait {int(window_s // 60)} minutes, or ask an admin.",
                retry_after_s=int(window_s),
            )
        known = users.password_hash(self.store, shown)
        if not is_password(password, known[1] if known else None) or known is None:
            users.note_failure(self.store, shown, window_s=window_s)
            stranger = Actor(ActorKind.PERSON, "unknown", ascii(shown))
            self.audit.append(AuditEvent(stranger, "session.sign_in", result=Result.DENIED, target=address))
            raise SignInRefused("This name and password do not go together.", next_step="Check both and try again.")
        user = users.get(self.store, known[0])
        users.note_success(self.store, user.id, shown)
        self.audit.append(
            AuditEvent(Actor(ActorKind.PERSON, user.id, user.name), "session.sign_in", result=Result.OK, target=address)
        )
        return sessions.begin(
            self.store,
            user.id,
            self.rules.console_host,
            lifetime_s=self.rules.absolute_s,
            address=address,
            agent=agent,
        )

    def sign_in_foreign(
        self, identity: Identity, roles: Mapping[str, str], *, address: str = "", agent: str = ""
    ) -> tuple[str, Session]:
        """A console session for whom the identity provider vouches; `roles` by group. Raises SignInRefused.

        The user is made at the first sign-in, and has the role (and tenants) the provider says at every one.
        """
        given = {roles[group] for group in identity.groups if group in roles}
        role = next((one for one in Role if one.value in given), None)
        stranger = Actor(ActorKind.PERSON, "unknown", ascii(identity.name)[:80])
        refusal = AuditEvent(stranger, "session.sign_in", result=Result.DENIED, target=address)
        if role is None or role is Role.AGENT:
            self.audit.append(refusal)
            raise SignInRefused(
                "None of your groups has a role here.",
                next_step="Ask an admin which group to join, then sign in again.",
            )
        mark = digest(f"{identity.issuer}\0{identity.subject}").hex()
        try:
            user = users.foreign(self.store, mark) or users.add_foreign(self.store, identity.name, role, mark)
        except (UserExists, InvalidUser) as error:
            self.audit.append(refusal)
            raise SignInRefused(
                "Your name there cannot be a user's name here, or somebody else has it.",
                next_step="Ask an admin to look at the users and at `oidc.name_claim`.",
            ) from error
        if user.is_disabled:
            self.audit.append(refusal)
            raise SignInRefused("This account is disabled.", next_step="Ask an admin.")
        users.set_role(self.store, user.id, role)
        if identity.tenants is not None:
            wanted = {one.id for one in tenants.listed(self.store) if one.name in identity.tenants}
            for tenant_id in user.tenant_ids - wanted:
                users.leave(self.store, user.id, tenant_id)
            users.belong(self.store, user.id, wanted)
        users.note_success(self.store, user.id, user.name)
        actor = Actor(ActorKind.PERSON, user.id, user.name)
        self._note(actor, "session.sign_in", address, role=role.value, issuer=identity.issuer)
        return sessions.begin(
            self.store,
            user.id,
            self.rules.console_host,
            lifetime_s=self.rules.absolute_s,
            address=address,
            agent=agent,
        )

    def sign_out(self, principal: Principal) -> None:
        """End the console session with every host session that came from it."""
        if principal.session_id:
            sessions.end(self.store, principal.session_id)
            self.audit.append(AuditEvent(principal.actor, "session.sign_out", result=Result.OK))

    def by_session(self, secret: str) -> Principal:
        """Whoever holds this console session. Raises SignInRequired."""
        found = sessions.find(self.store, secret, self.rules.console_host, idle_s=self.rules.idle_s)
        if found is None:
            raise SignInRequired("You are not signed in, or no longer.", next_step="Sign in.")
        session, user = found
        csrf = digest("csrf:" + secret).hex()
        return principal_of(_enabled(user), session_id=session.id, csrf=csrf)

    def by_token(self, secret: str) -> Principal:
        """The bearer of an API token. Raises SignInRequired."""
        found = tokens.find(self.store, secret)
        if found is None:
            raise SignInRequired(
                "This token is not valid (any more).", next_step="Make a new one: `orchestrator token create`."
            )
        token, user = found
        return principal_of_token(user, token)

    def give_entry(self, principal: Principal, hostname: str) -> str:
        """A one-time code for a tenant's host. Raises TenantMissing, also for one they may not see."""
        self._tenant_of(hostname, principal)
        return sessions.give_code(self.store, principal.session_id, hostname, lifetime_s=self.rules.code_lifetime_s)

    def take_entry(self, hostname: str, code: str) -> str:
        """Turn a code into the secret of a session for that host. Raises SignInRequired."""
        found = sessions.take_code(self.store, code, hostname)
        if found is None:
            raise SignInRequired("This entry code was used already, has expired, or is for another host.")
        secret, _ = sessions.begin(
            self.store,
            found.user_id,
            hostname,
            lifetime_s=self.rules.absolute_s,
            parent_id=found.id,
            address=found.address,
            agent=found.agent,
        )
        return secret

    def at_host(self, hostname: str, secret: str) -> Principal:
        """Whoever holds this session of a tenant's host, if they may still see the tenant.

        Raises SignInRequired or TenantMissing.
        """
        found = sessions.find(self.store, secret, hostname, idle_s=self.rules.idle_s)
        if found is None:
            raise SignInRequired("You are not signed in at this host, or no longer.")
        principal = principal_of(_enabled(found[1]))
        self._tenant_of(hostname, principal)
        return principal

    def tenant_name(self, hostname: str) -> str | None:
        """The tenant's name in a hostname of ours; None for any other host."""
        name, _, domain = hostname.partition(".")
        return name if domain == self.rules.domain and hostname != self.rules.console_host else None

    def create_user(
        self, actor: Actor, name: str, role: Role, password: str, *, tenant_ids: Iterable[str] = ()
    ) -> User:
        """Raises InvalidUser or UserExists."""
        user = users.add(self.store, name, role, password, tenant_ids=tenant_ids)
        self._note(actor, "user.create", user.name, role=role.value, tenants=sorted(user.tenant_ids))
        return user

    def change_user(
        self,
        actor: Actor,
        user: User,
        *,
        role: Role | None = None,
        is_disabled: bool | None = None,
        password: str | None = None,
        join: Iterable[str] = (),
        leave: Iterable[str] = (),
    ) -> User:
        """Change what is given. The last enabled admin stays one. Raises InvalidUser."""
        stays_admin = (role or user.role) is Role.ADMIN and not (
            user.is_disabled if is_disabled is None else is_disabled
        )
        if user.role is Role.ADMIN and not user.is_disabled and not stays_admin:
            others = [one for one in users.listed(self.store) if one.role is Role.ADMIN and not one.is_disabled]
            if len(others) == 1:
                raise InvalidUser("The last admin stays an admin.", effect="Nothing was changed.")
        if password is not None:
            users.set_password(self.store, user.id, password)
        if role is not None:
            users.set_role(self.store, user.id, role)
        if is_disabled is not None:
            users.set_disabled(self.store, user.id, is_disabled)
        joined = list(join)
        users.belong(self.store, user.id, joined)
        left = list(leave)
        for tenant_id in left:
            users.leave(self.store, user.id, tenant_id)
        self._note(
            actor,
            "user.change",
            user.name,
            role=role.value if role else None,
            disabled=is_disabled,
            password_changed=password is not None,
            joined=joined,
            left=left,
        )
        return users.get(self.store, user.id)

    def create_token(
        self,
        principal: Principal,
        user: User,
        name: str,
        *,
        role: Role | None = None,
        scopes: Iterable[Scope] = (),
        tenant_ids: Iterable[str] | None = None,
        lifetime_s: float,
    ) -> tuple[str, Token]:
        """A token of `user`; nobody makes one that may do more than they themselves.

        Without scopes it may do everything its role may. Raises InvalidUser, ScopeMissing or TenantMissing.
        """
        role = user.role if role is None else role
        if user.id != principal.user_id:
            principal.require(Scope.USERS_WRITE)
        if principal.role is Role.AGENT:
            raise ScopeMissing("An agent makes no tokens.", effect="Nothing was done.")
        if role not in (user.role, Role.AGENT):
            raise InvalidUser(f"A token of {user.name} has the role {user.role.value}, or agent.")
        if not 0 < lifetime_s <= self.rules.token_lifetime_max_s:
            longest = int(self.rules.token_lifetime_max_s // 86400)
            raise InvalidUser(f"A token lives for at most {longest} days.")
        if not name.strip() or len(name) > 80:
            raise InvalidUser("A token's name has 1 to 80 characters.")
        wanted = frozenset(scopes) or ROLE_SCOPES[role] & ROLE_SCOPES[user.role]
        for scope in wanted:
            principal.require(scope)
        chosen = None if tenant_ids is None else sorted(set(tenant_ids))
        for tenant_id in chosen or ():
            if not principal.may_see(tenants.get(self.store, tenant_id).id):
                raise TenantMissing(f"There is no tenant {ascii(tenant_id)[:60]}.")
        secret, token = tokens.add(
            self.store, user.id, name.strip(), role=role, scopes=wanted, tenant_ids=chosen, lifetime_s=lifetime_s
        )
        self._note(principal.actor, "token.create", token.id, role=role.value, scopes=sorted(wanted), user=user.name)
        return secret, token

    def revoke_token(self, principal: Principal, token_id: str) -> None:
        """One's own, or anybody's with users:write; an agent only the one it came with.

        Raises TokenMissing or ScopeMissing.
        """
        token = tokens.get(self.store, token_id)
        is_own = token.user_id == principal.user_id
        if not is_own or (principal.role is Role.AGENT and token_id != principal.token_id):
            principal.require(Scope.USERS_WRITE)
        tokens.revoke(self.store, token_id)
        self._note(principal.actor, "token.revoke", token_id, user=token.user_name)

    def sessions_of(self, user: User) -> list[Session]:
        """Where somebody is signed in at the console, what was used last first."""
        return [one for one in sessions.listed(self.store, user.id) if one.parent_id is None]

    def end_sessions(self, principal: Principal, user: User, session_id: str | None = None) -> int:
        """End one of somebody's sign-ins, or all of them, with every host session that came from them.

        One's own, or anybody's with users:write. Returns how many were ended. Raises SessionMissing or ScopeMissing.
        """
        if user.id != principal.user_id:
            principal.require(Scope.USERS_WRITE)
        found = [one for one in self.sessions_of(user) if session_id in (None, one.id)]
        if session_id is not None and not found:
            raise SessionMissing(
                f"{user.name} has no session {ascii(session_id)[:60]} (any more).",
                effect="Nothing was ended.",
                next_step=f"orchestrator user sessions {user.name}",
            )
        for one in found:
            sessions.end(self.store, one.id)
        self._note(principal.actor, "session.end", user.name, sessions=[one.id for one in found])
        return len(found)

    def prune(self) -> int:
        """Forget sessions that are over; returns how many."""
        return sessions.prune(self.store, idle_s=self.rules.idle_s)

    def is_pass(self, hostname: str, given: str) -> bool:
        """Whether the control plane itself is looking through this tenant's door."""
        return self.tenant_name(hostname) is not None and passes.holds(
            self.pass_key, hostname, given, datetime.now(UTC)
        )

    def _tenant_of(self, hostname: str, principal: Principal) -> str:
        name = self.tenant_name(hostname)
        missing = TenantMissing(f"No tenant of yours is at {ascii(hostname)[:100]}.")
        if name is None:
            raise missing
        tenant = tenants.named(self.store, name)
        if not principal.may_see(tenant.id):
            raise missing
        return tenant.id

    def _note(self, actor: Actor, action: str, target: str, **details: object) -> None:
        kept = {name: value for name, value in details.items() if value not in (None, [], False)}
        self.audit.append(AuditEvent(actor, action, target=target, result=Result.OK, details=kept))


def _enabled(user: User) -> User:
    if user.is_disabled:
        raise SignInRequired("This account is disabled.")
    return user
