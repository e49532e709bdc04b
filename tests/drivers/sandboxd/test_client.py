"""The client trusts nothing at the other end: not who it is, not what it says, not that it ever answers."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.core.ports.sandboxd import (
    AppState,
    CommandExited,
    CommandOutput,
    CommandStarted,
    CommandUnknown,
    KernelGate,
    KernelGateBroken,
    PolicyMissing,
    ProgramNotListed,
    SandboxBusy,
    SandboxCommand,
    Sandboxd,
    SandboxdUnreachable,
    SandboxPolicy,
    SandboxRequestInvalid,
)
from orchestrator.drivers.sandboxd import SandboxdClient, SandboxdClients

COMMAND = SandboxCommand(id="c1", program="/usr/bin/true", argv=("/usr/bin/true",), cwd="/workspace")
EXITED = {
    "type": "exited",
    "exit_code": 0,
    "signal": None,
    "stopped_by": None,
    "changed": ["a"],
    "changed_complete": True,
}

Answer = Callable[[socket.socket, bytes], None]


class Other:
    """Whatever sits at the other end of the socket."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(directory / "sandboxd.sock"))
        self._listener.listen()
        self._threads: list[threading.Thread] = []
        self.requests: list[bytes] = []

    def answers(self, answer: Answer) -> SandboxdClient:
        """Serve one caller with `answer`, in a thread."""

        def serve() -> None:
            stream, _ = self._listener.accept()
            with stream:
                stream.settimeout(60)
                request = b""
                while not request.endswith(b"\n") and (part := stream.recv(65536)):
                    request += part
                self.requests.append(request)
                try:
                    answer(stream, request)
                except OSError:
                    return  # the client left, as some of these tests want

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        self._threads.append(thread)
        return SandboxdClient(self.directory, uid=os.getuid(), request_wait_s=30)

    def close(self) -> None:
        self._listener.close()
        for thread in self._threads:
            thread.join(60)


@pytest.fixture
def other() -> Iterator[Other]:
    directory = Path(tempfile.mkdtemp(prefix="sd", dir="/tmp"))
    made = Other(directory)
    yield made
    made.close()
    shutil.rmtree(directory)


def lines(*frames: object) -> Answer:
    data = b"".join(json.dumps(frame).encode() + b"\n" for frame in frames)
    return lambda stream, _: stream.sendall(data)


def test_a_run_is_started_outputs_and_one_end(other: Other) -> None:
    output = {"type": "output", "stream": "stderr", "data": base64.b64encode(b"\xff\x00").decode()}
    events = list(other.answers(lines({"type": "started", "pid": 7}, output, EXITED)).run(COMMAND))
    assert events[:2] == [CommandStarted(7), CommandOutput("stderr", b"\xff\x00")]
    assert isinstance(events[2], CommandExited)
    assert events[2].changed == ("a",)
    asked = json.loads(other.requests[0])
    assert asked["argv"] == ["/usr/bin/true"]
    assert asked["environment"] == {}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("gate_broken", KernelGateBroken),
        ("no_policy", PolicyMissing),
        ("policy_changed", PolicyMissing),
        ("not_listed", ProgramNotListed),
        ("busy", SandboxBusy),
        ("unknown_command", CommandUnknown),
        ("invalid", SandboxRequestInvalid),
    ],
)
def test_each_refusal_is_an_error_of_its_own(other: Other, code: str, expected: type[Exception]) -> None:
    client = other.answers(lines({"type": "error", "code": code, "message": "why", "checks": ["noexec"]}))
    with pytest.raises(expected):
        list(client.run(COMMAND))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"nonsense\n",
        b"[1]\n",
        b'{"type": 5}\n',
        b'{"type": "exited"',
        b'{"type": "surprise"}\n',
        b'{"type": "output", "stream": "stdout", "data": "%%%"}\n',
        b"[" * 50_000 + b"\n",
    ],
)
def test_an_answer_that_makes_no_sense_is_an_unreachable_sandbox(other: Other, data: bytes) -> None:
    client = other.answers(lambda stream, _: stream.sendall(data))
    with pytest.raises(SandboxdUnreachable):
        list(client.run(COMMAND))


