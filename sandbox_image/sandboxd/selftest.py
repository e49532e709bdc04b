"""Prove at start what the container is supposed to hold, by trying to break it. No proof, no service."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Callable

from . import cgroup, domain, kernel, mounts
from .launch import Launch
from .policy import Image, Rule
from .starter import Starter

_WAIT_S = 10.0

# Calls the seccomp profile must refuse, chosen so that without it they fail differently or work:
# name, number on x86-64, number on aarch64, arguments.
_SYSTEM_CALLS: tuple[tuple[str, int, int, tuple[int | bytes | None, ...]], ...] = (
    ("memfd_create", 319, 279, (b"x", 0)),
    ("memfd_secret", 447, 447, (0,)),
    ("execveat", 322, 281, (-1, b"", None, None, 0x1000)),
    ("ptrace", 101, 117, (0, 0, 0, 0)),
    ("process_vm_readv", 310, 270, (0, None, 0, None, 0, 0)),
    ("pidfd_getfd", 438, 438, (-1, 0, 0)),
    ("kcmp", 312, 272, (0, 0, 0, 0, 0)),
    ("unshare", 272, 97, (0,)),
    ("setns", 308, 268, (-1, 0)),
    ("mount", 165, 40, (1, 1, 1, 0, 0)),
    ("perf_event_open", 298, 241, (None, 0, -1, -1, 0)),
    ("io_uring_setup", 425, 425, (0, None)),
)
_REFUSED = (errno.EPERM, errno.ENOSYS)


class Check:
    __slots__ = ("evidence", "name", "ok", "waivable")

    def __init__(self, name: str, *, ok: bool, waivable: bool, evidence: str) -> None:
        self.name = name
        self.ok = ok
        self.waivable = waivable
        self.evidence = evidence[:500]

    def frame(self) -> dict[str, object]:
        return {"name": self.name, "ok": self.ok, "waivable": self.waivable, "evidence": self.evidence}


Result = tuple[bool, str]


class SelfTest:
    """Runs every check with the same code that runs commands. `facts` are read before the supervisor changes any."""

    def __init__(
        self,
        *,
        image: Image,
        abi: int,
        starter: Starter,
        roots: tuple[str, ...],
        facts: dict[str, str],
        socket_directory: str,
        admits: Callable[[socket.socket], bool],
    ) -> None:
        self._image = image
        self._abi = abi
        self._starter = starter
        self._roots = roots
        self._facts = facts
        self._socket_directory = socket_directory
        self._admits = admits
        self._listed = _first("/usr/bin/true", "/bin/true")
        self._env = _first("/usr/bin/env", "/bin/env")
        self._reader = _first("/usr/bin/cat", "/bin/cat")
        self._unlisted = _first("/usr/bin/id", "/bin/ls", "/usr/bin/python3")

    def run(self) -> list[Check]:
        waivable: list[tuple[str, Callable[[], Result]]] = [
            ("landlock", self._landlock),
            ("listed_program", self._listed_program),
            ("unlisted_program", self._unlisted_program),
            ("loader", self._loader),
            ("workspace_copy", self._workspace_copy),
            ("started_by_listed", self._started_by_listed),
            ("file_outside_grants", self._file_outside_grants),
            ("signal_scope", self._signal_scope),
            ("tcp_ports", self._tcp_ports),
            ("noexec", self._noexec),
        ]
        always: list[tuple[str, Callable[[], Result]]] = [
            ("memfd", lambda: self._system_calls(memfd=True)),
            ("seccomp", lambda: self._system_calls(memfd=False)),
            ("no_new_privileges", self._no_new_privileges),
            ("capabilities", self._capabilities),
            ("read_only_root", self._read_only_root),
            ("processes_limit", self._processes_limit),
            ("memory_limit", self._memory_limit),
            ("identity", self._identity),
            ("peer_check", self._peer_check),
        ]
        checks = [self._check(name, test, waivable=True) for name, test in waivable]
        return checks + [self._check(name, test, waivable=False) for name, test in always]

    @staticmethod
    def _check(name: str, test: Callable[[], Result], *, waivable: bool) -> Check:
        try:
            ok, evidence = test()
        except Exception as failure:
            ok, evidence = False, f"the check itself failed: {type(failure).__name__}: {failure}"
        return Check(name, ok=ok, waivable=waivable, evidence=evidence)

    # What the kernel holds for commands

    def _attempt(self, programs: list[str], path: str, argv: list[str], writable: str = "") -> tuple[int | None, str]:
        """Run `path` in a domain for `programs`: its exit code (None: it could not be executed) and what was said."""
        rules: list[Rule] = list(self._image.base)
        rules += [(os.path.realpath(program), "execute", True) for program in programs]
        if writable:
            rules.append((writable, "write", False))
        return attempt(self._starter, Launch(path, argv, rules=rules))

    def _landlock(self) -> Result:
        enough = self._abi >= domain.ABI_REQUIRED
        return enough, f"Landlock version {self._abi}, needed {domain.ABI_REQUIRED}, complete from {domain.ABI_SCOPES}"

    def _listed_program(self) -> Result:
        code, said = self._attempt([self._listed], self._listed, [self._listed])
        return code == 0, f"{self._listed}: {_ending(code, said)}"

    def _unlisted_program(self) -> Result:
        code, said = self._attempt([self._listed], self._unlisted, [self._unlisted])
        return code is None and "Permission denied" in said, f"{self._unlisted}: {_ending(code, said)}"

    def _loader(self) -> Result:
        loader = self._image.loaders[0] if self._image.loaders else ""
        if not loader:
            return True, "the image has no dynamic loader"
        code, said = self._attempt([self._listed], loader, [loader, self._unlisted])
        return code != 0, f"{loader} {self._unlisted}: {_ending(code, said)}"

    def _workspace_copy(self) -> Result:
        evidence = []
        good = True
        for root in self._roots:
            if not os.path.isdir(root):
                continue
            copy = f"{root}/.sandboxd-{os.getpid()}"
            try:
                _copy_program(self._listed, copy)
            except OSError as failure:
                closed = mounts.is_noexec(root)
                good = good and closed
                evidence.append(f"{root}: no copy possible ({failure.strerror}), noexec: {closed}")
                _unlink(copy)
                continue
            try:
                direct, _ = self._attempt([self._listed], copy, [copy], writable=root)
                loaders = self._image.loaders[:1]
                loaded = [self._attempt([self._listed], loader, [loader, copy], writable=root)[0] for loader in loaders]
            finally:
                _unlink(copy)
            held = direct is None and 0 not in loaded
            good = good and held
            evidence.append(f"{root}: {'refused' if held else 'it ran'}")
        return good, "a copied program, executed and through the loader: " + "; ".join(evidence)

    def _started_by_listed(self) -> Result:
        if not self._env:
            return True, "the image has no program to try with"
        both = [self._env, self._listed]
        allowed, _ = self._attempt(both, self._env, [self._env, self._listed])
        denied, said = self._attempt(both, self._env, [self._env, self._unlisted])
        return allowed == 0 and denied not in (0, None), f"{self._env} {self._unlisted}: {_ending(denied, said)}"

    def _file_outside_grants(self) -> Result:
        path = "/etc/hostname"
        code, said = self._attempt([self._reader], self._reader, [self._reader, path])
        return code not in (0, None), f"{self._reader} {path}: {_ending(code, said)}"

    def _inside(self, action: Callable[[], str]) -> str:
        """What `action` reports from a forked process in an empty domain."""

        def confined() -> str:
            ruleset = domain.Domain(self._abi)
            kernel.set_no_new_privileges()
            ruleset.enter()
            return action()

        return in_child(confined)

    def _signal_scope(self) -> Result:
        if self._abi < domain.ABI_SCOPES:
            return True, "this kernel has no signal scope: a command's tree is ended by scanning for it"
        said = self._inside(lambda: _errno_of(lambda: os.kill(os.getppid(), 0)))
        return said == "EPERM", f"a signal to the supervisor: {said}"

    def _tcp_ports(self) -> Result:
        if self._abi < domain.ABI_PORTS:
            return True, "this kernel cannot hold TCP ports: the network does"

        def connect() -> None:
            with socket.socket() as probe:
                probe.settimeout(2)
                probe.connect(("127.0.0.1", 9))

        said = self._inside(lambda: _errno_of(connect))
        return said == "EACCES", f"a TCP connection: {said}"

    def _noexec(self) -> Result:
        open_roots = mounts.executable(self._roots)
        if open_roots:
            return False, "not mounted noexec: " + ", ".join(open_roots)
        return True, "noexec: " + ", ".join(root for root in self._roots if os.path.isdir(root))

    # What the container holds

    def _system_calls(self, *, memfd: bool) -> Result:
        mode = self._facts.get("Seccomp", "")
        arm = os.uname().machine == "aarch64"
        chosen = [call for call in _SYSTEM_CALLS if call[0].startswith("memfd") == memfd]

        def probe() -> str:
            working = []
            for name, x86, aarch64, arguments in chosen:
                try:
                    kernel.syscall(aarch64 if arm else x86, *arguments)
                    working.append(name)
                except OSError as failure:
                    if failure.errno not in _REFUSED:
                        working.append(name)
            return ",".join(working)

        working = in_child(probe)
        if working:
            return False, f"not refused: {working}"
        return mode == "2", f"refused: {', '.join(name for name, *_ in chosen)}; filter mode {mode}"

    def _no_new_privileges(self) -> Result:
        value = self._facts.get("NoNewPrivs", "")
        return value == "1", f"NoNewPrivs {value} at start"

    def _capabilities(self) -> Result:
        sets = {name: self._facts.get(name, "") for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
        none = all(value and int(value, 16) == 0 for value in sets.values())
        return none, " ".join(f"{name}={value}" for name, value in sets.items())

    @staticmethod
    def _read_only_root() -> Result:
        read_only = bool(os.statvfs("/").f_flag & os.ST_RDONLY)
        return read_only, f"/ is {'read-only' if read_only else 'writable'}"

    @staticmethod
    def _processes_limit() -> Result:
        limit = cgroup.processes_limit()
        return limit is not None, f"pids limit {limit}"

    @staticmethod
    def _memory_limit() -> Result:
        limit = cgroup.memory_limit_bytes()
        return limit is not None, f"memory limit {limit} bytes"

    @staticmethod
    def _identity() -> Result:
        return os.getuid() != 0 and os.getpid() != 1, f"uid {os.getuid()}, gid {os.getgid()}, pid {os.getpid()}"

    def _peer_check(self) -> Result:
        """A process of our own uid calls, on a socket of its own; the supervisor's own judgement decides."""
        path = f"{self._socket_directory}/.self-test"
        _unlink(path)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(1)
            listener.settimeout(_WAIT_S)
            pid = os.fork()
            if pid == 0:
                try:
                    with socket.socket(socket.AF_UNIX) as caller:
                        caller.settimeout(_WAIT_S)
                        caller.connect(path)
                        caller.recv(1)
                finally:
                    os._exit(0)
            try:
                connection, _ = listener.accept()
                with connection:
                    admitted = self._admits(connection)
            finally:
                _unlink(path)
                os.waitpid(pid, 0)
        return not admitted, f"a caller with uid {os.getuid()} was {'admitted' if admitted else 'refused'}"


