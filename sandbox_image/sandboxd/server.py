"""The supervisor: accepts callers, checks who they are, and turns their frames into commands."""

from __future__ import annotations

import errno
import os
import signal
import socket
import time

from . import VERSION, mounts, protocol, settings
from .app import App, AppPlan
from .command import Command
from .connection import Connection
from .launch import Launch
from .loop import READ, Loop, log
from .policy import Grant, Image, Policy, Refused, check_grant
from .protocol import BadRequest
from .selftest import Check, peer_uid
from .starter import Starter
from .tree import kill_orphans

_DISK_WAIT_S = 10.0
_REFILL_AFTER_S = 0.001


class Server:
    """Everything the supervisor holds. Nothing runs before a policy is pushed and the self-test has passed."""

    def __init__(self, configuration: settings.Settings, image: Image, abi: int, scope: int) -> None:
        self.settings = configuration
        self.loop = Loop()
        self.connections: set[Connection] = set()
        self.checks: list[Check] = []
        self._image = image
        self._abi = abi
        self.starter = Starter(self.loop, abi, scope)
        self._policy = Policy()
        self._commands: dict[str, Command] = {}
        self._jobs: set[int] = set()
        self._app = App(self.loop, self.starter, abi)
        self._started_at = time.time()
        self._refused = 0
        self._ending = False
        self._closing = False
        self._listener: socket.socket | None = None

    def admits(self, stream: socket.socket) -> bool:
        """Whether to listen to this caller at all: the tenant's own processes share our uid and must not command us."""
        return peer_uid(stream) != os.getuid()

    def listen(self) -> None:
        path = self.settings.socket_path
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        previous = os.umask(0o117)
        try:
            listener.bind(path)
        finally:
            os.umask(previous)
        listener.listen(settings.CONNECTIONS_MAX)
        self._listener = listener
        self.loop.watch(listener.fileno(), READ, lambda _: self._accept(listener))

    def watch_children(self, wake: int) -> None:
        self.loop.watch(wake, READ, lambda _: self._on_child(wake))

    def _on_child(self, wake: int) -> None:
        try:
            os.read(wake, 4096)
        except BlockingIOError:
            pass
        if self._ending and self.loop.running:
            self._ending = False
            self.shut_down()
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._jobs.discard(pid)
            self.starter.ended(pid)

    def _accept(self, listener: socket.socket) -> None:
        """One caller; who else waits is announced again."""
        try:
            stream, _ = listener.accept()
        except OSError as failure:
            if failure.errno in (errno.EMFILE, errno.ENFILE):
                log("out of descriptors")
            return
        stream.setblocking(False)
        if not self.admits(stream):
            self._refused += 1
            if self._refused in (1, 10, 100) or self._refused % 1000 == 0:
                log(f"refused {self._refused} callers of the tenant's own uid")
            stream.close()
            return
        connection = Connection(self, stream)
        self.connections.add(connection)
        if len(self.connections) > settings.CONNECTIONS_MAX:
            connection.send(protocol.error(BadRequest("busy", "too many connections")))
            connection.finish()

    # Requests

    def handle(self, connection: Connection, frame: dict[str, object], *, first: bool) -> None:
        """One frame. Raises BadRequest for whatever is not understood or not allowed."""
        kind = frame["type"]
        if not first:
            if kind == "stdin" and connection.command is not None:
                connection.command.feed(protocol.chunk(frame))
                return
            if kind == "go" and connection.command is not None:
                self._go(connection.command)
                return
            raise BadRequest("invalid", "a connection carries one request")
        if kind == "run":
            self._run(connection, frame)
            return
        handlers = {
            "hello": self._hello,
            "policy": self._set_policy,
            "cancel": self._cancel,
            "app_start": self._app_start,
            "app_stop": self._app_stop,
            "app_restart": self._app_restart,
            "app_state": lambda _: self._app_frame(),
            "app_log": self._app_log,
        }
        if kind == "disk":
            self._disk(connection)
            return
        handler = handlers.get(str(kind))
        if handler is None:
            raise BadRequest("invalid", "no such request")
        connection.answer(handler(frame))

    @property
    def kernel_gate(self) -> str:
        failed = [check for check in self.checks if not check.ok]
        if not self.checks or any(not check.waivable for check in failed):
            return "broken"
        if failed:
            return "gate_only" if self.settings.gate_only else "broken"
        return "enforced"

    def _hello(self, _: dict[str, object]) -> dict[str, object]:
        return {
            "type": "status",
            "version": VERSION,
            "landlock_abi": self._abi,
            "kernel_gate": self.kernel_gate,
            "checks": [check.frame() for check in self.checks],
            "policy_digest": self._policy.digest,
            "commands": len(self._commands),
            "app": self._app.status(),
            "started_at": self._started_at,
        }

    def _set_policy(self, frame: dict[str, object]) -> dict[str, object]:
        policy = Policy(protocol.identifier(frame, "digest"))
        programs = frame.get("programs")
        if not isinstance(programs, list) or len(programs) > settings.PROGRAMS_MAX:
            raise BadRequest("invalid", f"programs must be a list of at most {settings.PROGRAMS_MAX}")
        for entry in programs:
            if not isinstance(entry, dict):
                raise BadRequest("invalid", "a program must be an object")
            path = protocol.text(entry, "path")
            starts = protocol.texts(entry, "starts", count_max=64, item_max=4096, total_max=65536)
            try:
                granted = protocol.grants(entry, self.settings.roots)
            except BadRequest as failure:
                # One program too wide closes that program, not the others.
                policy.refused[path] = str(failure)
                continue
            policy.add(path, granted, starts, self._image, self.settings.roots)
        if frame.get("check") is not True:
            self._policy = policy
        return {
            "type": "policy",
            "digest": policy.digest,
            "programs": {path: listed.realpath for path, listed in policy.programs.items()},
            "refused": policy.refused,
        }

    def _require_service(self) -> None:
        if self._closing:
            raise BadRequest("busy", "the sandbox is stopping")
        if self.kernel_gate == "broken":
            failed = [check.name for check in self.checks if not check.ok]
            raise BadRequest("gate_broken", "the self-test failed: " + ", ".join(failed), checks=failed)
        if self._policy.digest is None:
            raise BadRequest("no_policy", "no policy was pushed yet")

    def _launch(
        self, program: str, argv: list[str], granted: list[Grant], *, replace: bool, cwd: str, starts: list[str]
    ) -> Launch:
        """What a checked request comes to under the policy in force. Raises BadRequest when it is not listed."""
        listed = self._policy.find(program)
        if listed is None:
            reason = self._policy.refused.get(program)
            raise BadRequest("not_listed", f"{program[:200]} is not listed" + (f": it {reason}" if reason else ""))
        rules = listed.domain_rules(granted, replace=replace, roots=self.settings.roots)
        for other in starts:
            started = self._policy.find(other)
            if started is None:
                raise BadRequest("not_listed", f"{other[:200]} is not listed")
            rules = [*rules, *started.rules]
        if cwd != "/":
            try:
                check_grant(cwd, "write", self.settings.roots)
            except Refused:
                raise BadRequest("invalid", "cwd lies outside the tenant's directories") from None
        launch = Launch(program, argv, rules=rules)
        launch.cwd = cwd
        return launch

    def _run(self, connection: Connection, frame: dict[str, object]) -> None:
        self._require_service()
        name = protocol.identifier(frame, "id")
        digest = frame.get("policy_digest")
        if digest is not None and digest != self._policy.digest:
            raise BadRequest("policy_changed", f"the policy in force is {self._policy.digest}")
        granted = protocol.grants(frame, self.settings.roots)
        launch = self._launch(
            protocol.text(frame, "program"),
            protocol.arguments(frame),
            granted,
            replace=frame.get("replace_grants") is True,
            cwd=protocol.text(frame, "cwd"),
            starts=[],
        )
        launch.environment = protocol.environment(frame)
        launch.connect_ports = protocol.ports(frame, "tcp_connect")
        launch.processes = protocol.whole(frame, "processes", 1, 4096, 100)
        launch.write_bytes = protocol.whole(frame, "write_bytes", 1, 1 << 40, 268_435_456)
        wall_s = protocol.number(frame, "wall_s", 0.01, 86_400, 60)
        output_bytes = protocol.whole(frame, "output_bytes", 0, 1 << 32, 1_048_576)
        stdin_bytes = protocol.whole(frame, "stdin_bytes", 0, settings.STDIN_BYTES_MAX, 0)
        hold = frame.get("hold") is True
        if any(access == "write" for _, access, _ in launch.rules):
            launch.changed_paths = protocol.whole(frame, "changed_paths", 0, 5_000, 200)
            launch.workspace = self.settings.workspace
        if name in self._commands:
            raise BadRequest("invalid", "a command with this id is running")
        if len(self._commands) >= self.settings.commands_max:
            raise BadRequest("busy", f"{self.settings.commands_max} commands are running already")
        try:
            monitored = self.starter.start(launch, stdin=stdin_bytes > 0, hold=hold)
        except OSError as failure:
            raise BadRequest("busy", f"no process can be started: {failure.strerror or failure}") from None
        command = Command(
            self.loop,
            name,
            monitored,
            sink=connection,
            output_bytes=output_bytes,
            wall_s=wall_s,
            stdin_bytes=stdin_bytes,
            policy_digest=self._policy.digest,
            on_end=lambda ended: self._on_end(connection, ended),
        )
        self._commands[name] = command
        connection.command = command

    def _go(self, command: Command) -> None:
        """Let a held command run, if it would still be started now. Raises BadRequest."""
        self._require_service()
        if command.policy_digest != self._policy.digest:
            raise BadRequest("policy_changed", f"the policy in force is {self._policy.digest}")
        command.go()

    def _on_end(self, connection: Connection, command: Command) -> None:
        self._commands.pop(command.name, None)
        connection.command = None
        connection.finish()
        if command.orphaned:
            log(f"the monitor of {command.name} was killed; ending what it left behind")
            kill_orphans(self._known_children(), command.monitored.pid)
        self.starter.take_back(command.monitored, again=not command.stopped_by)
        # The next command shall find a monitor that waits; but whoever reads this answer needs a processor first.
        self.starter.fill_soon(_REFILL_AFTER_S)

    def _known_children(self) -> set[int]:
        return (
            {command.monitored.pid for command in self._commands.values()}
            | self._app.pids()
            | self._jobs
            | self.starter.pids()
        )

    def _cancel(self, frame: dict[str, object]) -> dict[str, object]:
        command = self._commands.get(protocol.identifier(frame, "id"))
        if command is None:
            raise BadRequest("unknown_command", "no such command is running")
        command.stop("cancelled")
        return {"type": "ok"}

    # The app

    def _app_start(self, frame: dict[str, object]) -> dict[str, object]:
        self._require_service()
        argv = protocol.arguments(frame)
        granted = protocol.grants(frame, self.settings.roots)
        starts = protocol.texts(frame, "starts", count_max=64, item_max=4096, total_max=65536)
        cwd = protocol.text(frame, "cwd")
        variables = protocol.environment(frame)
        port = protocol.whole(frame, "port", 1, 65535, 8000)
        pass_socket = frame.get("pass_socket") is not False
        connect_ports = protocol.ports(frame, "tcp_connect")
        processes = protocol.whole(frame, "processes", 1, 4096, 100)
        watch = protocol.texts(frame, "watch", count_max=16, item_max=4096, total_max=65536)
        suffixes = protocol.texts(frame, "watch_suffixes", count_max=64, item_max=32, total_max=2048)

        def launch() -> Launch:
            self._require_service()
            made = self._launch(argv[0], argv, granted, replace=True, cwd=cwd, starts=starts)
            made.environment = dict(variables)
            made.connect_ports = connect_ports
            made.listen_ports = [] if pass_socket else [port]
            made.processes = processes
            return made

        launch()  # refuse now what could never start
        self._app.start(AppPlan(launch, port, pass_socket, watch, suffixes))
        return self._app_frame()

    def _app_stop(self, _: dict[str, object]) -> dict[str, object]:
        self._app.stop()
        return self._app_frame()

    def _app_restart(self, _: dict[str, object]) -> dict[str, object]:
        if not self._app.configured:
            raise BadRequest("invalid", "no app was started")
        self._app.restart()
        return self._app_frame()

    def _app_frame(self) -> dict[str, object]:
        return {"type": "app", **self._app.status()}

    def _app_log(self, frame: dict[str, object]) -> dict[str, object]:
        size = protocol.whole(frame, "bytes", 1, settings.APP_LOG_BYTES, 65536)
        return {"type": "app_log", "log": self._app.log(size)}

    # Disk usage, counted by a child because a large tree takes its time

    def _disk(self, connection: Connection) -> None:
        if len(self._jobs) >= 2:
            raise BadRequest("busy", "the disk is being counted already")
        read, write = os.pipe()
        try:
            pid = os.fork()
        except OSError as failure:
            os.close(read)
            os.close(write)
            raise BadRequest("busy", f"no process can be started: {failure.strerror}") from None
        if pid == 0:
            try:
                signal.set_wakeup_fd(-1)
                found = [mounts.usage(root) for root in self.settings.roots if os.path.isdir(root)]
                data = protocol.encode({"type": "disk", "usage": found})
                while data:
                    data = data[os.write(write, data) :]
            finally:
                os._exit(0)
        os.close(write)
        self._jobs.add(pid)
        answer = bytearray()
        timer = self.loop.later(_DISK_WAIT_S, lambda: os.kill(pid, signal.SIGKILL) if pid in self._jobs else None)

        def on_data(_: int) -> None:
            data = os.read(read, 65536)
            answer.extend(data)
            if data:
                return
            timer.cancel()
            self.loop.forget(read)
            os.close(read)
            if answer.endswith(b"\n"):
                connection.send(bytes(answer))
            else:
                connection.send(protocol.error(BadRequest("failed", "the disk could not be counted in time")))
            connection.finish()

        self.loop.watch(read, READ, on_data)

    # The end

    def ask_to_end(self) -> None:
        """Called from a signal handler: the signal also wakes the loop, which does the rest."""
        self._ending = True

    def shut_down(self) -> None:
        """Take no more callers, end the app politely and the commands at once, then leave the loop."""
        log("ending")
        self._closing = True
        self.starter.close()
        if self._listener is not None:
            self.loop.forget(self._listener.fileno())
            self._listener.close()
            self._listener = None
        self._app.stop()
        for command in list(self._commands.values()):
            command.stop("shutdown")
        deadline = time.monotonic() + settings.STOP_WAIT_S

        def leave() -> None:
            if (not self._commands and not self._app.pids()) or time.monotonic() > deadline:
                self.loop.running = False
            else:
                self.loop.later(0.02, leave)

        leave()
