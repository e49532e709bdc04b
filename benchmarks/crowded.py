"""A control database as full as a large company's: 100 tenants, 10,000 commands, 1,000 changes and all around them."""

from __future__ import annotations

import os
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

from sqlalchemy import Engine, insert, text

from orchestrator.core.actors import Actor, ActorKind
from orchestrator.core.audit import AuditEvent, Result
from orchestrator.core.changeset.changeset import Changeset
from orchestrator.core.changeset.rows import RowChange, RowKind
from orchestrator.core.changeset.shape import Column, TableName, TableShape
from orchestrator.core.ports.audit import AuditLog
from orchestrator.core.probes import BOUNDARIES, Kind, Outcome, Probe
from orchestrator.store import changes
from orchestrator.store.tables.changes import CHANGES
from orchestrator.store.tables.probes import PROBES
from orchestrator.store.tables.promotions import PROMOTIONS

TENANTS, COMMANDS, CHANGES_COUNT, AUDIT = 100, 10_000, 1_000, 20_000
REVIEW_ROWS = 10_000
AGENT = Actor(ActorKind.AGENT, "tok_bench", "manager/pricing", on_behalf_of="u-bench")
RATES = TableName("hotel", "rates")
# Everything that needs no Python: `:t` is the busy tenant, `:n` its name, `:s` the snapshot all data comes from.
FILLED = (
    """INSERT INTO tenants (id, name, number, profile, image, state, scope, snapshot_profile, refresh_policy, pool_mode,
         created_at) SELECT 'tb' || i, 'bench-' || i, 1000 + i, 'office', '', 'stopped', 'harbour', 'full', 'save',
         'transaction', now() - i * interval '1 day' FROM generate_series(1, :more) i""",
    """INSERT INTO tenant_steps (tenant_id, operation, operation_id, step, state, begun_at, ended_at, spent_s)
         SELECT id, 'launch', 'o' || k, 'step ' || k, 'done', now() - k * interval '1 minute', now(), 0.2
         FROM tenants, generate_series(1, 40) k""",
    """INSERT INTO generations (id, tenant_id, snapshot_id, state, created_at, live_at, retired_at)
         SELECT 'gb' || t.id || '-' || k, t.id, :s, CASE WHEN k = 1 THEN 'live' ELSE 'removed' END,
         now() - k * interval '4 hours', now() - k * interval '4 hours', CASE WHEN k > 1 THEN now() END
         FROM tenants t, generate_series(1, 40) k WHERE t.id LIKE 'tb%'""",
    """INSERT INTO refreshes (id, tenant_id, kind, state, step, requested_by, generation_id, gap_s, started_at,
         finished_at) SELECT 'rb' || t.id || '-' || k, t.id, 'refresh', 'done', 'finished', 'scheduler', 'gb', 0.02,
         now() - k * interval '4 hours', now() - k * interval '4 hours' + interval '1 second'
         FROM tenants t, generate_series(1, 60) k""",
    """INSERT INTO publishes (id, tenant_id, state, step, reason, actor, commit, started_at, finished_at)
         SELECT 'pb' || t.id || '-' || k, t.id, 'published', 'pushed', 'nightly', 'scheduler', repeat('a', 40),
         now() - k * interval '1 day', now() - k * interval '1 day' FROM tenants t, generate_series(1, 30) k""",
    """INSERT INTO slots (key, kind, target, due_at, outcome, reason) SELECT 'refresh-' || t.id || '-b' || k, 'refresh',
         t.id, now() - k * interval '4 hours', 'run', 'it was due' FROM tenants t, generate_series(1, 60) k""",
    """INSERT INTO jobs (id, kind, tenant_id, state, requested_by, attempts_max, created_at, started_at, finished_at)
         SELECT 'jb' || t.id || '-' || k, 'refresh', t.id, 'done', 'scheduler', 3, now() - k * interval '4 hours',
         now() - k * interval '4 hours', now() - k * interval '4 hours' FROM tenants t, generate_series(1, 60) k""",
    """INSERT INTO job_lines (job_id, number, text) SELECT j.id, k, 'line ' || k
         FROM jobs j, generate_series(1, 5) k WHERE j.id LIKE 'jb%'""",
    """INSERT INTO commands (id, tenant_id, tenant, actor_kind, actor_id, actor_name, on_behalf_of, argv, cwd, place,
         network, decision, rule, policy_version, state, exit_code, duration_ms, output_bytes, created_at, finished_at)
         SELECT 'kb' || i, CASE WHEN i % 2 = 0 THEN :t ELSE 'tb' || (i % :more + 1) END,
         CASE WHEN i % 2 = 0 THEN :n ELSE 'bench-' || (i % :more + 1) END,
         'agent', 'tok_bench', 'manager/pricing', 'u-bench', CASE WHEN i % 3 = 0
         THEN jsonb_build_array('query', 'SELECT * FROM hotel.rates WHERE id = ' || i)
         ELSE jsonb_build_array('grep', '-rn', 'price ' || i, '/workspace') END, '/workspace', 'sandbox', 'none',
         CASE WHEN i % 10 = 0 THEN 'deny' ELSE 'allow' END, CASE WHEN i % 10 = 0 THEN '' ELSE 'grep' END, 1,
         CASE WHEN i % 10 = 0 THEN 'denied' ELSE 'finished' END, 0, 12, 2000,
         now() - i * interval '1 minute', now() - i * interval '1 minute' FROM generate_series(1, :commands) i""",
    """INSERT INTO command_outputs (command_id, seq, stream, data) SELECT id, 0, 'stdout',
         convert_to(repeat('some line of output' || chr(10), 100), 'UTF8') FROM commands WHERE id LIKE 'kb%'""",
    """INSERT INTO approvals (id, kind, tenant_id, tenant, actor_kind, actor_id, actor_name, argv, cwd, place, network,
         binding, policy_version, reason, state, created_at, expires_at)
         SELECT 'ab' || i, 'command', CASE WHEN i % 2 = 0 THEN :t ELSE 'tb' || (i % :more + 1) END, 'bench',
         'agent', 'tok_bench', 'manager/pricing', '["rm", "old.txt"]', '/workspace',
         'sandbox', 'none', 'binding' || i, 1, 'it is old', CASE WHEN i % 5 = 0 THEN 'pending' ELSE 'denied' END,
         now() - i * interval '1 minute', now() + interval '1 day' FROM generate_series(1, 1000) i""",
    """INSERT INTO users (id, name, role, password_hash) SELECT 'ub' || i, 'person-' || i, 'manager', 'x'
         FROM generate_series(1, 200) i""",
    "INSERT INTO user_tenants SELECT 'ub' || i, 'tb' || (i % :more + 1) FROM generate_series(1, 200) i",
    """INSERT INTO tokens (id, digest, user_id, name, role, scopes, expires_at) SELECT 'kb' || i,
         decode(md5(i::text), 'hex'), 'ub' || (i % 200 + 1), 'agent ' || i, 'agent', '{}', now() + interval '9 days'
         FROM generate_series(1, 400) i""",
    """INSERT INTO snapshots (id, profile, state, step, source, image, started_at, taken_at, finished_at, manifest)
         SELECT 'sb' || i, profile, 'removed', step, source, image, started_at - i * interval '4 hours',
         taken_at - i * interval '4 hours', finished_at - i * interval '4 hours', manifest
         FROM snapshots, generate_series(1, 200) i WHERE id = :s""",
)
AFTER_CHANGES = (
    """INSERT INTO change_events (change_id, tenant_id, kind, actor, at) SELECT c.id, c.tenant_id, kind, c.author,
         c.created_at FROM changes c, unnest(ARRAY['drafted', 'submitted', 'commented', 'approved']) kind""",
    """INSERT INTO change_comments (id, change_id, author, text) SELECT 'm' || c.id || k, c.id, c.author,
         'A word about it.' FROM changes c, generate_series(1, 3) k""",
    "ANALYZE",
)


