"""Reading the log: search from the newest record back, export from the oldest on, prune whole days."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.core.audit import AuditRecord
from orchestrator.core.ports.audit import AuditQuery
from orchestrator.drivers.audit.files import AuditFiles, Head, last_line

LIMIT_MAX = 1_000
BLOCK_BYTES = 65_536


def search(files: AuditFiles, query: AuditQuery) -> list[AuditRecord]:
    """Newest first, at most `query.limit` and never more than 1,000."""
    limit = max(1, min(query.limit, LIMIT_MAX))
    found: list[AuditRecord] = []
    for path in reversed(files.days()):
        if not _day_may_match(path, query):
            continue
        for text in _lines_backwards(path):
            record = _record(text)
            if record is not None and matches(record, query):
                found.append(record)
                if len(found) == limit:
                    return found
    return found


def export(files: AuditFiles, query: AuditQuery) -> Iterator[AuditRecord]:
    """Oldest first; lines that are no record are left out (verify reports them)."""
    for path in files.days():
        if not _day_may_match(path, query):
            continue
        with path.open("rb") as file:
            for text in file:
                record = _record(text)
                if record is not None and matches(record, query):
                    yield record


def matches(record: AuditRecord, query: AuditQuery) -> bool:
    """Whether a record is what `query` asks for."""
    if query.before_seq is not None and record.seq >= query.before_seq:
        return False
    for name in ("tenant", "decision", "result", "rule", "request_id"):
        wanted = getattr(query, name)
        if wanted is not None and record.text(name) != wanted:
            return False
    return _action_matches(record, query) and _actor_matches(record, query) and _time_matches(record, query)


def _action_matches(record: AuditRecord, query: AuditQuery) -> bool:
    if query.action is not None:
        action = record.text("action")
        if not (action.startswith(query.action) if query.action.endswith(".") else action == query.action):
            return False
    if query.contains:
        return query.contains.casefold() in json.dumps(dict(record.values), ensure_ascii=False).casefold()
    return True


def _actor_matches(record: AuditRecord, query: AuditQuery) -> bool:
    if query.actor is None:
        return True
    actor = record.values.get("actor")
    return isinstance(actor, dict) and query.actor in (actor.get("id"), actor.get("name"), actor.get("on_behalf_of"))


def _time_matches(record: AuditRecord, query: AuditQuery) -> bool:
    if query.since is None and query.until is None:
        return True
    try:
        time = datetime.fromisoformat(record.text("time").replace("Z", "+00:00"))
    except ValueError:
        return False
    return (query.since is None or time >= query.since) and (query.until is None or time < query.until)


def _day_may_match(path: Path, query: AuditQuery) -> bool:
    """Days after `until` cannot match; days before `since` cannot either (a record is never in an earlier file)."""
    if query.until is not None and path.stem > query.until.astimezone(UTC).date().isoformat():
        return False
    return query.since is None or path.stem >= query.since.astimezone(UTC).date().isoformat()


def _record(text: bytes) -> AuditRecord | None:
    try:
        values = json.loads(text)
    except ValueError:
        return None
    return AuditRecord(values) if isinstance(values, dict) else None


def _lines_backwards(path: Path) -> Iterator[bytes]:
    """Whole lines from the end of the file, without reading it all."""
    with path.open("rb") as file:
        position = file.seek(0, os.SEEK_END)
        rest = b""
        while position > 0:
            size = min(BLOCK_BYTES, position)
            position -= size
            file.seek(position)
            parts = (file.read(size) + rest).split(b"\n")
            rest = parts[0]
            yield from (part for part in reversed(parts[1:]) if part)
        if rest:
            yield rest


def prune(files: AuditFiles, key: bytes, *, before: datetime) -> list[str]:
    """Delete day files before `before`, never the newest one. The base is written first, then the files go."""
    old = [path for path in files.days()[:-1] if path.stem < before.astimezone(UTC).date().isoformat()]
    removed: list[str] = []
    for path in old:
        text, _ = last_line(path)
        if text:
            values = json.loads(text)
            files.write_base(key, Head(int(values["seq"]), str(values["hash"])))
        path.unlink()
        removed.append(path.name)
    return removed
