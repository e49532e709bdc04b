"""One command: a monitor process that nothing it starts can kill, and the program below it.

The supervisor forks the monitor, the monitor enters a domain of its own that only limits whom it may signal, then
forks the program, which enters a second, nested domain and is executed. A signal cannot leave a domain upwards, and
the monitor's kill(-1) does not leave its own either: it ends exactly the program's tree, at once and completely.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import resource
import signal
import time

from . import changes, kernel
from .domain import Domain, LinkInGrant
from .policy import Rule
from .tree import CONTROL, Tree

# Where a monitor finds its descriptors.
_LISTENER, _RESULT, _CONTROL, _SCOPE, _DOMAIN = 3, 4, CONTROL, 6, 7
_OPEN_FILES_MAX = 1024
# The command goes first when memory runs out, before its monitor and sandboxd.
_OOM_SCORE = b"500"


class Launch:
    """What to start and in which domain. Plain values, fixed before the fork."""

    __slots__ = (
        "abi", "argv", "changed_paths", "connect_ports", "cwd", "environment", "listen_ports", "listener", "path",
        "processes", "rules", "scope", "workspace", "write_bytes",
    )  # fmt: skip

    def __init__(self, path: str, argv: list[str], *, abi: int, scope: int, rules: list[Rule]) -> None:
        self.path = path
        self.argv = [item.encode() for item in argv]
        self.abi = abi
        self.scope = scope
        self.rules = rules
        self.environment: dict[bytes, bytes] = {}
        self.cwd = "/"
        self.connect_ports: list[int] = []
        self.listen_ports: list[int] = []
        self.listener = -1
        self.processes = 0
        self.write_bytes = 0
        self.workspace = ""
        self.changed_paths = 0

    def set_environment(self, environment: dict[str, str]) -> None:
        self.environment = {name.encode(): value.encode() for name, value in environment.items()}


class Monitored:
    """The supervisor's ends of a started command's pipes; -1 when closed."""

    __slots__ = ("control", "pid", "result", "stderr", "stdin", "stdout")

    def __init__(self, pid: int, stdin: int, stdout: int, stderr: int, result: int, control: int) -> None:
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.result = result
        self.control = control

    def close(self, name: str) -> None:
        descriptor = getattr(self, name)
        if descriptor >= 0:
            os.close(descriptor)
            setattr(self, name, -1)

    def close_all(self) -> None:
        for name in ("stdin", "stdout", "stderr", "result", "control"):
            self.close(name)

    def tell(self, word: bytes) -> None:
        """b"t": ask the program to end; b"k": kill the tree."""
        if self.control >= 0:
            try:
                os.write(self.control, word)
            except OSError:
                self.close("control")


def start(launch: Launch, *, stdin: bool) -> Monitored:
    """Fork the monitor. Raises OSError when the process or descriptor limit does not allow it."""
    opened: list[int] = []
    domain, problem = _build_domain(launch)

    def pipe() -> tuple[int, int]:
        ends = os.pipe()
        opened.extend(ends)
        return ends

    try:
        in_read, in_write = pipe() if stdin else (os.open("/dev/null", os.O_RDONLY), -1)
        if not stdin:
            opened.append(in_read)
        out_read, out_write = pipe()
        err_read, err_write = pipe()
        result_read, result_write = pipe()
        control_read, control_write = pipe()
        pid = os.fork()
    except OSError:
        for descriptor in opened:
            os.close(descriptor)
        domain.close()
        raise
    if pid == 0:
        try:
            gc.disable()
            streams = [in_read, out_write, err_write]
            _place([*streams, launch.listener, result_write, control_read, launch.scope, domain.descriptor])
            _monitor(launch, problem)
        finally:
            os._exit(70)
    domain.close()
    for descriptor in (in_read, out_write, err_write, result_write, control_read):
        os.close(descriptor)
    for descriptor in (in_write, out_read, err_read, result_read, control_write):
        if descriptor >= 0:
            os.set_blocking(descriptor, False)
    return Monitored(pid, in_write, out_read, err_read, result_read, control_write)


def _build_domain(launch: Launch) -> tuple[Domain, str]:
    """The program's domain, made here because a freshly forked process pays for every page it touches.

    Made anew for each command: rules bind to files as they are now, and the tenant's may have been replaced.
    """
    domain = Domain(launch.abi)
    try:
        for path, access, follow in launch.rules:
            domain.allow(path, access, follow=follow)
        for port in launch.connect_ports:
            domain.allow_port(port)
        for port in launch.listen_ports:
            domain.allow_port(port, listen=True)
    except LinkInGrant as link:
        return domain, f"{link} is, or runs through, a symbolic link"
    except OSError as failure:
        return domain, f"the kernel refused the domain: {failure.strerror}"
    return domain, ""


def _place(wanted: list[int]) -> None:
    """Move descriptors to 0, 1, 2, … and close every other one; -1 leaves that number closed."""
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 64) if descriptor >= 0 else -1 for descriptor in wanted]
    os.closerange(0, 64)
    for place, descriptor in enumerate(high):
        if descriptor >= 0:
            os.dup2(descriptor, place, inheritable=place <= _LISTENER)
    os.closerange(len(wanted), 1 << 20)


def _monitor(launch: Launch, problem: str) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    kernel.set_subreaper()
    began = time.monotonic()
    # The file is the supervisor's kind of non-dumpable, hence not ours to open, unless opened in between.
    kernel.set_dumpable(True)
    counters = _open_counters()
    kernel.set_dumpable(False)
    scoped = launch.scope >= 0 and _enter_signal_scope()
    before, before_complete = changes.listing(launch.workspace) if launch.changed_paths else ({}, True)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _nothing)
    tree = Tree(scoped=scoped, wake=wake_read, counters=counters)
    problem = problem or _fork_program(launch, tree)
    _release_streams(launch)
    if not problem:
        os.write(_RESULT, b"S%d\n" % tree.program)
    tree.watch(launch.write_bytes)
    stuck = not tree.end()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    names: list[str] = []
    complete = True
    if launch.changed_paths:
        after, after_complete = changes.listing(launch.workspace)
        names, fits = changes.compare(launch.workspace, before, after, launch.changed_paths)
        complete = before_complete and after_complete and fits
    result = {
        "status": tree.status,
        "problem": problem,
        "over": tree.over,
        "stuck": stuck,
        "duration_s": time.monotonic() - began,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "memory_peak_bytes": usage.ru_maxrss * 1024,
        "written_bytes": tree.written(),
        "changed": names,
        "changed_complete": complete,
    }
    _write_all(_RESULT, b"E" + json.dumps(result).encode() + b"\n")
    os._exit(0)


def _enter_signal_scope() -> bool:
    """Whether our signals really cannot leave our own tree any more: kill(-1) is only ever sent when they cannot."""
    kernel.landlock_restrict_self(_SCOPE)
    try:
        os.kill(os.getppid(), 0)
    except PermissionError:
        return True
    return False


def _nothing(number: int, frame: object) -> None:
    """A handler must exist for the wake-up descriptor to be written to."""


def _write_all(descriptor: int, data: bytes) -> None:
    os.set_blocking(descriptor, True)
    while data:
        data = data[os.write(descriptor, data) :]


def _open_counters() -> int:
    try:
        return os.open("/proc/self/io", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


def _release_streams(launch: Launch) -> None:
    """Let go of the program's streams: the supervisor sees them end with the program, not with the monitor."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for place in (0, 1, 2):
        os.dup2(null, place)
    os.close(null)
    if launch.listener >= 0:
        os.close(_LISTENER)


