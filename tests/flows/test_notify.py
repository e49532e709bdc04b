"""Other programs are told what happened: signed, repeated within a limit, and never what stands in rows."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import Engine, text

from orchestrator.config import InvalidConfiguration
from orchestrator.core.actors import Actor, ActorKind
from orchestrator.core.jobs import Job, JobState
from orchestrator.core.publishes import PublishState
from orchestrator.core.receivers import WebhookSection
from orchestrator.core.refresh import RefreshKind
from orchestrator.core.webhooks import DeliveryFailed, Target, TargetMissing, WeakSecret, key
from orchestrator.drivers.audit.log import FileAuditLog
from orchestrator.drivers.webhook.sender import HttpSender
from orchestrator.errors import OrchestratorError
from orchestrator.flows.notify import DeliveryUnderWay, NotifyFlow
from orchestrator.scheduler.worker import Worker
from orchestrator.store import changes, jobs, outbox, publishes, refreshes, snapshots, tenants
from orchestrator.store.tables.jobs import JOBS
from tests.support.cluster import Cluster
from tests.support.interfaces import tenant
from tests.support.proposing import RUTH
from tests.support.receiver import Receiver, receiver
from tests.support.stores import control_store

SECRET = "a-secret-of-enough-bytes"
ADMIN = Actor(ActorKind.PERSON, "u-ada", "ada")
ROUNDS_MAX = 1200


@dataclass
class Post:
    flow: NotifyFlow
    told: Receiver
    store: Engine
    directory: Path

    def put(self, kind: str, **data: Any) -> None:
        with self.store.begin() as connection:
            outbox.put(connection, kind, subject="c1", actor="ruth", data=data)

    def attempt(self) -> Job:
        """Do the next job as the scheduler does, whenever it is due."""
        with self.store.begin() as connection:
            connection.execute(text("UPDATE jobs SET not_before = clock_timestamp() WHERE state = 'queued'"))
            before = connection.execute(text("SELECT id, attempts FROM jobs WHERE state = 'queued'")).one()
        worker = Worker(self.store, {"webhook": self._deliver}, poll_s=0.05)
        worker.start()
        try:
            for _ in range(ROUNDS_MAX):
                job = jobs.get(self.store, before.id)
                if job.state is not JobState.RUNNING and job.attempts > before.attempts:
                    return job
                threading.Event().wait(0.05)
        finally:
            worker.stop()
        raise AssertionError("the job was not done")

    def _deliver(self, context: Any) -> Any:
        return self.flow.deliver(context.job.arguments["number"], context.job.arguments["target"])


@pytest.fixture
def post(cluster: Cluster, tmp_path: Path) -> Iterator[Post]:
    with control_store(cluster) as store, receiver() as told:
        flow = NotifyFlow(
            store=store,
            audit=FileAuditLog(tmp_path / "audit", tmp_path / "audit.key"),
            sender=HttpSender(),
            targets=(Target("chat", told.url, ("change.*", "*.failed")),),
            secret=lambda _: SECRET,
            instance="orc",
            timeout_s=20.0,
            attempts_max=3,
        )
        yield Post(flow, told, store, tmp_path)


def test_what_happened_arrives_signed_and_without_the_content_of_rows(post: Post) -> None:
    conflict = [{"column": "guest", "was": "Mrs Secretive", "wanted": "x", "now": "y"}]
    post.put("change.conflicted", findings=conflict, title="New prices", rows=3)
    assert post.flow.dispatch() == 1 and post.flow.dispatch() == 0
    assert post.attempt().state is JobState.DONE
    ((path, headers, content),) = post.told.seen
    assert path == "/hook?token=hidden-token"
    signed = b".".join([headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), content])
    digest = hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()
    document = json.loads(content)
    assert document["type"] == "change.conflicted" and document["instance"] == "orc"
    assert document["data"] == {"findings": 1, "title": "New prices", "rows": 3}
    assert document["text"] == "change c1: conflicted by ruth (New prices)"
    assert b"Secretive" not in content
    (delivery,) = outbox.deliveries(post.store)
    assert (delivery.state, delivery.status, delivery.target, delivery.subject) == ("done", 204, "chat", "c1")


def test_what_is_rolled_back_is_never_told(post: Post) -> None:
    with post.store.connect() as connection:
        outbox.put(connection, "change.promoted", subject="c1", actor="ruth")
        connection.rollback()
    assert post.flow.dispatch() == 0


def test_nobody_is_told_what_nobody_asked_for_and_it_does_not_wait_for_ever(post: Post) -> None:
    post.put("branch.merged")
    assert post.flow.dispatch() == 0
    with post.store.connect() as connection:
        assert outbox.waiting(connection, limit=10) == []


def test_two_dispatchers_at_once_make_each_delivery_once(post: Post) -> None:
    for _ in range(20):
        post.put("change.promoted")
    asked: list[int] = []
    threads = [threading.Thread(target=lambda: asked.append(post.flow.dispatch())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(asked) == 20
    with post.store.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM jobs")) == 20


def test_a_receiver_in_trouble_is_tried_again_within_the_limit_and_then_by_hand(post: Post) -> None:
    post.told.answers = [500, 503, 500, 200]
    post.put("refresh.failed")
    post.flow.dispatch()
    first = post.attempt()
    assert (first.state, first.error_code) == (JobState.QUEUED, "outside_failure.webhook")
    (delivery,) = outbox.deliveries(post.store)
    assert delivery.next_at is not None and "answered 500" in (delivery.error or "")
    with pytest.raises(DeliveryUnderWay):
        post.flow.repeat(delivery.id, actor=ADMIN)
    assert post.attempt().state is JobState.QUEUED
    assert post.attempt().state is JobState.FAILED
    assert outbox.counts(post.store) == {"chat": {"failed": 1}}
    again = post.flow.repeat(delivery.id, actor=ADMIN)
    assert (again.state, again.number) == ("queued", delivery.number)
    assert post.attempt().state is JobState.DONE
    ids = {headers["webhook-id"] for _, headers, _ in post.told.seen}
    assert len(post.told.seen) == 4 and len(ids) == 1, "a receiver can tell a repetition by its id"


def test_redirects_are_not_followed(post: Post) -> None:
    post.told.answers = [307]
    with pytest.raises(DeliveryFailed, match=r"answered 307.*not followed"):
        post.flow.test("chat", actor=ADMIN)
    assert [path for path, _, _ in post.told.seen] == ["/hook?token=hidden-token"]


def test_an_answer_that_never_ends_is_cut_off(post: Post) -> None:
    post.told.drip = True
    with pytest.raises(DeliveryFailed, match=r"did not answer within 0\.3 s"):
        HttpSender().send(post.told.url, b"{}", {}, timeout_s=0.3)


def test_nobody_there_is_a_plain_sentence_without_the_address(post: Post) -> None:
    with pytest.raises(DeliveryFailed) as caught:
        HttpSender().send("http://127.0.0.1:9/hook?token=hidden-token", b"{}", {}, timeout_s=20)
    assert "127.0.0.1 cannot be reached" in str(caught.value)
    assert "hidden-token" not in str(caught.value) + repr(caught.value.fields) + repr(post.flow.targets)


def test_a_weak_secret_sends_nothing_and_is_not_repeated(post: Post) -> None:
    weak = NotifyFlow(**{**post.flow.__dict__, "secret": lambda _: "short"})
    post.flow = weak
    post.put("change.promoted")
    weak.dispatch()
    job = post.attempt()
    assert (job.state, job.error_code) == (JobState.FAILED, WeakSecret.code)
    assert post.told.seen == []
    assert key("whsec_" + base64.b64encode(b"k" * 24).decode()) == b"k" * 24
    with pytest.raises(WeakSecret):
        key("whsec_not base64!")
    with pytest.raises(TargetMissing):
        post.flow.test("nobody", actor=ADMIN)


def test_failures_of_refreshes_publishes_snapshots_and_tenants_are_told_with_their_states(post: Post) -> None:
    made = tenant(post.store, "north")
    refresh = refreshes.begin(
        post.store, tenant_id=made.id, kind=RefreshKind.REFRESH, generation_id="g1", previous_id=None,
        snapshot_id=None, requested_by="clock",
    )  # fmt: skip
    for _ in range(2):  # the second finds it ended, and says nothing
        refreshes.fail(post.store, refresh.id, code="outside_failure.postgres", message="It did not start.")
    publish = publishes.begin(post.store, made.id, actor="clock", reason="nightly", base_commit=None)
    publishes.finish(post.store, publish.id, PublishState.FAILED, error="The remote is away.")
    with post.store.begin() as connection:
        now = datetime.now(UTC)
        snapshots.add(connection, "s1", profile="full", source="mirror", image="", now=now)
        snapshots.set_failed(connection, "s1", code="conflict.masking", message="a column is unclassified", now=now)
    from orchestrator.core.tenants import TenantState

    tenants.set_state(post.store, made.id, TenantState.FAILED, reason="five attempts")
    with post.store.connect() as connection:
        told = [(notice.kind, notice.tenant_id is not None) for notice in outbox.waiting(connection, limit=10)]
    assert told == [
        ("refresh.failed", True),
        ("publish.failed", True),
        ("snapshot.failed", False),
        ("tenant.failed", True),
    ]
    assert post.flow.dispatch() == 4


def test_events_of_changes_are_told_in_their_own_transaction(post: Post) -> None:
    from orchestrator.core.changeset.changeset import Changeset

    with post.store.begin() as connection:
        made = changes.add(
            connection, tenant_id="t1", tenant_name="north", title="New prices", description="", author=RUTH,
            generation_id=None, changeset=Changeset.build("s1", {}, []), digest="d", code_head=None,
        )  # fmt: skip
        changes.event(connection, made, "change.drafted", RUTH, rows=0)
    with post.store.connect() as connection:
        (notice,) = outbox.waiting(connection, limit=10)
    assert (notice.kind, notice.subject, notice.actor) == ("change.drafted", made.id, "ruth")
    assert notice.data == {"title": "New prices", "state": "draft", "rows": 0}


def test_old_notices_are_forgotten_once_they_are_settled(post: Post) -> None:
    post.put("change.promoted")
    assert outbox.prune(post.store, keep_days=0) == 0
    post.flow.dispatch()
    assert outbox.prune(post.store, keep_days=0) == 1
    job_id = outbox.deliveries(post.store)[0].id
    with post.store.begin() as connection:
        connection.execute(JOBS.update().values(state="done", finished_at=text("now()")))
    with pytest.raises(OrchestratorError, match="no longer kept"):
        post.flow.repeat(job_id, actor=ADMIN)


@pytest.mark.parametrize(
    "target",
    [
        {"url": "http://hooks.example.com/x", "secret_env": "S"},
        {"url": "https://user:word@hooks.example.com/x", "secret_env": "S"},
        {"url": "file:///etc/passwd", "secret_env": "S"},
        {"url": "https://hooks.example.com/x"},
        {"url": "https://hooks.example.com/x", "secret_env": "S", "secret_file": "/f"},
        {"url": "https://hooks.example.com/x", "secret": "in the file"},
    ],
)
def test_what_may_not_be_configured(target: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        WebhookSection.model_validate({"targets": {"chat": target}})


def test_addresses_and_secrets_stay_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator import config
    from orchestrator.wiring.notifying import secret, webhook_results

    section = {"targets": {"chat": {"url": "https://hooks.example.com/hidden-part", "secret_env": "CHAT_SECRET"}}}
    chosen = config.Settings.model_validate({"webhooks": section})
    assert "hidden-part" not in json.dumps(chosen.model_dump(mode="json")) + repr(chosen)
    with pytest.raises(InvalidConfiguration):
        secret(chosen, "chat")
    assert [result.ok for result in webhook_results(chosen)] == [False]
    monkeypatch.setenv("CHAT_SECRET", SECRET)
    assert secret(chosen, "chat") == SECRET
    assert [result.ok for result in webhook_results(chosen)] == [True]
