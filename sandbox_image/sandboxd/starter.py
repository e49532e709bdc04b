"""Start commands and the app: each below a monitor, one of which is held ready so that the next start need not wait."""

from __future__ import annotations

import json
import os
import socket

from . import launch as handover
from .domain import Domain, ImageFiles, LinkInGrant
from .launch import Launch
from .loop import Loop, Timer
from .monitor import AGAIN
from .template import MONITOR_WAIT_S, Template, wait_for

_REPORT_BYTES_MAX = 4 * 1024 * 1024
# A new monitor is made once a command was answered, or after this while when it runs for long.
_REFILL_WAIT_S = 0.02
# A tenant that runs no command for this while does without: waiting costs memory.
_IDLE_S = 300.0
# A monitor collects no garbage: after so many commands another one takes its place.
_COMMANDS_MAX = 100


class Standby:
    """A monitor that waits, or will when it is told so."""

    __slots__ = ("channel", "commands", "is_resting", "pid", "template")

    def __init__(self, channel: socket.socket, template: int, *, pid: int = 0, commands: int = 0) -> None:
        self.channel = channel
        # Whose child it is.
        self.template = template
        # 0 until it has said so.
        self.pid = pid
        # How many it has watched already. After one it rests until it is told to make ready for another.
        self.commands = commands
        self.is_resting = commands > 0

    def make_ready(self) -> None:
        """Raises OSError when it is gone."""
        if self.is_resting:
            self.channel.sendall(AGAIN)
            self.is_resting = False

    def give(self, message: bytes, descriptors: list[int]) -> None:
        """Hand a launch over as soon as it can be taken. Raises OSError when it is gone."""
        self.make_ready()
        if not self.pid:
            self.pid = wait_for(self.channel)
        handover.send(self.channel, message, descriptors)


class Monitored:
    """The supervisor's ends of a started command: its streams and the channel to its monitor; -1 when closed.

    `gate` is what a held program waits at.
    """

    __slots__ = (
        "_heard", "channel", "commands", "gate", "pid", "program", "report", "stderr", "stdin", "stdout", "template",
    )  # fmt: skip

    def __init__(self, monitor: Standby, stdin: int, stdout: int, stderr: int, gate: int) -> None:
        self.pid = monitor.pid
        self.template = monitor.template
        # How many this monitor has watched, this one included.
        self.commands = monitor.commands + 1
        # Of the program, once it was started.
        self.program = 0
        # How it ended. None when nothing more comes: its monitor was killed, and its tree is the supervisor's to kill.
        self.report: dict[str, object] | None = None
        self._heard = bytearray()
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.gate = gate
        self.channel = monitor.channel.detach()

    def close(self, name: str) -> None:
        descriptor = getattr(self, name)
        if descriptor >= 0:
            os.close(descriptor)
            setattr(self, name, -1)

    def close_all(self) -> None:
        for name in ("gate", "stdin", "stdout", "stderr", "channel"):
            self.close(name)

    def answer(self, word: bytes) -> None:
        """Tell a held program GO or NEVER; nothing when it is not held (any more)."""
        if self.gate < 0:
            return
        try:
            os.write(self.gate, word)
        except OSError:
            pass  # it is gone, which its monitor reports
        self.close("gate")

    def tell(self, word: bytes) -> None:
        """b"t": ask the program to end; b"k": kill the tree."""
        try:
            os.write(self.channel, word)
        except OSError:
            pass  # it is gone, which its channel says to whoever reads it

    def hear(self) -> bool:
        """Take in what the monitor reports; False once nothing more will come."""
        try:
            data = os.read(self.channel, 65536)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        if len(self._heard) < _REPORT_BYTES_MAX:
            self._heard += data
        while (end := self._heard.find(b"\n")) >= 0:
            line = bytes(self._heard[:end])
            del self._heard[: end + 1]
            if line.startswith(b"S"):
                self.program = int(line[1:])
            else:
                # The last thing a monitor writes: nobody needs to wait until it has gone.
                self.report = json.loads(line[1:])
        return bool(data) and self.report is None


