"""Both ways of reading a COPY give the same lines, whatever their lengths, and the server's error when there is one."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from orchestrator.drivers.postgres.diff.copying import CopyLines, cells

# Lengths whose bytes in a frame's header are newlines, the letter that begins a frame, and everything around.
EDGES = [0, 1, 5, 6, 9, 10, 95, 96, 99, 100, 255, 256, 265, 266, 2560, 2565, 2570, 25600, 25700, 70000]


def _lines(connection: psycopg.Connection[Any], query: bytes, framed: bool) -> list[bytes]:
    reader = CopyLines(connection, query, timeout_s=60, framed=framed)
    found: list[bytes] = []
    _drain(reader, found)
    assert reader.lines_read == len(found)
    return found


def _drain(reader: CopyLines, found: list[bytes]) -> None:
    while not reader.exhausted:
        found += reader.next_batch()


@pytest.mark.parametrize("framed", [True, False])
def test_every_length_of_line_is_read_whole(database: str, framed: bool) -> None:
    lengths = [*range(1100), *EDGES]
    with psycopg.connect(database) as connection:
        query = f"COPY (SELECT repeat('d', n) FROM unnest(ARRAY{lengths}) WITH ORDINALITY u(n, o) ORDER BY o) TO STDOUT"
        assert [len(line) for line in _lines(connection, query.encode(), framed)] == lengths
        assert _lines(connection, b"COPY (SELECT 1 WHERE false) TO STDOUT", framed) == []
        assert _lines(connection, b"COPY (SELECT '' FROM generate_series(1, 3)) TO STDOUT", framed) == [b"", b"", b""]
        assert connection.execute("SELECT 'still usable'").fetchone() == ("still usable",)


@pytest.mark.parametrize("framed", [True, False])
def test_an_error_in_the_middle_is_the_servers_own(database: str, framed: bool) -> None:
    query = b"COPY (SELECT repeat('x', 500), 1 / (40000 - n) FROM generate_series(1, 50000) n) TO STDOUT"
    with psycopg.connect(database) as connection, pytest.raises(psycopg.errors.DivisionByZero):
        _lines(connection, query, framed)


@pytest.mark.parametrize("framed", [True, False])
def test_an_error_message_full_of_frames_is_no_data(database: str, framed: bool) -> None:
    hostile = "d\x01\x01\x01\x01fake\\n" * 50
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION boom(n int) RETURNS int LANGUAGE plpgsql AS $$BEGIN"
            f" IF n = 900 THEN RAISE EXCEPTION USING message = E'{hostile}'; END IF; RETURN n; END$$".encode()
        )
        reader = CopyLines(
            connection, b"COPY (SELECT boom(n) FROM generate_series(1, 1000) n) TO STDOUT", timeout_s=60, framed=framed
        )
        found: list[bytes] = []
        with pytest.raises(psycopg.errors.RaiseException):
            _drain(reader, found)
        assert set(found) <= {str(number).encode() for number in range(1, 900)}


def test_a_wrong_query_raises_before_any_line(database: str) -> None:
    with psycopg.connect(database) as connection, pytest.raises(psycopg.errors.UndefinedTable):
        _lines(connection, b"COPY nowhere TO STDOUT", True)


def test_cells_are_unescaped_once() -> None:
    assert cells(rb"a\tb" + b"\t" + rb"\N" + b"\t" + rb"\\N" + b"\t" + rb"\\\n" + b"\t") == (
        "a\tb",
        None,
        "\\N",
        "\\\n",
        "",
    )
    assert cells(b"caf\xe9") == ("caf\udce9",)
