"""What one command or app is: plain values the supervisor checked, and how they travel to the processes that run it."""

from __future__ import annotations

import json
import select
import socket
import struct

from .policy import Rule

_LENGTH = struct.Struct("=I")
# The streams, a listening socket, the domain and the gate.
_DESCRIPTORS_MAX = 6


class Launch:
    """What to start and in which domain. Plain values, fixed before they are handed over."""

    __slots__ = (
        "argv", "changed_paths", "connect_ports", "cwd", "environment", "listen_ports", "listener", "path",
        "processes", "rules", "workspace", "write_bytes",
    )  # fmt: skip

    def __init__(self, path: str, argv: list[str], *, rules: list[Rule]) -> None:
        self.path = path
        self.argv = argv
        self.rules = rules
        self.environment: dict[str, str] = {}
        self.cwd = "/"
        self.connect_ports: list[int] = []
        self.listen_ports: list[int] = []
        self.listener = -1
        self.processes = 0
        self.write_bytes = 0
        self.workspace = ""
        self.changed_paths = 0

    def message(self, descriptors: dict[str, int], *, confined: bool, problem: str) -> bytes:
        """Everything but the domain's rules: those arrive built, as a descriptor. `descriptors` names what follows.

        `confined`: without a domain it must not run. `problem`: why it must not run at all.
        """
        fields = {
            "path": self.path,
            "argv": self.argv,
            "environment": self.environment,
            "cwd": self.cwd,
            "processes": self.processes,
            "write_bytes": self.write_bytes,
            "workspace": self.workspace,
            "changed_paths": self.changed_paths,
            "problem": problem,
            "confined": confined,
            "descriptors": list(descriptors),
        }
        return json.dumps(fields).encode()


class Order:
    """A launch as the monitor and the program receive it, with the descriptors that came along."""

    __slots__ = (
        "argv", "changed_paths", "confined", "cwd", "descriptors", "environment", "message", "path", "problem",
        "processes", "workspace", "write_bytes",
    )  # fmt: skip

    def __init__(self, message: bytes, descriptors: list[int]) -> None:
        fields = json.loads(message)
        self.message = message
        self.descriptors: dict[str, int] = dict(zip(fields["descriptors"], descriptors, strict=True))
        self.path: str = fields["path"]
        self.argv: list[str] = fields["argv"]
        self.environment: dict[str, str] = fields["environment"]
        self.cwd: str = fields["cwd"]
        self.processes: int = fields["processes"]
        self.write_bytes: int = fields["write_bytes"]
        self.workspace: str = fields["workspace"]
        self.changed_paths: int = fields["changed_paths"]
        self.problem: str = fields["problem"]
        self.confined: bool = fields["confined"]


def send(channel: socket.socket, message: bytes, descriptors: list[int]) -> None:
    """Hand a message over, the descriptors with its first byte. Raises OSError when nobody takes it."""
    data = memoryview(_LENGTH.pack(len(message)) + message)
    rights = struct.pack(f"={len(descriptors)}i", *descriptors)
    sent = channel.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else [])
    if sent < len(data):
        channel.sendall(data[sent:])


def rehearse(channel: socket.socket, nothing: int) -> Order | None:
    """An empty launch, sent to oneself with the descriptor `nothing`; None when a real one has come meanwhile.

    A forked process pays for every page it touches first: better while nobody waits.
    """
    if select.select([channel], [], [], 0)[0]:
        return None
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        descriptors = {"stdin": nothing}
        send(
            ours,
            Launch("", [""], rules=[]).message(descriptors, confined=False, problem=""),
            list(descriptors.values()),
        )
        return receive(theirs)


def receive(channel: socket.socket) -> Order | None:
    """Wait for a message, whose descriptors are closed on execution; None when the sender is gone.

    Not a byte behind the message is read: what follows on the channel is not for this reader.
    """
    space = socket.CMSG_SPACE(_DESCRIPTORS_MAX * 4)
    head, ancillary, flags, _ = channel.recvmsg(_LENGTH.size, space, socket.MSG_CMSG_CLOEXEC)
    descriptors = [
        number
        for level, kind, rights in ancillary
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS
        for (number,) in struct.iter_unpack("=i", rights)
    ]
    if flags & socket.MSG_CTRUNC or len(head) < _LENGTH.size:
        return None
    length = _LENGTH.unpack(head)[0]
    message = bytearray()
    while len(message) < length:
        data = channel.recv(length - len(message))
        if not data:
            return None
        message += data
    return Order(bytes(message), descriptors)
