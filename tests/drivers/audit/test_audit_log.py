"""The audit log tells every kind of tampering apart, survives crashes, and stops work when it cannot be written."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.core.actors import Actor, ActorKind
from orchestrator.core.audit import AuditEvent, Checkpoint, Phase, Result, line, record_hash
from orchestrator.core.ports.audit import AuditQuery, AuditUnavailable, Verdict
from orchestrator.drivers.audit.log import FileAuditLog

NOON = datetime(2031, 5, 4, 12, 0, tzinfo=UTC)
AGENT = Actor(ActorKind.AGENT, "tok_1", "north agent", on_behalf_of="user_1")


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        self.now += timedelta(milliseconds=1)
        return self.now


class Log:
    """A log in a directory of its own, and hands that tamper with it."""

    def __init__(self, root: Path) -> None:
        self.directory = root / "audit"
        self.clock = Clock()
        self.key_file = root / "secrets" / "audit-key"
        self.log = self.reopen()

    def reopen(self) -> FileAuditLog:
        self.log = FileAuditLog(self.directory, self.key_file, clock=self.clock)
        return self.log

    def write(self, count: int) -> None:
        for number in range(count):
            self.log.append(AuditEvent(actor=AGENT, action="command.run", tenant="north", target=f"ls {number}"))

    @property
    def day(self) -> Path:
        return sorted(self.directory.glob("2*.jsonl"))[-1]

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(text) for text in self.day.read_text().splitlines()]

    def store(self, records: list[dict[str, object]]) -> None:
        self.day.write_bytes(b"".join(line(record) for record in records))

    def restamp(self, records: list[dict[str, object]]) -> None:
        """Compute numbers, links and hashes anew: what somebody with write access but without the key can do."""
        previous = "0" * 64
        for seq, record in enumerate(records, start=1):
            record["seq"], record["prev"] = seq, previous
            previous = record["hash"] = record_hash(record)
        self.store(records)

    def verdict(self) -> Verdict:
        return self.reopen().verify().verdict


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def test_a_record_has_exactly_the_stable_fields(log: Log) -> None:
    record = log.log.append(
        AuditEvent(
            actor=AGENT,
            action="command.run",
            tenant="north",
            target="ls\x1b[31m",
            phase=Phase.AFTER,
            result=Result.OK,
            exit_code=0,
            changed_paths=("a.txt",),
            details={"nan": float("nan"), "lone": "\ud800"},
        )
    )
    stored = log.lines()[0]
    assert list(stored)[:6] == ["schema", "seq", "time", "id", "request_id", "phase"]
    assert list(stored)[-2:] == ["prev", "hash"]
    assert stored["actor"] == {"kind": "agent", "id": "tok_1", "name": "north agent", "on_behalf_of": "user_1"}
    assert stored["hash"] == record.hash
    assert b"\x1b" not in log.day.read_bytes()
    assert log.verdict() is Verdict.INTACT


def test_an_endless_request_makes_a_bounded_record(log: Log) -> None:
    log.log.append(AuditEvent(actor=AGENT, action="command.run", target="x" * 5_000_000, changed_paths=("p",) * 9_999))
    assert len(log.day.read_bytes()) < 40_000


def _edit(log: Log) -> None:
    log.day.write_bytes(log.day.read_bytes().replace(b"ls 3", b"ls 9", 1))


def _edit_and_hash(log: Log) -> None:
    records = log.lines()
    records[3]["target"] = "ls 9"
    records[3]["hash"] = record_hash(records[3])
    log.store(records)


def _drop(log: Log) -> None:
    log.store([record for record in log.lines() if record["seq"] not in (4, 5)])


def _drop_first(log: Log) -> None:
    log.store(log.lines()[1:])


def _reorder(log: Log) -> None:
    records = log.lines()
    records[2], records[3] = records[3], records[2]
    log.store(records)


def _repeat(log: Log) -> None:
    records = log.lines()
    log.store([*records[:4], records[2], *records[4:]])


def _truncate(log: Log) -> None:
    log.store(log.lines()[:-2])


def _truncate_all(log: Log) -> None:
    log.day.unlink()


def _restamp(log: Log) -> None:
    records = log.lines()
    records[3]["target"] = "ls 9"
    log.restamp(records)


def _restamp_shorter(log: Log) -> None:
    log.restamp(log.lines()[:3] + log.lines()[4:])


def _damage(log: Log) -> None:
    log.day.write_bytes(log.day.read_bytes().replace(b'{"schema"', b'{"sch', 1))


def _damage_head(log: Log) -> None:
    head = json.loads((log.directory / "head").read_text())
    (log.directory / "head").write_text(json.dumps({**head, "count": head["count"] - 1}))


def _huge_number(log: Log) -> None:
    records = log.lines()
    records[3]["seq"] = 10**18
    records[3]["hash"] = record_hash(records[3])
    log.store(records)


@pytest.mark.parametrize(
    ("tamper", "expected"),
    [
        (_edit, {Verdict.EDITED}),
        (_edit_and_hash, {Verdict.EDITED}),
        (_drop, {Verdict.DROPPED}),
        (_drop_first, {Verdict.DROPPED}),
        (_reorder, {Verdict.REORDERED}),
        (_repeat, {Verdict.REORDERED}),
        (_truncate, {Verdict.TRUNCATED}),
        (_truncate_all, {Verdict.TRUNCATED}),
        (_restamp, {Verdict.RESTAMPED}),
        (_restamp_shorter, {Verdict.TRUNCATED}),
        (_damage, {Verdict.DAMAGED, Verdict.DROPPED}),
        (_damage_head, {Verdict.DAMAGED}),
        (_huge_number, {Verdict.DROPPED, Verdict.REORDERED}),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_verify_tells_what_was_done(log: Log, tamper: Callable[[Log], None], expected: set[Verdict]) -> None:
    log.write(8)
    tamper(log)
    assert {finding.verdict for finding in log.reopen().verify().findings} == expected


def test_a_rollback_of_log_and_head_shows_against_a_checkpoint_kept_elsewhere(log: Log) -> None:
    log.write(5)
    earlier = {path: path.read_bytes() for path in log.directory.iterdir()}
    log.write(3)
    kept = log.log.checkpoint()
    for path, content in earlier.items():
        path.write_bytes(content)
    (log.directory / "checkpoints.jsonl").unlink()
    assert log.verdict() is Verdict.INTACT  # everything on this machine was put back together
    seen = log.reopen().verify([Checkpoint.from_line(kept.as_line().decode())])
    assert seen.verdict is Verdict.TRUNCATED


def test_a_forged_checkpoint_is_damage_not_proof(log: Log) -> None:
    log.write(2)
    forged = Checkpoint("2031-05-04T12:00:00Z", 99, "f" * 64, "0" * 64)
    assert [one.verdict for one in log.log.verify([forged]).findings] == [Verdict.DAMAGED]


def test_nothing_is_appended_to_a_truncated_log(log: Log) -> None:
    log.write(4)
    _truncate(log)
    log.reopen()
    with pytest.raises(AuditUnavailable, match="ends at record 2, but 4 were written"):
        log.write(1)


def test_days_become_files_and_the_chain_goes_on(log: Log) -> None:
    log.write(2)
    log.clock.now += timedelta(days=1)
    log.write(2)
    log.clock.now -= timedelta(days=1)  # a clock that goes back must not put a record before an older one
    log.write(1)
    assert [path.name for path in sorted(log.directory.glob("2*.jsonl"))] == ["2031-05-04.jsonl", "2031-05-05.jsonl"]
    assert [record["seq"] for record in log.lines()] == [3, 4, 5]
    assert log.verdict() is Verdict.INTACT


def test_a_deleted_day_shows(log: Log) -> None:
    for _ in range(3):
        log.write(2)
        log.clock.now += timedelta(days=1)
    (log.directory / "2031-05-05.jsonl").unlink()
    assert log.verdict() is Verdict.DROPPED


def test_pruned_days_leave_a_log_that_verifies(log: Log) -> None:
    for _ in range(3):
        log.write(2)
        log.clock.now += timedelta(days=1)
    assert log.log.prune(before=NOON + timedelta(days=2)) == ["2031-05-04.jsonl", "2031-05-05.jsonl"]
    assert log.verdict() is Verdict.INTACT
    base = json.loads((log.directory / "base").read_text())
    (log.directory / "base").write_text(json.dumps({**base, "count": 5}))
    assert log.verdict() is Verdict.DAMAGED


def test_half_a_line_from_a_crash_is_set_aside(log: Log) -> None:
    log.write(2)
    with log.day.open("ab") as file:
        file.write(b'{"schema":1,"seq":3,"ti')
    log.reopen()
    log.write(1)
    assert [record["seq"] for record in log.lines()] == [1, 2, 3]
    assert log.verdict() is Verdict.INTACT
    assert len(list(log.directory.glob("torn-*"))) == 1


def test_what_cannot_be_recorded_is_refused_and_heals(log: Log) -> None:
    log.write(1)
    full = log.directory / "2031-05-05.jsonl"
    full.symlink_to("/dev/full")  # every write there fails like on a full disk
    log.clock.now += timedelta(days=1)
    with pytest.raises(AuditUnavailable, match="could not be written"):
        log.write(1)
    full.unlink()
    log.write(1)
    assert log.verdict() is Verdict.INTACT


def test_an_event_that_is_no_json_is_refused(log: Log) -> None:
    huge = {str(number): "y" * 4_000 for number in range(900)}
    with pytest.raises(AuditUnavailable, match="limit"):
        log.log.append(AuditEvent(actor=AGENT, action="command.run", details=huge))
    log.write(1)
    assert log.verdict() is Verdict.INTACT


def test_a_lost_key_stops_the_log(log: Log) -> None:
    log.write(1)
    log.key_file.unlink()
    log.reopen()
    with pytest.raises(AuditUnavailable, match="key is gone"):
        log.write(1)


WRITER = """
import sys
from pathlib import Path
from orchestrator.core.actors import system
from orchestrator.core.audit import AuditEvent
from orchestrator.drivers.audit.log import FileAuditLog
log = FileAuditLog(Path(sys.argv[1]), Path(sys.argv[2]))
for number in range(40):
    log.append(AuditEvent(actor=system(sys.argv[3]), action="test.write", target=str(number)))