def fill(store: Engine, *, tenant_id: str, name: str, snapshot_id: str) -> list[str]:
    """Fill it around one busy tenant; returns the addresses of five changes of 10,000 rows."""
    with store.connect() as connection:
        present = int(connection.scalar(text("SELECT count(*) FROM tenants WHERE state <> 'removed'")) or 0)
    known = {"t": tenant_id, "n": name, "s": snapshot_id, "more": TENANTS - present, "commands": COMMANDS}
    with store.begin() as connection:
        for statement in FILLED:
            connection.execute(text(statement), known)
        ids = [str(one) for one in connection.scalars(text("SELECT id FROM tenants WHERE state <> 'removed'"))]
        connection.execute(insert(PROBES), [_report(one, number) for one in ids for number in range(5)])
        small = _content(_rates(5))
        rows = [_change(number, ids, tenant_id, small) for number in range(CHANGES_COUNT)]
        connection.execute(insert(CHANGES), rows)
        promoted = [row for row in rows if row["state"] == "promoted"]
        connection.execute(insert(PROMOTIONS), [_promotion(row) for row in promoted])
        large = [{**_change(number, ids, tenant_id, _content(_rates(REVIEW_ROWS)))} for number in range(-5, 0)]
        connection.execute(insert(CHANGES), [{**row, "state": "submitted"} for row in large])
        for statement in AFTER_CHANGES:
            connection.execute(text(statement))
    return [f"/changes/{row['id']}" for row in large]


