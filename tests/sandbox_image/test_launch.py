"""How a launch travels to the process that runs it: whole, with its descriptors, and not a byte more."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_image.sandboxd import launch
from sandbox_image.sandboxd.connection import Connection
from sandbox_image.sandboxd.domain import ImageFiles
from sandbox_image.sandboxd.launch import Launch
from sandbox_image.sandboxd.policy import Image
from sandbox_image.sandboxd.protocol import BadRequest
from sandbox_image.sandboxd.server import Server
from sandbox_image.sandboxd.settings import Settings

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_launch_larger_than_any_buffer_arrives_whole(pair: Pair) -> None:
    made = Launch("/usr/bin/true", ["true", "é\u202e\n", "x" * 3_000_000], rules=[])
    made.environment = {"LANG": "C.UTF-8"}
    made.cwd, made.processes, made.write_bytes = "/workspace", 7, 8
    message = made.message({}, confined=True, problem="")
    sender = threading.Thread(target=launch.send, args=(pair[0], message, []))
    sender.start()
    order = launch.receive(pair[1])
    sender.join()
    assert order is not None
    assert (order.path, order.argv, order.environment) == (made.path, made.argv, made.environment)
    assert (order.cwd, order.processes, order.write_bytes, order.confined) == ("/workspace", 7, 8, True)


def test_descriptors_arrive_by_name_and_do_not_survive_an_execution(pair: Pair) -> None:
    read, write = os.pipe()
    message = Launch("/x", ["x"], rules=[]).message({"stdout": write}, confined=True, problem="")
    launch.send(pair[0], message, [write])
    os.close(write)
    order = launch.receive(pair[1])
    assert order is not None
    arrived = order.descriptors["stdout"]
    assert not os.get_inheritable(arrived)
    os.write(arrived, b"through")
    assert os.read(read, 100) == b"through"
    os.close(arrived)
    os.close(read)


def test_what_follows_a_launch_is_left_on_the_channel(pair: Pair) -> None:
    launch.send(pair[0], Launch("/x", ["x"], rules=[]).message({}, confined=True, problem=""), [])
    pair[0].sendall(b"k")
    assert launch.receive(pair[1]) is not None
    assert pair[1].recv(10) == b"k"


@pytest.mark.parametrize("sent", [b"", b"\1", b"\7\0\0\0{"])
def test_a_sender_that_goes_away_half_way_launches_nothing(pair: Pair, sent: bytes) -> None:
    pair[0].sendall(sent)
    pair[0].close()
    assert launch.receive(pair[1]) is None


def test_what_does_not_lie_on_the_images_own_file_system_is_not_kept_open() -> None:
    files = ImageFiles()
    for path in (Path("/dev"), Path("/proc")):
        assert not files.keep(str(path), -1, path.stat())
        assert files.find(str(path)) is None
    writable = not os.statvfs("/").f_flag & os.ST_RDONLY
    assert not (writable and files.keep("/", -1, Path("/").stat()))


def test_a_command_that_comes_after_the_end_began_is_refused_at_once() -> None:
    server = Server(Settings({}, ""), Image({}), 0, -1)
    server.shut_down()
    caller, stream = socket.socketpair()
    with caller, stream:
        with pytest.raises(BadRequest, match="stopping"):
            server.handle(Connection(server, stream), {"type": "run", "id": "late"}, first=True)
    assert not server.loop.running
