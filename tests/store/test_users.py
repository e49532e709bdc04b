"""Users, sessions, tokens and idempotency keys, on a real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from orchestrator.core.access import InvalidUser, Role, Scope, UserExists, UserMissing
from orchestrator.core.tenants import PoolMode, RefreshPolicy
from orchestrator.store import idempotency, sessions, tenants, tokens, users
from orchestrator.store.secrets import is_password, new_password
from tests.support.cluster import Cluster
from tests.support.stores import control_store

HOUR_S = 3600.0


@pytest.fixture
def store(cluster: Cluster) -> Iterator[Engine]:
    with control_store(cluster) as engine:
        yield engine


def tenant_id(store: Engine, name: str) -> str:
    return tenants.add(
        store,
        name,
        profile="office",
        image="",
        scope=None,
        snapshot_profile="full",
        refresh_policy=RefreshPolicy.SAVE,
        pool_mode=PoolMode.TRANSACTION,
        tenants_max=10,
    ).id


def test_a_user_belongs_to_tenants(store: Engine) -> None:
    harbour = tenant_id(store, "harbour")
    user = users.add(store, "mia@example.com", Role.MANAGER, new_password(), tenant_ids=[harbour])
    assert users.named(store, "mia@example.com") == user
    assert user.tenant_ids == {harbour}
    users.leave(store, user.id, harbour)
    assert users.get(store, user.id).tenant_ids == frozenset()
    with pytest.raises(UserExists):
        users.add(store, "mia@example.com", Role.ADMIN, new_password())
    with pytest.raises(InvalidUser):
        users.add(store, "noah", Role.MANAGER, new_password(), tenant_ids=["tnowhere"])
    with pytest.raises(UserMissing):
        users.named(store, "noah")


@pytest.mark.parametrize("name", ["", "Mia", "../x", "a b", "x" * 65, "mía", "-a"])
def test_odd_user_names_are_refused(store: Engine, name: str) -> None:
    with pytest.raises(InvalidUser):
        users.add(store, name, Role.MANAGER, new_password())


def test_passwords_are_kept_as_argon2id_and_short_ones_refused(store: Engine) -> None:
    user = users.add(store, "mia", Role.ADMIN, "correct horse battery")
    found = users.password_hash(store, "mia")
    assert found is not None and found[1].startswith("$argon2id$")
    assert is_password("correct horse battery", found[1])
    assert not is_password("correct horse", found[1])
    assert not is_password("whatever it is", None)
    with pytest.raises(InvalidUser):
        users.set_password(store, user.id, "short")
    users.set_disabled(store, user.id, True)
    assert users.password_hash(store, "mia") is None


def test_a_session_opens_one_host_and_ends_with_its_parent(store: Engine) -> None:
    user = users.add(store, "mia", Role.ADMIN, new_password())
    secret, console = sessions.begin(store, user.id, "console.localhost", lifetime_s=HOUR_S)
    host_secret, host = sessions.begin(store, user.id, "harbour.localhost", lifetime_s=HOUR_S, parent_id=console.id)
    assert sessions.find(store, secret, "console.localhost", idle_s=HOUR_S) == (console, user)
    assert sessions.find(store, secret, "harbour.localhost", idle_s=HOUR_S) is None
    assert sessions.find(store, host_secret, "harbour.localhost", idle_s=HOUR_S) == (host, user)
    assert sessions.find(store, host_secret, "console.localhost", idle_s=HOUR_S) is None
    sessions.end(store, console.id)
    assert sessions.find(store, host_secret, "harbour.localhost", idle_s=HOUR_S) is None


def test_sessions_expire_and_go_idle(store: Engine) -> None:
    user = users.add(store, "mia", Role.ADMIN, new_password())
    secret, _ = sessions.begin(store, user.id, "console.localhost", lifetime_s=HOUR_S)
    with store.begin() as connection:
        connection.execute(text("UPDATE sessions SET seen_at = now() - interval '10 minutes'"))
    assert sessions.find(store, secret, "console.localhost", idle_s=60) is None
    assert sessions.find(store, secret, "console.localhost", idle_s=HOUR_S) is not None  # and notes it was seen
    assert sessions.find(store, secret, "console.localhost", idle_s=60) is not None
    with store.begin() as connection:
        connection.execute(text("UPDATE sessions SET expires_at = now()"))
    assert sessions.find(store, secret, "console.localhost", idle_s=HOUR_S) is None
    assert sessions.prune(store, idle_s=HOUR_S) == 1


def test_an_entry_code_works_once_and_for_its_host_alone(store: Engine) -> None:
    user = users.add(store, "mia", Role.ADMIN, new_password())
    _, console = sessions.begin(store, user.id, "console.localhost", lifetime_s=HOUR_S)
    code = sessions.give_code(store, console.id, "harbour.localhost", lifetime_s=60)
    assert sessions.take_code(store, code, "hillside.localhost") is None
    assert sessions.take_code(store, code, "harbour.localhost") == console
    assert sessions.take_code(store, code, "harbour.localhost") is None


def test_tokens_are_found_by_their_secret_until_revoked(store: Engine) -> None:
    user = users.add(store, "mia", Role.MANAGER, new_password())
    secret, token = tokens.add(
        store,
        user.id,
        "laptop",
        role=Role.AGENT,
        scopes=[Scope.COMMANDS_RUN],
        tenant_ids=None,
        lifetime_s=HOUR_S,
    )
    found = tokens.find(store, secret)
    assert found is not None and (found[0].id, found[0].scopes) == (token.id, {Scope.COMMANDS_RUN})
    assert found[1] == users.get(store, user.id)
    assert tokens.get(store, token.id).last_used_at is not None
    assert tokens.find(store, secret + "x") is None
    users.set_disabled(store, user.id, True)
    assert tokens.find(store, secret) is None
    users.set_disabled(store, user.id, False)
    tokens.revoke(store, token.id)
    tokens.revoke(store, token.id)
    assert tokens.find(store, secret) is None


def test_failed_sign_ins_are_counted_by_name_within_a_window(store: Engine) -> None:
    for _ in range(3):
        users.note_failure(store, "nobody", window_s=60)
    assert users.failures(store, "nobody", window_s=60) == 3
    with store.begin() as connection:
        connection.execute(text("UPDATE sign_in_failures SET since = now() - interval '2 minutes'"))
    assert users.failures(store, "nobody", window_s=60) == 0


def test_an_idempotency_key_gives_the_first_answer_again(store: Engine) -> None:
    assert idempotency.claim(store, "u1", "key", b"request") is None
    with pytest.raises(idempotency.KeyBusy):
        idempotency.claim(store, "u1", "key", b"request")
    idempotency.answer(store, "u1", "key", 201, {"id": "t1"})
    assert idempotency.claim(store, "u1", "key", b"request") == idempotency.Answer(201, {"id": "t1"})
    with pytest.raises(idempotency.KeyReused):
        idempotency.claim(store, "u1", "key", b"another")
    assert idempotency.claim(store, "u2", "key", b"another") is None
    idempotency.forget(store, "u2", "key")
    assert idempotency.claim(store, "u2", "key", b"third") is None
