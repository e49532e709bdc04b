"""Who may see deliveries and try receivers, over the API."""

from __future__ import annotations

from pathlib import Path

from orchestrator.core.access import Role
from orchestrator.core.webhooks import Target
from orchestrator.drivers.audit.log import FileAuditLog
from orchestrator.drivers.webhook.sender import HttpSender
from orchestrator.flows.notify import NotifyFlow
from orchestrator.store import outbox
from tests.support.cluster import Cluster
from tests.support.interfaces import OWN_PAGE, person, served, signed_in
from tests.support.receiver import receiver


def test_receivers_are_seen_tried_and_repeated(cluster: Cluster, tmp_path: Path) -> None:
    with receiver() as told, served(cluster, tmp_path) as (client, services):
        notify = NotifyFlow(
            store=services.store,
            audit=FileAuditLog(tmp_path / "own", tmp_path / "own.key"),
            sender=HttpSender(),
            targets=(Target("chat", told.url, ("*",)),),
            secret=lambda _: "a-secret-of-enough-bytes",
            instance="orc",
            timeout_s=20.0,
            attempts_max=1,
        )
        object.__setattr__(services, "notify", notify)
        for name, role in (("ada", Role.ADMIN), ("ruth", Role.REVIEWER), ("mia", Role.MANAGER)):
            person(services, name, role)
        with services.store.begin() as connection:
            outbox.put(connection, "change.promoted", subject="c1", actor="ruth")
        notify.dispatch()
        signed_in(client, "mia")
        assert client.get("/api/v1/webhooks").status_code == 403
        signed_in(client, "ruth")
        assert client.get("/api/v1/webhooks").json() == [{"name": "chat", "kinds": ["*"], "deliveries": {"queued": 1}}]
        (delivery,) = client.get("/api/v1/webhooks/deliveries", params={"state": "queued"}).json()
        assert (delivery["kind"], delivery["subject"], delivery["target"]) == ("change.promoted", "c1", "chat")
        assert client.post("/api/v1/webhooks/chat/test", headers=OWN_PAGE).status_code == 403
        signed_in(client, "ada")
        assert client.post("/api/v1/webhooks/chat/test", headers=OWN_PAGE).json()["status"] == 204
        assert client.post("/api/v1/webhooks/nobody/test", headers=OWN_PAGE).status_code == 404
        repeat = f"/api/v1/webhooks/deliveries/{delivery['id']}/repeat"
        assert client.post(repeat, headers=OWN_PAGE).status_code == 409
        assert len(told.seen) == 1