def peer_uid(connection: socket.socket) -> int:
    """Who is at the other end, as the kernel says."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


def attempt(starter: Starter, launch: Launch) -> tuple[int | None, str]:
    """Run to the end, bounded. The exit code (None when it was not executed) and what it printed or why not."""
    process = starter.start(launch, stdin=False)
    said = bytearray()
    try:
        poll = select.poll()
        waiting = {process.stdout, process.stderr, process.channel}
        for descriptor in waiting:
            poll.register(descriptor, select.POLLIN)
        while waiting:
            ready = poll.poll(_WAIT_S * 1000)
            if not ready:
                process.tell(b"k")
                return None, "no end within the bound"
            for descriptor, _ in ready:
                if descriptor == process.channel:
                    more = process.hear()
                else:
                    data = os.read(descriptor, 65536)
                    said += data[:4096]
                    more = bool(data)
                if not more:
                    poll.unregister(descriptor)
                    waiting.discard(descriptor)
    finally:
        process.close_all()
    report = process.report or {}
    if report.get("problem"):
        return None, str(report["problem"])
    status = report.get("status")
    output = bytes(said).decode("utf-8", "replace").strip()
    return (os.waitstatus_to_exitcode(status) if isinstance(status, int) else None), output


def in_child(action: Callable[[], str]) -> str:
    """The text `action` returns in a forked process; what it breaks, it breaks there."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, action().encode()[:4096])
        except BaseException as failure:
            os.write(write, f"{type(failure).__name__}: {failure}".encode()[:4096])
        finally:
            os._exit(0)
    os.close(write)
    data = b""
    while part := os.read(read, 4096):
        data += part
    os.close(read)
    os.waitpid(pid, 0)
    return data.decode()


def _errno_of(action: Callable[[], None]) -> str:
    try:
        action()
    except OSError as failure:
        return errno.errorcode.get(failure.errno or 0, str(failure.errno))
    return "it worked"


def _ending(code: int | None, said: str) -> str:
    return said or "no reason given" if code is None else f"exit code {code} {said[:200]}".strip()


def _first(*paths: str) -> str:
    return next((path for path in paths if os.access(path, os.X_OK)), paths[0])


def _copy_program(source: str, target: str) -> None:
    with open(source, "rb") as program, open(target, "wb") as copy:
        copy.write(program.read())
    os.chmod(target, 0o755)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # it was never made
