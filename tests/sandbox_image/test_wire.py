"""The real supervisor under garbage: it refuses, and goes on serving everybody else."""

from __future__ import annotations

import contextlib
import json
import random
import socket
from collections.abc import Iterator

import pytest

from orchestrator.core.ports.sandboxd import SandboxBusy
from tests.support.processes import eventually
from tests.support.sandbox import PATIENCE_S, Sandbox

pytestmark = pytest.mark.engine


@contextlib.contextmanager
def connected(sandbox: Sandbox) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(PATIENCE_S)
        stream.connect(str(sandbox.sockets / "sandboxd.sock"))
        yield stream


def answer(stream: socket.socket) -> bytes:
    """Everything until the other side closes."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := stream.recv(65536):
            data += part
    return data


def frames(data: bytes) -> list[dict[str, object]]:
    return [json.loads(line) for line in data.splitlines()]


def runs(sandbox: Sandbox) -> bool:
    """False while the places of callers who just left are not free yet."""
    try:
        return sandbox.run("/usr/bin/true").exited.exit_code == 0
    except SandboxBusy:
        return False


@pytest.fixture
def alive(sandbox: Sandbox) -> Iterator[Sandbox]:
    """The same supervisor is there afterwards, and runs commands."""
    before = sandbox.client.status().started_at
    yield sandbox
    assert eventually(lambda: runs(sandbox))
    assert sandbox.client.status().started_at == before


def test_random_bytes_are_answered_with_a_refusal_or_nothing(alive: Sandbox) -> None:
    chance = random.Random(7)
    for _ in range(150):
        with connected(alive) as stream:
            with contextlib.suppress(OSError):
                stream.sendall(chance.randbytes(chance.randint(1, 2_000)) + b"\n")
                stream.shutdown(socket.SHUT_WR)
            for frame in frames(answer(stream)):
                assert frame["type"] == "error"


def test_mutated_requests_never_run_anything_they_should_not(alive: Sandbox) -> None:
    chance = random.Random(11)
    good = json.dumps(
        {"type": "run", "id": "fuzz", "program": "/usr/bin/true", "argv": ["/usr/bin/true"], "cwd": "/workspace"}
    ).encode()
    for _ in range(200):
        mutated = bytearray(good)
        for _ in range(chance.randint(1, 6)):
            mutated[chance.randrange(len(mutated))] = chance.randrange(256)
        with connected(alive) as stream:
            stream.sendall(bytes(mutated).replace(b"\n", b" ") + b"\n")
            kinds = {str(frame["type"]) for frame in frames(answer(stream))}
        assert kinds <= {"error", "started", "output", "exited"}


@pytest.mark.parametrize("kind", ["run", "policy", "cancel", "app_start", "app_log", "hello", "disk", "stdin", "x"])
@pytest.mark.parametrize(
    "fields", [{}, {"id": []}, {"argv": {}}, {"programs": [1]}, {"programs": {}}, {"digest": "\x00"}]
)
def test_a_request_with_wrong_fields_is_refused_not_fatal(alive: Sandbox, kind: str, fields: dict[str, object]) -> None:
    with connected(alive) as stream:
        stream.sendall(json.dumps({"type": kind, **fields}).encode() + b"\n")
        assert frames(answer(stream))[-1]["type"] in ("error", "status", "disk", "app_log")
    assert alive.client.status().policy_digest == "listed"


def test_a_frame_without_an_end_is_cut(alive: Sandbox) -> None:
    with connected(alive) as stream:
        with contextlib.suppress(OSError):
            stream.sendall(b"x" * 2_000_000)
        said = frames(answer(stream))
    assert all(frame["type"] == "error" for frame in said)


def test_callers_who_say_nothing_do_not_keep_others_out(alive: Sandbox) -> None:
    with contextlib.ExitStack() as silent:
        for _ in range(50):
            silent.enter_context(connected(alive))
        assert eventually(lambda: runs(alive))


def test_more_callers_than_there_are_places_are_told_so(alive: Sandbox) -> None:
    with contextlib.ExitStack() as many:
        streams = [many.enter_context(connected(alive)) for _ in range(64)]
        with connected(alive) as late:
            said = frames(answer(late))
        assert said[0]["code"] == "busy"
        assert len(streams) == 64


def test_a_caller_who_never_reads_is_dropped_and_its_command_ended(alive: Sandbox) -> None:
    script = "while True: print('x' * 4000)"
    request = {
        "type": "run", "id": "deaf", "program": "/usr/bin/python3", "argv": ["/usr/bin/python3", "-c", script],
        "cwd": "/workspace", "output_bytes": 1 << 30, "wall_s": 2,
    }  # fmt: skip
    with connected(alive) as stream:
        stream.sendall(json.dumps(request).encode() + b"\n")
        assert alive.run("/usr/bin/true").exited.exit_code == 0
        kinds = [frame for frame in frames(answer(stream)) if frame["type"] == "exited"]
    assert kinds[0]["stopped_by"] == "wall"


def test_more_input_than_announced_ends_the_command(alive: Sandbox) -> None:
    request = {
        "type": "run", "id": "more", "program": "/usr/bin/cat", "argv": ["/usr/bin/cat"], "cwd": "/workspace",
        "stdin_bytes": 2,
    }  # fmt: skip
    with connected(alive) as stream:
        stream.sendall(json.dumps(request).encode() + b'\n{"type":"stdin","data":"YWJj"}\n')
        said = frames(answer(stream))
    assert "error" in {frame["type"] for frame in said}


def test_a_second_request_on_a_connection_is_refused(alive: Sandbox) -> None:
    with connected(alive) as stream:
        run = {"type": "run", "id": "two", "program": "/usr/bin/cat", "argv": ["cat"], "cwd": "/", "stdin_bytes": 1}
        stream.sendall(json.dumps(run).encode() + b"\n" + json.dumps({**run, "id": "three"}).encode() + b"\n")
        said = frames(answer(stream))
    assert "error" in {frame["type"] for frame in said}


@pytest.mark.parametrize(
    "words",
    [[], [{"type": "run"}], [{"type": "run", "hold": True}, {"type": "go"}]],
    ids=["first of all", "what runs already", "a second time"],
)
def test_the_word_to_go_is_for_a_held_command_alone_and_once(alive: Sandbox, words: list[dict[str, object]]) -> None:
    argv = ["/usr/bin/python3", "-c", "import time; time.sleep(60)"]
    asked = {"id": "sleeper", "program": argv[0], "argv": argv, "cwd": "/workspace"}
    last: dict[str, object] = {"type": "go"}
    with connected(alive) as stream:
        for word in [*words, last]:
            stream.sendall(json.dumps({**asked, **word} if word["type"] == "run" else word).encode() + b"\n")
        said = frames(answer(stream))
    assert [frame["code"] for frame in said if frame["type"] == "error"] == ["invalid"]
