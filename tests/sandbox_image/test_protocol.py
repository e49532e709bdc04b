"""Whatever arrives on the wire is turned into checked values or refused; nothing else ever happens."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox_image.sandboxd import protocol
from sandbox_image.sandboxd.policy import Refused, check_grant, is_below
from sandbox_image.sandboxd.protocol import BadRequest

ROOTS = ("/workspace", "/tmp")
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
READERS: dict[str, Any] = {
    "argv": protocol.arguments,
    "environment": protocol.environment,
    "grants": lambda frame: protocol.grants(frame, ROOTS),
    "tcp_connect": lambda frame: protocol.ports(frame, "tcp_connect"),
    "id": lambda frame: protocol.identifier(frame, "id"),
    "cwd": lambda frame: protocol.text(frame, "cwd"),
    "wall_s": lambda frame: protocol.number(frame, "wall_s", 0, 10, 5),
    "processes": lambda frame: protocol.whole(frame, "processes", 1, 10, 5),
    "data": protocol.chunk,
}


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_frame_or_refused(line: bytes) -> None:
    try:
        frame = protocol.decode(line)
    except BadRequest:
        return
    assert isinstance(frame["type"], str)


@pytest.mark.parametrize("field", list(READERS))
@given(value=ANYTHING)
@settings(max_examples=60, deadline=None)
def test_any_value_is_accepted_as_what_it_must_be_or_refused(field: str, value: Any) -> None:
    try:
        accepted = READERS[field]({"type": "run", field: value})
    except BadRequest:
        return
    protocol.encode({"type": "x", "value": accepted if not isinstance(accepted, bytes) else ""})


@pytest.mark.parametrize(
    "line",
    [b"", b"[]", b"null", b'{"type":1}', b"{}", b"[" * 100_000, b'{"type":"x"', b"\xff\xfe", b"1" * 10_000],
)
def test_what_is_no_frame_is_refused(line: bytes) -> None:
    with pytest.raises(BadRequest):
        protocol.decode(line)


@given(st.binary(max_size=5_000))
@settings(max_examples=60, deadline=None)
def test_bytes_survive_the_wire(data: bytes) -> None:
    frame = json.loads(protocol.output("stdout", data))
    assert base64.b64decode(frame["data"]) == data
    assert protocol.chunk({"data": frame["data"]}) == data


@given(st.text(max_size=60), st.sampled_from(["list", "read", "write", "execute", "device", ""]))
@settings(max_examples=300, deadline=None)
def test_no_text_becomes_a_writable_grant_outside_the_roots(path: str, access: str) -> None:
    try:
        check_grant(path, access, ROOTS)
    except Refused:
        return
    assert access in ("list", "read", "write")
    assert access != "write" or any(is_below(path, root) for root in ROOTS)


@pytest.mark.parametrize(
    "path",
    ["/workspace-x", "/workspace/../etc", "/workspace/", "//workspace", "/tmpx", "/workspace/./a", "/workspace\0", ""],
)
def test_a_path_that_only_looks_like_a_root_is_none(path: str) -> None:
    with pytest.raises(Refused):
        check_grant(path, "write", ROOTS)


@pytest.mark.parametrize(
    ("argv", "good"),
    [([], False), (["a"], True), (["a", ""], True), (["a\0"], False), (["x" * 130_000], False), (["a"] * 5_000, False)],
)
def test_argument_lists_have_a_size(argv: list[str], good: bool) -> None:
    try:
        protocol.arguments({"argv": argv})
    except BadRequest:
        assert not good
    else:
        assert good


def test_a_lone_surrogate_is_refused_like_any_text_that_cannot_be_sent() -> None:
    with pytest.raises(BadRequest):
        protocol.arguments({"argv": json.loads('["\\ud800"]')})
