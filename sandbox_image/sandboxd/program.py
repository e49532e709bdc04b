"""The process that starts a program, or becomes it: made and held ready by its monitor, confined like the program."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import socket

from . import kernel, launch
from .launch import Order

# Above the streams and the place of a listening socket.
_CHANNEL = 4
_OPEN_FILES_MAX = 1024
# The command goes first when memory runs out, before its monitor and sandboxd.
_OOM_SCORE = b"500"
# What lets a held program go, and what ends it instead.
GO, NEVER = b"g", b"n"
# What the monitor is told with the process id.
_STARTED = b"S"


def place(wanted: list[int]) -> None:
    """Move descriptors to 0, 1, 2, … and close every other one; none of them but the streams survives an execution."""
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 64) for descriptor in wanted]
    for number, descriptor in enumerate(high):
        os.dup2(descriptor, number, inheritable=number <= 2)
    os.closerange(len(wanted), 1 << 20)


class Waiting:
    """The monitor's view of the process that waits to start the program."""

    __slots__ = ("_channel", "pid")

    def __init__(self) -> None:
        """Fork it; `pid` is its own, and the program's once that was started.

        Raises OSError when the limit on processes or descriptors does not allow it.
        """
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.pid = os.fork()
        except OSError:
            self._channel.close()
            theirs.close()
            raise
        if self.pid == 0:
            try:
                _wait(theirs.fileno())
            finally:
                os._exit(127)
        theirs.close()

    def start(self, order: Order) -> str:
        """Let it start the program; returns why it could not, or an empty text. Raises OSError when it is gone.

        A held program is started, or never, only when the supervisor has answered at its gate.
        """
        launch.send(self._channel, order.message, list(order.descriptors.values()))
        said = b""
        # The other end closes with an execution, or with the process.
        while not said.endswith(b"\n") and (data := self._channel.recv(1024)):
            said += data
        if said.startswith(_STARTED):
            self.pid = int(said[len(_STARTED) :])
            return ""
        return said.decode("utf-8", "replace")

    def close(self) -> None:
        self._channel.close()


def _wait(channel: int) -> None:
    nothing = os.open("/dev/null", os.O_RDONLY)
    sink = os.open("/dev/null", os.O_WRONLY)
    # What arrives later must not land where a listening socket goes.
    place([nothing, sink, sink, nothing, channel])
    os.setsid()
    _restore_signals()
    kernel.set_no_new_privileges()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _lower(resource.RLIMIT_NOFILE, _OPEN_FILES_MAX)
    _go_first()
    monitor = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=_CHANNEL)
    _rehearse(monitor)
    order = launch.receive(monitor)
    if order is None:
        return
    stage = "the working directory cannot be entered"
    try:
        directory = kernel.open_without_links(order.cwd, os.O_RDONLY | os.O_DIRECTORY)
        stage = "the program could not be prepared"
        _place_streams(order)
        _set_limits(order)
        stage = "the program could not be moved to its working directory"
        os.fchdir(directory)
        stage = "the program could not be confined"
        if order.confined:
            kernel.landlock_restrict_self(order.descriptors["domain"])
        stage = "the program could not be executed"
        arguments, variables = [item.encode() for item in order.argv], _environment(order)
        if "gate" in order.descriptors and os.read(order.descriptors["gate"], 1) != GO:
            return
        monitor.sendall(_STARTED + b"%d\n" % _start(order, arguments, variables))
    except OSError as failure:
        monitor.sendall(f"{stage}: {failure.strerror}".encode())


def _start(order: Order, arguments: list[bytes], variables: dict[bytes, bytes]) -> int:
    """Execute the program in a process that borrows this one's memory until then, as vfork does; returns its id.

    Taking a Python down takes as long as a short program: this one goes while that one runs already. It is confined
    the same and holds nothing the program does not. An app is told its process id beforehand, so it takes this
    process itself; so does a program that may have no process beside it.
    """
    if "listener" not in order.descriptors:
        try:
            return os.posix_spawn(order.path, arguments, variables, setsid=True)
        except BlockingIOError:
            pass
    os.execve(order.path, arguments, variables)


def _rehearse(channel: socket.socket) -> None:
    """Do what a launch does, as far as it leads nowhere."""
    order = launch.rehearse(channel, 0)
    if order is None:
        return
    _place_streams(order)
    os.close(order.descriptors["stdin"])
    os.close(kernel.open_without_links("/", os.O_RDONLY | os.O_DIRECTORY))
    try:
        os.execve(order.path, [b"none"], _environment(order))
    except OSError:
        pass  # there is no such program


def _place_streams(order: Order) -> None:
    """A listening socket goes where the convention of socket activation has it: to descriptor 3."""
    for number, name in enumerate(("stdin", "stdout", "stderr", "listener")):
        if name in order.descriptors:
            os.dup2(order.descriptors[name], number)


def _restore_signals() -> None:
    """Those that Python ignores, which would stay ignored; handlers end with the execution by themselves."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)


def _go_first() -> None:
    """When memory runs out."""
    kernel.set_dumpable(True)  # its own files are not a non-dumpable process's to open
    try:
        score = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        os.write(score, _OOM_SCORE)
        os.close(score)
    except OSError:
        pass  # the order in which memory is freed is a nicety, not a boundary
    kernel.set_dumpable(False)  # it waits, and is not the program


def _set_limits(order: Order) -> None:
    if order.processes:
        _lower(resource.RLIMIT_NPROC, order.processes)
    if order.write_bytes:
        _lower(resource.RLIMIT_FSIZE, order.write_bytes)


def _lower(limit: int, value: int) -> None:
    _, hard = resource.getrlimit(limit)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (value, value))


def _environment(order: Order) -> dict[bytes, bytes]:
    variables = {name.encode(): value.encode() for name, value in order.environment.items()}
    if "listener" in order.descriptors:
        variables[b"LISTEN_FDS"] = b"1"
        variables[b"LISTEN_PID"] = b"%d" % os.getpid()
    return variables