def record(audit: AuditLog, tenant: str, *, count: int = AUDIT) -> None:
    """An audit trail to search, written without waiting for the disk."""
    with patch.object(os, "fdatasync", lambda _: None):
        for number in range(count):
            details = {"argv": ["grep", "-rn", f"price {number}", "/workspace"]}
            audit.append(AuditEvent(AGENT, "command.run", tenant=tenant, result=Result.OK, details=details))


def _report(tenant_id: str, number: int) -> dict[str, Any]:
    tried = [one for one in BOUNDARIES if one.kind is Kind.ENFORCED]
    probes = [asdict(Probe(one.id, Outcome.HOLDS, "tried it", "it was refused")) for one in tried]
    at = datetime.now(UTC) - timedelta(hours=number)
    return {"id": f"b{tenant_id}{number}", "tenant_id": tenant_id, "at": at, "is_sound": True, "probes": probes}


def _rates(count: int) -> Changeset:
    """So many changed prices."""
    names = (
        "id",
        "property_id",
        "type_code",
        "starts_on",
        "ends_on",
        "price",
        "currency",
        "min_nights",
        "note",
        "rank",
    )
    columns = tuple(Column(name, "text", base="text") for name in names)
    shape = TableShape(RATES, columns, primary_key=("id",))
    rows = []
    for number in range(count):
        old = {name: f"{name} {number}" for name in names} | {"id": str(number), "price": "100.00"}
        rows.append(RowChange(RATES, RowKind.UPDATE, (str(number),), old, {**old, "price": "110.00"}))
    return Changeset.build("s-bench", {RATES: shape}, rows)


def _content(changeset: Changeset) -> dict[str, Any]:
    return {
        "base_snapshot_id": "s-bench",
        "rows_digest": changeset.digest(),
        "digest": changeset.digest(),
        "updated": len(changeset),
        "tables": ["hotel.rates"],
        "changeset": changes.packed(changeset),
    }


STATES = ("submitted", "submitted", "approved", "promoted", "promoted", "rejected", "withdrawn", "draft", "conflicted")


def _change(number: int, tenant_ids: list[str], busy: str, content: dict[str, Any]) -> dict[str, Any]:
    at = datetime.now(UTC) - timedelta(minutes=10 * (number + 10))
    state = STATES[number % len(STATES)]
    owner = busy if number % 4 == 0 else tenant_ids[number % len(tenant_ids)]
    is_promoted = state == "promoted"
    return {
        "id": f"cb{number % 100_000}",
        "tenant_id": owner,
        "tenant_name": f"of {owner}",
        "title": f"Prices of week {number}",
        "description": "The week is fuller than we thought.",
        "state": state,
        "author": changes.actor_document(AGENT),
        "checks": {"rules": {"findings": [], "blocking": 0}},
        "risks": [{"severity": "warning", "sentence": "Prices change by more than 5 %.", "code": "large"}],
        "created_at": at,
        "updated_at": at,
        "submitted_at": at,
        "promoted_at": at if is_promoted else None,
        "promotion_id": f"pb{number}" if is_promoted else None,
        **content,
    }


def _promotion(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": row["promotion_id"],
        "change_id": row["id"],
        "kind": "promote",
        "state": "committed",
        "step": "recording",
        "digest": row["digest"],
        "actor": row["author"],
        "updated": row["updated"],
        "finished_at": row["updated_at"],
        "duration_s": 0.2,
    }


def first_row_id() -> str:
    """How the first row of every change here is named."""
    return _rates(1).rows[0].id()
