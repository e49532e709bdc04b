"""A Unix socket in front of a server's that lets only so many bytes back through.

A client library reads a whole value into memory before anybody can look at its size. Counting here, in front of it,
bounds what one query can make this process hold, whatever the tenant's database sends.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHUNK_BYTES = 65_536
CONNECT_TIMEOUT_S = 10.0


class Relay:
    """`directory` holds the socket to connect to. `close` ends both sides at once, from any thread."""

    def __init__(self, directory: Path, listener: socket.socket, upstream: Path, bytes_max: int) -> None:
        self.directory = directory
        self.overflowed = False
        self._listener = listener
        self._upstream = upstream
        self._bytes_max = bytes_max
        self._sockets: list[socket.socket] = []
        self._mutex = threading.Lock()
        self._closed = False

    def serve(self) -> None:
        """Take one client and carry bytes until either side ends."""
        try:
            client, _ = self._listener.accept()
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            server.settimeout(CONNECT_TIMEOUT_S)
            with self._mutex:
                self._sockets += [client, server]
                closed = self._closed
            if closed:
                return self.close()
            server.connect(str(self._upstream))
            server.settimeout(None)
        except OSError:
            return self.close()
        upward = threading.Thread(target=self._carry, args=(client, server, None), daemon=True, name="relay-up")
        upward.start()
        self._carry(server, client, self._bytes_max)
        upward.join()

    def close(self) -> None:
        """End both connections; whoever reads or writes one gets an error at once."""
        with self._mutex:
            self._closed = True
            sockets = [*self._sockets, self._listener]
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close() if one is self._listener else None

    def release(self) -> None:
        """Give the descriptors back; only after `serve` has ended."""
        for one in self._sockets:
            one.close()

    def _carry(self, source: socket.socket, target: socket.socket, bytes_max: int | None) -> None:
        carried = 0
        with contextlib.suppress(OSError):
            while chunk := source.recv(CHUNK_BYTES):
                carried += len(chunk)
                if bytes_max is not None and carried > bytes_max:
                    self.overflowed = True
                    break
                target.sendall(chunk)
        self.close()


@contextmanager
def relay(upstream: Path, *, port: int, bytes_max: int) -> Iterator[Relay]:
    """A relay to the server's socket `upstream`, gone with its directory afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="q"))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    thread: threading.Thread | None = None
    made: Relay | None = None
    try:
        listener.bind(str(directory / f".s.PGSQL.{port}"))
        listener.listen(1)
        made = Relay(directory, listener, upstream, bytes_max)
        thread = threading.Thread(target=made.serve, daemon=True, name="relay")
        thread.start()
        yield made
    finally:
        if made is not None:
            made.close()
        listener.close()
        if thread is not None and made is not None:
            thread.join(CONNECT_TIMEOUT_S + 5)
            made.release()
        shutil.rmtree(directory, ignore_errors=True)
