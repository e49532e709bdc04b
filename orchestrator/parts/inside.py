"""Trying boundaries from inside a tenant's sandbox: a short program of ours, run like any command of the tenant's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from orchestrator.core.names import new_id
from orchestrator.core.ports.sandboxd import (
    Access,
    CommandExited,
    CommandLimits,
    CommandOutput,
    PathGrant,
    SandboxCommand,
    Sandboxd,
)
from orchestrator.errors import OutsideFailure

PYTHON = "/usr/bin/python3"
WALL_S = 30.0

# Runs with nothing but the standard library. Answers are short texts, so that they can be shown as evidence.
SCRIPT = r"""
import ctypes, json, os, socket, struct, sys, threading, time
wanted = json.load(sys.stdin)
answers = {"connect": {}, "paths": {}, "roles": {}, "programs": {}}

def connect(key, host, port):
    answers["connect"][key] = "no answer in time"
    try:
        with socket.create_connection((host, port), timeout=wanted["timeout_s"]):
            answers["connect"][key] = "connected"
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        answers["connect"][key] = type(error).__name__ + ": " + reason

def resolve(name):
    answers["connect"]["name " + name] = "no answer in time"
    try:
        socket.getaddrinfo(name, 443)
        answers["connect"]["name " + name] = "resolved"
    except OSError as error:
        answers["connect"]["name " + name] = type(error).__name__

def role(name):
    answers["roles"][name] = "no answer in time"
    body = b"user\0" + name.encode() + b"\0database\0" + wanted["database"].encode() + b"\0\0"
    try:
        with socket.socket(socket.AF_UNIX) as pool:
            pool.settimeout(wanted["timeout_s"])
            pool.connect(wanted["pool"])
            pool.sendall(struct.pack("!ii", len(body) + 8, 196608) + body)
            head = pool.recv(9)
            let_in = head[:1] == b"R" and struct.unpack("!i", head[5:9])[0] == 0
            answers["roles"][name] = "let in" if let_in else "password wanted" if head[:1] == b"R" else "refused"
    except OSError as error:
        answers["roles"][name] = type(error).__name__

threads = [threading.Thread(target=connect, args=tuple(one)) for one in wanted["connect"]]
threads += [threading.Thread(target=role, args=(name,)) for name in wanted["roles"]]
threads += [threading.Thread(target=resolve, args=(name,)) for name in wanted["names"]]
for thread in threads:
    thread.daemon = True
    thread.start()
for path in wanted["paths"]:
    try:
        os.stat(path)
        answers["paths"][path] = "there"
    except OSError as error:
        answers["paths"][path] = os.strerror(error.errno)

def start(key, argv):
    try:
        pid = os.posix_spawn(argv[0], argv, {})
        os.waitpid(pid, 0)
        answers["programs"][key] = "started"
    except OSError as error:
        answers["programs"][key] = os.strerror(error.errno)

for program in wanted["programs"]:
    if os.path.exists(program):
        start(program, [program, "--version"])
own = wanted["own_program"]
try:
    with open(own, "w") as file:
        file.write("#!" + sys.executable + "\n")
    os.chmod(own, 0o755)
    start("own", [own])
    os.unlink(own)
except OSError as error:
    answers["programs"]["own"] = "not written: " + os.strerror(error.errno)
libc = ctypes.CDLL(None, use_errno=True)
header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
failed = libc.capget(header, data) != 0
answers["status"] = {
    "capabilities": "unknown" if failed else format(data[0] | data[1] | data[3] | data[4], "x"),
    "no new privileges": str(libc.prctl(39, 0, 0, 0, 0)),
    "seccomp": str(libc.prctl(21, 0, 0, 0, 0)),
    "uid": str(os.getuid()),
}
answers["root"] = "ro" if os.statvfs("/").f_flag & os.ST_RDONLY else "rw"
deadline = time.monotonic() + wanted["timeout_s"] + 1.0
for thread in threads:
    thread.join(max(0.0, deadline - time.monotonic()))
json.dump(answers, sys.stdout)
sys.stdout.flush()
os._exit(0)
"""


class InsideFailed(OutsideFailure):
    """The program inside did not answer."""

    code = "outside_failure.probe"


@dataclass(frozen=True)
class Attempts:
    """What to try: addresses by key, paths, names, roles at the tenant's own pool, programs of the image."""

    connect: Sequence[tuple[str, str, int]]
    paths: Sequence[str]
    names: Sequence[str]
    roles: Sequence[str]
    programs: Sequence[str]
    database: str
    pool: str = "/run/postgresql/.s.PGSQL.5432"
    timeout_s: float = 1.5
    own_program: str = field(default_factory=lambda: f"/workspace/.{new_id('probe')}")


@dataclass(frozen=True)
class Answers:
    """What answered, in short texts, by what was tried."""

    connect: dict[str, str]
    paths: dict[str, str]
    roles: dict[str, str]
    programs: dict[str, str]
    status: dict[str, str]
    root: str


def attempt(sandboxd: Sandboxd, attempts: Attempts) -> Answers:
    """Run the program inside and read its answers. Raises InsideFailed or what the supervisor refuses."""
    command = SandboxCommand(
        id=new_id("c"),
        program=PYTHON,
        argv=(PYTHON, "-I", "-S", "-c", SCRIPT),
        cwd="/workspace",
        environment={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        stdin=json.dumps(asdict(attempts)).encode(),
        limits=CommandLimits(wall_s=WALL_S),
        grants=(PathGrant("/workspace", Access.WRITE),),
        # The kernel gate would hide what the network does: here only the network may say no.
        tcp_connect=tuple(sorted({port for _, _, port in attempts.connect})),
    )
    said, complaint, ended = bytearray(), bytearray(), None
    for event in sandboxd.run(command):
        if isinstance(event, CommandOutput):
            (said if event.stream == "stdout" else complaint).extend(event.data)
        elif isinstance(event, CommandExited):
            ended = event
    try:
        return Answers(**json.loads(said))
    except (ValueError, TypeError) as error:
        reason = complaint.decode("utf-8", "replace")[-500:] or str(ended)
        raise InsideFailed("The probe inside the sandbox did not answer.", effect=reason) from error
