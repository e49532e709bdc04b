"""The processes of one sandbox as the host sees them, and waiting until something holds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.sandbox import PATIENCE_S, Sandbox

SLEEP = "import time; print('up', flush=True); time.sleep(600)"
# Ten processes that left the session, were orphaned and ignore every polite signal.
STUBBORN = """
import os, signal, sys, time
for number in range(10):
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        for which in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(which, signal.SIG_IGN)
        time.sleep(600)
        os._exit(0)
for number in range(10):
    os.wait()
print('up', flush=True)
"""
# The init, sandboxd, its template, the monitor that waits and the process that waits to become a program.
OWN_MAX = 5


@dataclass(frozen=True)
class Process:
    """`inside` is its id in the container; `own` means the init or sandboxd's own code."""

    pid: int
    inside: int
    parent: int
    own: bool


def processes(sandbox: Sandbox) -> list[Process]:
    """All processes whose real uid is the tenant's, however dumpable they are; zombies are nobody's own."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            status = dict(line.split(":\t", 1) for line in (entry / "status").read_text().splitlines() if ":\t" in line)
            own = b"/opt/sandboxd" in (entry / "cmdline").read_bytes()
        except (OSError, ValueError):
            continue
        if status.get("Uid", "").split("\t")[0] == str(sandbox.uid):
            inside = int(status["NSpid"].split("\t")[-1])
            found.append(Process(int(entry.name), inside, int(status["PPid"]), own))
    return found


def settled(sandbox: Sandbox) -> bool:
    """Whether nothing of any command is left: not a process, not a zombie."""
    found = processes(sandbox)
    return all(process.own for process in found) and len(found) <= OWN_MAX


def lineage(sandbox: Sandbox) -> list[Process]:
    """Of sandboxd's own code, each the child of the one before: sandboxd, template, waiting monitor and program."""
    found = [process for process in processes(sandbox) if process.own]
    pids = {process.pid for process in found}
    chain = [process for process in found if process.parent not in pids]
    while below := [process for process in found if chain and process.parent == chain[-1].pid]:
        chain.append(below[0])
    return chain[1:]


def eventually(condition: Callable[[], bool], wait_s: float = PATIENCE_S) -> bool:
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False
