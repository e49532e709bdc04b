"""A copy of the supervisor that does nothing but fork monitors.

It is made before anybody was answered, so it holds nothing of any command; and the supervisor does not fork while it
serves, after which it would pay again for every page it touches.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import struct

from . import monitor
from .program import place

_CHANNEL, _SCOPE = 3, 4
# How long the template may take to fork, and a monitor to take its launch over; long, for a machine short of memory.
MONITOR_WAIT_S = 30.0
_LINE_BYTES_MAX = 256


class Template:
    """The supervisor's view of it."""

    __slots__ = ("_channel", "pid")

    def __init__(self, scope: int) -> None:
        """Fork it. Raises OSError when the process or descriptor limit does not allow it."""
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self.pid = os.fork()
        except OSError:
            self._channel.close()
            theirs.close()
            raise
        if self.pid == 0:
            try:
                _serve(theirs.fileno(), scope)
            finally:
                os._exit(0)
        theirs.close()
        self._channel.settimeout(MONITOR_WAIT_S)

    def monitor(self) -> socket.socket:
        """The channel to a new monitor, which gets ready meanwhile. Raises OSError when nobody is there to make one."""
        channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            channel.settimeout(MONITOR_WAIT_S)
            rights = struct.pack("=i", theirs.fileno())
            self._channel.sendmsg([b"m"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        except OSError:
            channel.close()
            raise
        finally:
            theirs.close()
        return channel

    def close(self) -> None:
        """It ends; the monitors it made do not."""
        self._channel.close()


def wait_for(channel: socket.socket) -> int:
    """The process id of a new monitor. Raises OSError when it could not be made or was killed."""
    line = channel.recv(_LINE_BYTES_MAX)  # nothing else is said before it has a launch
    if not line:
        raise ConnectionResetError(0, "its monitor was killed")
    if not line.startswith(b"M"):
        raise BlockingIOError(0, line[1:-1].decode())
    return int(line[1:])


def _serve(channel: int, scope: int) -> None:
    gc.disable()
    null = os.open("/dev/null", os.O_RDWR)
    place([null, null, null, channel, *([scope] if scope >= 0 else [])])
    signal.set_wakeup_fd(-1)
    # For the monitors as well: what asks the supervisor to end is not for them.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, monitor.nothing)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel collects what a dead monitor leaves
    supervisor = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=_CHANNEL)
    while True:
        word, ancillary, _, _ = supervisor.recvmsg(1, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
        if not word:
            return
        for _, _, rights in ancillary:
            _fork(struct.unpack("=i", rights)[0], _SCOPE if scope >= 0 else -1)


def _fork(channel: int, scope: int) -> None:
    try:
        pid = os.fork()
    except OSError as failure:
        said = f"F{failure.strerror}\n"
    else:
        said = f"M{pid}\n"
        if pid == 0:
            try:
                monitor.run(channel, scope)
            finally:
                os._exit(0)
    try:
        os.write(channel, said.encode())
    except OSError:
        pass  # the supervisor wants it no more, which the monitor notices as well
    os.close(channel)