class Starter:
    """Holds one monitor ready; a start that finds none, because others came just before, has one made.

    The monitor that waits holds no launch yet: what it will run, and under which policy, comes with that.
    """

    def __init__(self, loop: Loop, abi: int, scope: int) -> None:
        self._loop = loop
        self._abi = abi
        self._scope = scope
        self._files = ImageFiles()
        self._template: Template | None = None
        self._standby: Standby | None = None
        self._refill: Timer | None = None
        self._idle: Timer | None = None
        self._closed = False

    def begin(self) -> None:
        """From here on for callers: nothing of what ran before stays. Raises OSError."""
        self._drop()
        self._template = Template(self._scope)
        self.fill()

    def pids(self) -> set[int]:
        """Children of the supervisor that are nobody's command."""
        return {self._template.pid} if self._template is not None else set()

    def fill(self) -> None:
        """Have a monitor wait, when none does. Without room for it, the next start asks for its own."""
        if self._refill is not None:
            self._refill.cancel()
            self._refill = None
        if self._closed:
            return
        try:
            if self._standby is not None:
                self._standby.make_ready()
                return
        except OSError:
            self._release()  # killed while it rested
        try:
            self._keep(self._monitor())
        except OSError:
            return

    def fill_soon(self, delay_s: float = _REFILL_WAIT_S) -> None:
        if self._refill is not None:
            self._refill.cancel()
        self._refill = self._loop.later(delay_s, self.fill)

    def take_back(self, monitored: Monitored, *, again: bool) -> None:
        """Its command has ended and was answered; `again`: by itself, so that its monitor can watch another."""
        if monitored.channel < 0:
            return
        channel = socket.socket(fileno=monitored.channel)
        monitored.channel = -1
        is_sound = monitored.report is not None and not monitored.report.get("stuck")
        is_ours = self._template is not None and self._template.pid == monitored.template
        is_wanted = self._standby is None and monitored.commands < _COMMANDS_MAX
        if again and is_sound and is_ours and is_wanted:
            channel.settimeout(MONITOR_WAIT_S)
            self._keep(Standby(channel, monitored.template, pid=monitored.pid, commands=monitored.commands))
        else:
            channel.close()

    def ended(self, pid: int) -> None:
        """A child was reaped: the next monitor is made by a new template when it was that."""
        if self._template is not None and self._template.pid == pid:
            self._template.close()
            self._template = None

    def close(self) -> None:
        """No monitor waits from now on."""
        self._closed = True
        self._drop()

    def _keep(self, standby: Standby) -> None:
        self._standby = standby
        self._idle = self._loop.later(_IDLE_S, self._release)

    def _take(self) -> Standby | None:
        """The monitor that waits, if any; none waits then."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        standby, self._standby = self._standby, None
        return standby

    def _release(self) -> None:
        standby = self._take()
        if standby is not None:
            standby.channel.close()

    def _drop(self) -> None:
        self._release()
        if self._template is not None:
            self._template.close()
            self._template = None

    def _monitor(self) -> Standby:
        if self._template is not None:
            try:
                return Standby(self._template.monitor(), self._template.pid)
            except OSError:
                self._template.close()  # killed: once more, with a new one
        self._template = Template(self._scope)
        return Standby(self._template.monitor(), self._template.pid)

    def start(self, launch: Launch, *, stdin: bool, hold: bool = False) -> Monitored:
        """Hand the launch to a monitor; with `hold` the program waits, ready to be executed, until it is answered.

        Raises OSError when the process or descriptor limit does not allow it.
        """
        domain, problem = self._build_domain(launch)
        theirs: dict[str, int] = {}
        ours = {"stdin": -1, "gate": -1}
        try:
            if hold:
                theirs["gate"], ours["gate"] = os.pipe()
            if stdin:
                theirs["stdin"], ours["stdin"] = os.pipe()
            for name in ("stdout", "stderr"):
                ours[name], theirs[name] = os.pipe()
                os.set_blocking(ours[name], False)
            if stdin:
                os.set_blocking(ours["stdin"], False)
            passed = dict(theirs)
            if launch.listener >= 0:
                passed["listener"] = launch.listener
            if domain.descriptor >= 0:
                passed["domain"] = domain.descriptor
            message = launch.message(passed, confined=self._abi > 0, problem=problem)
            monitor = self._hand_over(message, list(passed.values()))
        except OSError:
            for descriptor in ours.values():
                if descriptor >= 0:
                    os.close(descriptor)
            raise
        finally:
            domain.close()
            for descriptor in theirs.values():
                os.close(descriptor)
        monitor.channel.setblocking(False)
        return Monitored(monitor, ours["stdin"], ours["stdout"], ours["stderr"], ours["gate"])

    def _hand_over(self, message: bytes, descriptors: list[int]) -> Standby:
        standby = self._take()
        if standby is not None:
            self.fill_soon()
            try:
                standby.give(message, descriptors)
            except OSError:
                standby.channel.close()  # killed while it waited
            else:
                return standby
        monitor = self._monitor()
        try:
            monitor.give(message, descriptors)
        except OSError:
            monitor.channel.close()
            raise
        return monitor

    def _build_domain(self, launch: Launch) -> tuple[Domain, str]:
        """The program's domain, made here because a freshly forked process pays for every page it touches.

        Made anew for each command: rules bind to files as they are now, and the tenant's may have been replaced.
        """
        domain = Domain(self._abi, self._files)
        try:
            for path, access, follow in launch.rules:
                domain.allow(path, access, follow=follow)
            for port in launch.connect_ports:
                domain.allow_port(port)
            for port in launch.listen_ports:
                domain.allow_port(port, listen=True)
        except LinkInGrant as link:
            return domain, f"{link} is, or runs through, a symbolic link"
        except OSError as failure:
            return domain, f"the kernel refused the domain: {failure.strerror}"
        return domain, ""