"""


def test_many_processes_write_one_chain(log: Log) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(log.directory), str(log.key_file), name], env=environment)
        for name in ("a", "b", "c", "d")
    ]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0, 0]
    reader = FileAuditLog(log.directory, log.key_file)
    seen = reader.verify()
    assert (seen.verdict, seen.records) == (Verdict.INTACT, 160)


def test_many_threads_write_one_chain_and_each_gets_its_own_record(log: Log) -> None:
    def write(number: int) -> tuple[int, str]:
        event = AuditEvent(actor=AGENT, action="command.run", target=str(number))
        return number, log.log.append(event, durable=number % 3 != 0).text("target")

    with ThreadPoolExecutor(16) as pool:
        assert all(str(number) == told for number, told in pool.map(write, range(300)))
    seen = log.reopen().verify()
    assert (seen.verdict, seen.records) == (Verdict.INTACT, 300)


def test_what_was_done_already_stands_in_the_log_at_once_and_reaches_the_disk_soon(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.write(1)
    flushed: list[int] = []
    real = os.fdatasync

    def noting(descriptor: int) -> None:
        flushed.append(descriptor)
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", noting)
    log.log.append(AuditEvent(actor=AGENT, action="command.run", phase=Phase.AFTER), durable=False)
    assert [record["seq"] for record in log.lines()] == [1, 2]
    deadline = time.monotonic() + 60
    while json.loads((log.directory / "head").read_text())["count"] != 2:  # the head moves behind the flush
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert flushed
    assert log.verdict() is Verdict.INTACT


def test_a_fault_of_one_event_does_not_harm_those_it_came_with(log: Log) -> None:
    huge = {str(number): "y" * 4_000 for number in range(900)}

    def write(number: int) -> bool:
        try:
            log.log.append(AuditEvent(actor=AGENT, action="command.run", details=huge if number % 5 == 0 else {}))
        except AuditUnavailable:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(write, range(50))) == [number % 5 != 0 for number in range(50)]
    assert log.verdict() is Verdict.INTACT


def test_a_disk_that_does_not_flush_stops_everything(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    log.write(1)

    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", broken)
        with pytest.raises(AuditUnavailable, match="could not be written"):
            log.write(1)
    assert [record["seq"] for record in log.lines()] == [1]
    log.write(1)
    assert log.verdict() is Verdict.INTACT


def test_checkpoints_are_made_along_the_way(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.drivers.audit.log.CHECKPOINT_EVERY", 3)
    log.write(7)
    assert log.log.verify().checkpoints == 2


def test_search_filters_and_pages_newest_first(log: Log) -> None:
    person = Actor(ActorKind.PERSON, "user_1", "Ada")
    for number in range(30):
        denied = number % 3 == 0
        log.log.append(
            AuditEvent(
                actor=AGENT if number % 2 else person,
                action="command.run" if number % 5 else "tenant.launch",
                tenant="north" if number < 20 else "south",
                target=f"cat file-{number}",
                decision="deny" if denied else "allow",
                request_id=f"r{number}",
            )
        )
    search = log.log.search
    assert [record.text("target") for record in search(AuditQuery(limit=2))] == ["cat file-29", "cat file-28"]
    first = search(AuditQuery(tenant="north", decision="deny", limit=3))
    rest = search(AuditQuery(tenant="north", decision="deny", before_seq=first[-1].seq))
    assert [record.text("target") for record in first] == ["cat file-18", "cat file-15", "cat file-12"]
    assert [record.text("target") for record in rest] == ["cat file-9", "cat file-6", "cat file-3", "cat file-0"]
    assert len(search(AuditQuery(actor="Ada"))) == 15
    assert len(search(AuditQuery(actor="user_1"))) == 30  # what agents did on her behalf is hers too
    assert len(search(AuditQuery(action="tenant."))) == 6
    assert [record.text("request_id") for record in search(AuditQuery(contains="FILE-17"))] == ["r17"]
    assert search(AuditQuery(since=NOON + timedelta(days=1))) == []
    assert len(list(log.log.export(AuditQuery(until=NOON + timedelta(days=1))))) == 30
