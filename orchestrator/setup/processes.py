"""The control plane as processes of this host: `serve` and `schedule`, started once, found again, ended.

Each holds a lock on a file for as long as it lives: the lock, not a pid that may have been reused, says it runs.
"""

from __future__ import annotations

import fcntl
import gc
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.config import Settings
from orchestrator.core.places import Places
from orchestrator.errors import Conflict, OutsideFailure

NAMES = ("serve", "schedule")
POLL_S = 0.05
END_PATIENCE_S = 40.0


class RunsAlready(Conflict):
    code = "conflict.runs_already"


class KeptElsewhere(Conflict):
    code = "conflict.kept_elsewhere"


class ProcessFailed(OutsideFailure):
    code = "outside_failure.process"


@contextmanager
def only_one(places: Places, name: str) -> Iterator[None]:
    """Be the installation's one `name` process while the block lasts. Raises RunsAlready."""
    path = _file(places, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunsAlready(
                f"`orchestrator {name}` runs already for this installation.", next_step="orchestrator status"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def pid(places: Places, name: str) -> int | None:
    """The process that holds the lock; None when nobody does."""
    try:
        descriptor = os.open(_file(places, name), os.O_RDONLY | os.O_CLOEXEC)  # it may be root's, and we not
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(descriptor, 32, 0).decode().strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(descriptor)
    return None


def start(settings: Settings, name: str, *options: str) -> subprocess.Popen[bytes] | None:
    """Start `orchestrator NAME` detached, its output in var/log; None when it runs already."""
    if pid(settings.places, name) is not None:
        return None
    log = log_file(settings.places, name)
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "ORCHESTRATOR_CONFIGS": str(settings.directory)}
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "orchestrator", name, *options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=environment,
            start_new_session=True,
        )


def apart(places: Places, name: str, work: Callable[[], None]) -> None:
    """Do `work` in a process that belongs to nobody, its output in var/log, and go on at once.

    It shares with this one the memory of whatever both have loaded: call it before any thread is begun.
    """
    gc.collect()
    gc.freeze()  # the collector would write into every object, and what is written is no longer shared
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    if os.fork():
        os._exit(0)
    code = 1
    try:
        os.setsid()
        with log_file(places, name).open("ab") as output:
            for number in (1, 2):
                os.dup2(output.fileno(), number)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def wait(places: Places, name: str, *, timeout_s: float) -> None:
    """Return when it holds its lock. Raises ProcessFailed with the end of its log."""
    deadline = time.monotonic() + timeout_s
    while not pid(places, name):
        if time.monotonic() > deadline:
            raise failed(places, name)
        time.sleep(POLL_S)


def failed(places: Places, name: str) -> ProcessFailed:
    """With the end of its log."""
    try:
        said = log_file(places, name).read_text(errors="replace")[-2000:]
    except OSError:
        said = ""
    return ProcessFailed(f"`orchestrator {name}` did not come up.", effect=said, next_step=f"orchestrator {name} -v")


def end(places: Places, name: str) -> bool:
    """Ask it to end and wait; False when it did not run. Raises ProcessFailed when it does not end."""
    found = pid(places, name)
    if not found:
        return False
    deadline = time.monotonic() + END_PATIENCE_S
    try:
        os.kill(found, signal.SIGTERM)
    except PermissionError as refusal:
        raise ProcessFailed(
            f"`orchestrator {name}` (pid {found}) is another user's.", next_step="End it as that user, or as root."
        ) from refusal
    except ProcessLookupError:
        pass  # it is just going
    while pid(places, name) is not None:
        if time.monotonic() > deadline:
            raise ProcessFailed(f"`orchestrator {name}` (pid {found}) does not end.", next_step=f"kill -9 {found}")
        time.sleep(POLL_S)
    return True


def refuse_kept(places: Places) -> None:
    """Raises KeptElsewhere when one runs among other mounts: in a container or a unit that would start it again."""
    for name in NAMES:
        found = pid(places, name)
        try:
            is_here = not found or Path(f"/proc/{found}/ns/mnt").readlink() == Path("/proc/self/ns/mnt").readlink()
        except OSError:
            continue  # it has just ended, or is another user's, whom we cannot end either
        if not is_here:
            raise KeptElsewhere(
                f"`orchestrator {name}` (pid {found}) runs in a container or unit, which would start it again.",
                effect="Nothing was deleted.",
                next_step="End it there first: `docker compose down`, or `systemctl stop` its unit.",
            )


def log_file(places: Places, name: str) -> Path:
    return places.var / "log" / f"{name}.log"


def _file(places: Places, name: str) -> Path:
    return places.var / "run" / f"{name}.pid"
