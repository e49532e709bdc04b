"""Many commands at once: bounded, apart from each other, and gone afterwards."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from orchestrator.core.ports.sandboxd import (
    CommandExited,
    CommandLimits,
    SandboxBusy,
    SandboxRequestInvalid,
)
from tests.support.processes import SLEEP, eventually, settled
from tests.support.sandbox import PATIENCE_S, Sandbox

pytestmark = pytest.mark.engine


def test_commands_at_once_are_bounded_not_queued(sandbox: Sandbox) -> None:
    sandbox.list("/usr/bin/sleep", digest="small")
    running = []
    refused = 0
    try:
        for _ in range(24):
            events = sandbox.client.run(sandbox.command("/usr/bin/sleep", "600", limits=CommandLimits(wall_s=600)))
            try:
                next(events)
                running.append(events)
            except SandboxBusy:
                refused += 1
    finally:
        for events in running:
            events.close()  # type: ignore[attr-defined]
    assert len(running) == 20
    assert refused == 4
    assert eventually(lambda: sandbox.client.status().commands == 0)


def test_many_commands_from_many_callers_all_end_well(sandbox: Sandbox) -> None:
    def one(number: int) -> int | None:
        return sandbox.run("/usr/bin/true", limits=CommandLimits(changed_paths=0)).exited.exit_code

    with ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(one, range(200)))
    assert codes == [0] * 200
    assert eventually(lambda: settled(sandbox))


@pytest.mark.chaos
def test_ten_thousand_starts_leave_nothing_behind(sandbox: Sandbox) -> None:
    def one(number: int) -> int | None:
        return sandbox.run("/usr/bin/true", limits=CommandLimits(changed_paths=0)).exited.exit_code

    with ThreadPoolExecutor(12) as pool:
        assert set(pool.map(one, range(10_000))) == {0}
    assert eventually(lambda: settled(sandbox))


def test_the_same_id_cannot_run_twice_at_once(sandbox: Sandbox) -> None:
    command = sandbox.command("/usr/bin/python3", "-c", SLEEP)
    events = sandbox.client.run(command)
    next(events)
    with pytest.raises(SandboxRequestInvalid):
        next(sandbox.client.run(command))
    events.close()  # type: ignore[attr-defined]


def test_events_of_parallel_commands_do_not_mix(sandbox: Sandbox) -> None:
    results: dict[int, CommandExited | None] = {}

    def one(number: int) -> None:
        ran = sandbox.python(f"for _ in range(200): print('{number}')")
        results[number] = ran.exited if set(ran.stdout.split()) == {str(number).encode()} else None

    threads = [threading.Thread(target=one, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert all(results.get(number) for number in range(6))