def _fork_program(launch: Launch, tree: Tree) -> str:
    """Start the program below us; returns why it could not be, or an empty text."""
    try:
        directory = kernel.open_without_links(launch.cwd, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as failure:
        return f"the working directory cannot be entered: {failure.strerror}"
    failed_read, failed_write = os.pipe()
    try:
        pid = os.fork()
    except OSError as failure:
        return f"no process could be started: {failure.strerror}"
    if pid == 0:
        stage = "prepared"
        try:
            os.setsid()
            _restore_signals()
            _set_limits(launch)
            stage = "moved to its working directory"
            os.fchdir(directory)
            stage = "confined"
            if launch.abi:
                kernel.landlock_restrict_self(_DOMAIN)
            stage = "executed"
            _set_listener_variables(launch)
            os.execve(launch.path, launch.argv, launch.environment)
        except OSError as failure:
            os.write(failed_write, f"the program could not be {stage}: {failure.strerror}".encode())
        finally:
            os._exit(127)
    tree.program = pid
    os.close(failed_write)
    os.close(directory)
    problem = b""
    while data := os.read(failed_read, 1024):
        problem += data
    os.close(failed_read)
    return problem.decode("utf-8", "replace")


def _restore_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)


def _set_limits(launch: Launch) -> None:
    kernel.set_dumpable(True)
    try:
        with open("/proc/self/oom_score_adj", "wb", buffering=0) as file:
            file.write(_OOM_SCORE)
    except OSError:
        pass  # the order in which memory is freed is a nicety, not a boundary
    kernel.set_no_new_privileges()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _lower(resource.RLIMIT_NOFILE, _OPEN_FILES_MAX)
    if launch.processes:
        _lower(resource.RLIMIT_NPROC, launch.processes)
    if launch.write_bytes:
        _lower(resource.RLIMIT_FSIZE, launch.write_bytes)


def _lower(limit: int, value: int) -> None:
    _, hard = resource.getrlimit(limit)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (value, value))


def _set_listener_variables(launch: Launch) -> None:
    """The socket-activation convention: one listening socket, descriptor 3."""
    if launch.listener >= 0:
        launch.environment[b"LISTEN_FDS"] = b"1"
        launch.environment[b"LISTEN_PID"] = b"%d" % os.getpid()
