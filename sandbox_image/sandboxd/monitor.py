"""The process that watches one command: nothing the command starts can kill it, and it ends all of it.

The template forks the monitor, the monitor enters a domain of its own that only limits whom it may signal, then
forks the process that starts the program, which enters a second, nested domain first. A signal cannot leave a domain
upwards, and the monitor's kill(-1) does not leave its own either: it ends exactly the program's tree.

Both processes are made before it is known what they will run, and they end when the supervisor closes their channel.
A monitor whose tree is proven dead may watch the tenant's next command: it has closed every descriptor of the earlier
one, and what starts the program is forked anew.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import time

from . import changes, kernel, launch
from .launch import Order
from .program import Waiting, place
from .tree import Tree

# What the supervisor says to a monitor that has reported, and is wanted for another command.
AGAIN = b"n"
# Where a monitor finds its descriptors.
_CHANNEL, _SCOPE = 3, 4
# A program that ends within this while is reported once, started and ended: each report wakes others up.
_BRIEF_S = 0.003


def run(channel: int, scope: int) -> None:
    """The whole life of a freshly forked monitor: get ready, wait for a launch, watch it, report; again when asked."""
    gc.disable()
    null = os.open("/dev/null", os.O_RDWR)
    place([null, null, null, channel, *([scope] if scope >= 0 else [])])
    kernel.set_subreaper()
    # The file is the supervisor's kind of non-dumpable, hence not ours to open, unless opened in between.
    kernel.set_dumpable(True)
    counters = _open_counters()
    kernel.set_dumpable(False)
    scoped = scope >= 0 and _enter_signal_scope()
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, nothing)
    supervisor = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=_CHANNEL)
    waiting = _program()
    _rehearse(supervisor)
    while True:
        order = launch.receive(supervisor)
        if order is None:
            return
        tree = Tree(scoped=scoped, wake=wake_read, channel=_CHANNEL, counters=counters)
        if not _watch(order, waiting, supervisor, tree):
            return
        # Whatever is done next keeps a processor busy that the supervisor could answer on: not before it says so.
        if supervisor.recv(1) != AGAIN:
            return
        del order, tree
        waiting = _program()


def _rehearse(channel: socket.socket) -> None:
    """Do what a launch does, as far as it leads nowhere."""
    order = launch.rehearse(channel, 0)
    if order is None:
        return
    os.close(order.descriptors["stdin"])
    listed, _ = changes.listing("/dev")
    changes.compare("/dev", listed, listed, 1)
    json.dumps({"changed": [], "changed_complete": True, "cpu_s": 0.1, "status": None})


def _watch(order: Order, waiting: Waiting | None, supervisor: socket.socket, tree: Tree) -> bool:
    """From its start to the report of its end; whether nothing of it is left."""
    before, before_complete = changes.listing(order.workspace) if order.changed_paths else ({}, True)
    problem = order.problem or _start(order, waiting, tree)
    began = time.monotonic()
    # The supervisor sees the streams end with the program, not with the monitor.
    for descriptor in order.descriptors.values():
        os.close(descriptor)
    started = b"" if problem else b"S%d\n" % tree.program
    if started and not tree.watch(0, at_most_s=_BRIEF_S):
        try:
            supervisor.sendall(started)
        except OSError:
            pass  # it is gone: the tree notices, and ends
        started = b""
        tree.watch(order.write_bytes)
    stuck = not tree.end()
    names: list[str] = []
    complete = True
    if order.changed_paths:
        after, after_complete = changes.listing(order.workspace)
        names, fits = changes.compare(order.workspace, before, after, order.changed_paths)
        complete = before_complete and after_complete and fits
    result = {
        "status": tree.status,
        "problem": problem,
        "over": tree.over,
        "stuck": stuck,
        "duration_s": time.monotonic() - began,
        "cpu_s": tree.cpu_s,
        "memory_peak_bytes": tree.memory_peak_bytes,
        "written_bytes": tree.written(),
        "changed": names,
        "changed_complete": complete,
    }
    supervisor.sendall(started + b"E" + json.dumps(result).encode() + b"\n")
    return not stuck


def _enter_signal_scope() -> bool:
    """Whether our signals really cannot leave our own tree any more: kill(-1) is only ever sent when they cannot."""
    kernel.landlock_restrict_self(_SCOPE)
    os.close(_SCOPE)
    try:
        os.kill(os.getppid(), 0)
    except PermissionError:
        return True
    return False


def nothing(number: int, frame: object) -> None:
    """A handler must exist for the wake-up descriptor to be written to, and execution resets it, unlike ignoring."""


def _open_counters() -> int:
    try:
        return os.open("/proc/self/io", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def _program() -> Waiting | None:
    """Ahead of its launch when there is room for it now; if not, the launch tries again and says why not."""
    try:
        return Waiting()
    except OSError:
        return None


def _start(order: Order, waiting: Waiting | None, tree: Tree) -> str:
    """Start the program below us; returns why it could not be, or an empty text."""
    for program in (waiting, None):
        try:
            program = program or Waiting()
        except OSError as failure:
            return f"no process could be started: {failure.strerror}"
        try:
            problem = program.start(order)
        except OSError:
            continue  # killed while it waited: once more, with a new one
        finally:
            program.close()
        tree.program = program.pid
        return problem
    return "the process that was to start the program was killed"