def test_an_endless_answer_is_cut(other: Other) -> None:
    def endless(stream: socket.socket, _: bytes) -> None:
        while True:
            stream.sendall(b"x" * 65536)

    with pytest.raises(SandboxdUnreachable, match="too long"):
        other.answers(endless).status()


def test_fields_of_the_wrong_kind_become_the_harmless_value(other: Other) -> None:
    hostile = {
        "type": "status",
        "kernel_gate": "splendid",
        "checks": [{"name": 5, "ok": "yes"}, 7],
        "app": [],
        "commands": "x",
    }
    status = other.answers(lines(hostile)).status()
    assert status.kernel_gate is KernelGate.BROKEN
    assert status.commands == 0
    assert status.app.state is AppState.STOPPED
    assert [check.ok for check in status.checks] == [False]


def test_large_input_and_large_output_at_once_do_not_wait_for_each_other(other: Other) -> None:
    """The other side answers before it has read everything, as a full pipe makes it do."""
    total = 3_000_000

    def echo(stream: socket.socket, request: bytes) -> None:
        chunk = json.dumps({"type": "output", "stream": "stdout", "data": base64.b64encode(b"x" * 30_000).decode()})
        for _ in range(100):
            stream.sendall(chunk.encode() + b"\n")
        left = total
        data = request.partition(b"\n")[2]
        while left > 0:
            line, found, data = data.partition(b"\n")
            if not found:
                data = line + stream.recv(262_144)
                continue
            left -= len(base64.b64decode(json.loads(line)["data"]))
        stream.sendall(json.dumps(EXITED).encode() + b"\n")

    client = other.answers(echo)
    command = SandboxCommand(id="c1", program="/bin/cat", argv=("cat",), cwd="/", stdin=b"y" * total)
    events = list(client.run(command))
    assert sum(len(event.data) for event in events if isinstance(event, CommandOutput)) == 3_000_000
    assert isinstance(events[-1], CommandExited)


def test_leaving_early_closes_the_connection(other: Other) -> None:
    left = threading.Event()

    def wait(stream: socket.socket, _: bytes) -> None:
        stream.sendall(b'{"type":"started","pid":1}\n')
        if stream.recv(1) == b"":
            left.set()

    events = other.answers(wait).run(COMMAND)
    assert next(events) == CommandStarted(1)
    events.close()  # type: ignore[attr-defined]
    assert left.wait(60)


def test_a_socket_of_another_user_is_not_talked_to(other: Other) -> None:
    client = SandboxdClient(other.directory, uid=os.getuid() + 1, request_wait_s=5)
    with pytest.raises(SandboxdUnreachable, match="replaced"):
        client.status()


@pytest.mark.parametrize("kind", ["missing", "file", "link", "stale"])
def test_what_is_no_live_socket_is_unreachable(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "sandboxd.sock"
    if kind == "file":
        place.touch()
    elif kind == "link":
        place.symlink_to("/run/other.sock")
    elif kind == "stale":
        directory = Path(tempfile.mkdtemp(prefix="sd", dir="/tmp"))
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(directory / "sandboxd.sock"))
        tmp_path = directory
    client = SandboxdClients().connect(tmp_path, uid=os.getuid())
    with pytest.raises(SandboxdUnreachable):
        client.set_policy(SandboxPolicy("v1", ()))
    with pytest.raises(SandboxdUnreachable):
        client.wait(timeout_s=0.1)


def test_the_client_is_what_the_port_asks_for(tmp_path: Path) -> None:
    client: Sandboxd = SandboxdClients().connect(tmp_path, uid=0)
    assert isinstance(client, SandboxdClient)
