"""People, their roles and workspaces, and everybody's tokens."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Response

from orchestrator.core.access import InvalidUser, Role, Scope, SessionMissing
from orchestrator.store import tenants, tokens, users
from orchestrator.web import wording
from orchestrator.web.visit import Visit, acting, reading

router = APIRouter(prefix="/users", include_in_schema=False)
Reader = Annotated[Visit, reading(Scope.USERS_READ)]
Writer = Annotated[Visit, acting(Scope.USERS_WRITE)]
SHOWN_MAX = 500
SESSIONS_SHOWN = 50


@router.get("")
def listed(visit: Reader) -> Response:
    """Everybody who may sign in, and every token."""
    store = visit.services.store
    return visit.show(
        "users/list.html",
        users=users.listed(store)[:SHOWN_MAX],
        tokens=tokens.listed(store)[:SHOWN_MAX],
        names=tenants.names(store),
        roles=[role.value for role in Role if role is not Role.AGENT],
        seen=visit.tenants(),
    )


@router.post("")
def create(visit: Writer) -> Response:
    user = visit.services.access.create_user(
        visit.who.actor,
        visit.text("name", length_max=80),
        _role(visit.text("role", length_max=20)),
        visit.text("password", length_max=200),
        tenant_ids=[visit.tenant(name).id for name in visit.values("tenant", count_max=2000)],
    )
    return visit.go(f"/users/{user.name}", f"{user.name} may sign in now.")


@router.get("/{name}")
def show(name: str, visit: Reader) -> Response:
    """One user."""
    store = visit.services.store
    user = users.named(store, name)
    return visit.show(
        "users/show.html",
        user=user,
        tokens=tokens.listed(store, user_id=user.id)[:SHOWN_MAX],
        sessions=visit.services.access.sessions_of(user)[:SESSIONS_SHOWN],
        roles=[role.value for role in Role if role is not Role.AGENT],
        seen=visit.tenants(),
        names=tenants.names(store),
    )


@router.post("/{name}")
def change(name: str, visit: Writer) -> Response:
    """Role, workspaces, and whether they may sign in."""
    user = users.named(visit.services.store, name)
    wanted = {visit.tenant(one).id for one in visit.values("tenant", count_max=2000)}
    offered = {one.id for one in visit.tenants()}
    visit.services.access.change_user(
        visit.who.actor,
        user,
        role=_role(visit.text("role", length_max=20)),
        is_disabled=visit.is_set("disabled"),
        join=wanted - user.tenant_ids,
        leave=(user.tenant_ids & offered) - wanted,
    )
    return visit.go(f"/users/{user.name}", "Changed. It counts from their next click on.")


@router.post("/{name}/password")
def password(name: str, visit: Writer) -> Response:
    """A new one; all their sessions end."""
    user = users.named(visit.services.store, name)
    visit.services.access.change_user(visit.who.actor, user, password=visit.text("password", length_max=200))
    return visit.go(f"/users/{user.name}", "The password is changed and their sessions are ended.")


@router.post("/{name}/sessions/end")
def end_sessions(name: str, visit: Writer) -> Response:
    """Sign them out everywhere."""
    user = users.named(visit.services.store, name)
    ended = visit.services.access.end_sessions(visit.who, user)
    done = f"{user.name} is signed out everywhere: {wording.many(ended, 'session')} ended."
    return visit.go(f"/users/{user.name}", done)


@router.post("/{name}/sessions/{session_id}/end")
def end_session(name: str, session_id: str, visit: Writer) -> Response:
    """One of their sign-ins; one that is over already is as good."""
    user = users.named(visit.services.store, name)
    with suppress(SessionMissing):
        visit.services.access.end_sessions(visit.who, user, session_id)
    return visit.go(f"/users/{user.name}", "That session is ended. Whoever used it has to sign in again.")


@router.post("/tokens/{token_id}/revoke")
def revoke(token_id: str, visit: Writer) -> Response:
    """It stops working at once."""
    visit.services.access.revoke_token(visit.who, token_id)
    return visit.go("/users", "The token is revoked and works no longer.")


def _role(text: str) -> Role:
    """Raises InvalidUser; agents act by token and never sign in."""
    if text not in set(Role) - {Role.AGENT}:
        raise InvalidUser(f"{ascii(text)[:30]} is no role people have.", effect="Nothing was changed.")
    return Role(text)
