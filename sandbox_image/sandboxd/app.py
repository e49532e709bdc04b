"""The tenant's app: one process under the same rule as every command, restarted on change and after it died."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable

from . import fallback, settings
from .launch import Launch
from .loop import READ, Loop, Timer, log
from .starter import Monitored, Starter
from .watch import Watcher

_BACK_OFF_FIRST_S = 1.0
_BACK_OFF_MAX_S = 60.0
# Alive for this long counts as running; alive for that long ends the memory of earlier deaths.
_STARTED_AFTER_S = 1.5
_HEALTHY_AFTER_S = 30.0
_ERROR_BYTES = 16 * 1024


class AppPlan:
    """What to run: checked values from the caller. `launch` is built anew for every start."""

    __slots__ = ("launch", "pass_socket", "port", "suffixes", "watch")

    def __init__(
        self, launch: Callable[[], Launch], port: int, pass_socket: bool, watch: list[str], suffixes: list[str]
    ) -> None:
        self.launch = launch
        self.port = port
        self.pass_socket = pass_socket
        self.watch = watch
        self.suffixes = tuple(suffixes)


class App:
    """States: stopped → starting → running ⇄ broken. The listening socket outlives every restart."""

    def __init__(self, loop: Loop, starter: Starter, abi: int) -> None:
        self._loop = loop
        self._starter = starter
        self._abi = abi
        self._plan: AppPlan | None = None
        self._wanted = False
        self._process: Monitored | None = None
        self._listener: socket.socket | None = None
        self._watcher: Watcher | None = None
        self._fallback = 0
        self._log = bytearray()
        self._run_log = bytearray()
        self._retry: Timer | None = None
        self._patience: Timer | None = None
        self._back_off_s = _BACK_OFF_FIRST_S
        self._started_at = 0.0
        self._began = 0.0
        self._restarts = 0
        self._exit_code: int | None = None
        self._error = ""
        self._changed = False

    # What the caller asks

    def start(self, plan: AppPlan) -> None:
        """Run this from now on, instead of what ran before."""
        self._close_watcher()
        if self._plan is not None and (self._plan.port, self._plan.pass_socket) != (plan.port, plan.pass_socket):
            self._close_listener()
        self._plan = plan
        self._wanted = True
        self._listen()
        self._watcher = Watcher(self._loop, plan.watch, plan.suffixes, self._on_files_changed) if plan.watch else None
        self.restart()

    def stop(self) -> None:
        self._wanted = False
        self._cancel_retry()
        self._close_watcher()
        self._end_fallback()
        self._close_listener()
        self._error = ""
        self._end_process()

    def restart(self) -> None:
        self._back_off_s = _BACK_OFF_FIRST_S
        self._cancel_retry()
        if self._process is None:
            self._launch()
        else:
            self._changed = True
            self._end_process()

    @property
    def configured(self) -> bool:
        return self._plan is not None

    def status(self) -> dict[str, object]:
        alive = self._process is not None
        if not self._wanted:
            state = "stopped"
        elif not alive:
            state = "broken" if self._error or self._retry else "starting"
        else:
            state = "running" if time.monotonic() - self._began >= _STARTED_AFTER_S else "starting"
        return {
            "state": state,
            "pid": (self._process.program or None) if self._process is not None else None,
            "restarts": self._restarts,
            "started_at": self._started_at if alive else None,
            "exit_code": self._exit_code,
            "error": self._error if state == "broken" else "",
        }

    def log(self, bytes_max: int) -> str:
        return bytes(self._log[-bytes_max:]).decode("utf-8", "replace")

    def pids(self) -> set[int]:
        """Children of the supervisor that belong to the app."""
        pids = {self._fallback} if self._fallback else set()
        return pids | ({self._process.pid} if self._process is not None else set())

    # The process

    def _launch(self) -> None:
        plan = self._plan
        if plan is None or not self._wanted:
            return
        self._cancel_retry()
        self._end_fallback()
        self._changed = False
        try:
            launch = plan.launch()
            if self._listener is not None and plan.pass_socket:
                launch.listener = self._listener.fileno()
            process = self._starter.start(launch, stdin=False)
        except Exception as failure:
            # A program that is not listed any more, or no process left: shown like a death of the app.
            self._broken(f"The app could not be started: {failure}")
            return
        self._process = process
        self._began = time.monotonic()
        self._started_at = time.time()
        self._run_log.clear()
        self._loop.watch(process.stdout, READ, lambda _: self._forward("stdout"))
        self._loop.watch(process.stderr, READ, lambda _: self._forward("stderr"))
        self._loop.watch(process.channel, READ, lambda _: self._on_report())

    def _end_process(self) -> None:
        """Ask it to end; after a while, end it."""
        if self._process is None:
            return
        self._process.tell(b"t")
        if self._patience is None:
            self._patience = self._loop.later(settings.STOP_WAIT_S, self.kill)

    def kill(self) -> None:
        if self._process is not None:
            self._process.tell(b"k")

    def _forward(self, name: str) -> None:
        self._on_output(name)

    def _on_output(self, name: str) -> bool:
        """Keep one chunk of what the app printed; False when there is nothing more now or ever."""
        process = self._process
        descriptor = getattr(process, name) if process is not None else -1
        if descriptor < 0:
            return False
        try:
            data = os.read(descriptor, settings.CHUNK_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._loop.forget(descriptor)
            assert process is not None
            process.close(name)
            return False
        for kept, size in ((self._log, settings.APP_LOG_BYTES), (self._run_log, _ERROR_BYTES)):
            kept += data
            del kept[:-size]
        return True

    def _on_report(self) -> None:
        process = self._process
        assert process is not None
        if process.hear():
            return
        for name in ("stdout", "stderr"):
            while self._on_output(name):
                pass
        for name in ("stdout", "stderr", "channel"):
            self._loop.forget(getattr(process, name))
        process.close_all()
        self._process = None
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        self._on_death(process.report or {"problem": "The app's monitor was killed."})

    def _on_death(self, report: dict[str, object]) -> None:
        status = report.get("status")
        status = status if isinstance(status, int) else None
        problem = report.get("problem") or ""
        self._exit_code = os.WEXITSTATUS(status) if status is not None and os.WIFEXITED(status) else None
        if not self._wanted:
            return
        if self._changed:
            self._restarts += 1
            self._launch()
            return
        said = bytes(self._run_log).decode("utf-8", "replace").strip()
        ending = problem or _ending(status)
        log(f"the app ended: {ending}")
        self._broken(f"{said}\n\n{ending}".strip())

    def _broken(self, error: str) -> None:
        self._error = error
        if time.monotonic() - self._began > _HEALTHY_AFTER_S:
            self._back_off_s = _BACK_OFF_FIRST_S
        self._start_fallback(error)
        self._retry = self._loop.later(self._back_off_s, self._try_again)
        self._back_off_s = min(_BACK_OFF_MAX_S, self._back_off_s * 2)

    def _try_again(self) -> None:
        self._retry = None
        self._restarts += 1
        self._launch()

    def _cancel_retry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    # Files and sockets

    def _on_files_changed(self) -> None:
        if self._wanted:
            log("the app's files changed; restarting it")
            self.restart()

    def _close_watcher(self) -> None:
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None

    def _listen(self) -> None:
        """Hold the port: connections made while the app restarts wait instead of being refused."""
        plan = self._plan
        if plan is None or not plan.pass_socket or self._listener is not None:
            return
        try:
            self._listener = _listening(plan.port)
        except OSError as failure:
            log(f"port {plan.port} cannot be held: {failure.strerror}")

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _start_fallback(self, error: str) -> None:
        own = None
        try:
            if self._listener is None and self._plan is not None:
                own = _listening(self._plan.port)
            held = own or self._listener
            if held is not None:
                self._fallback = fallback.start(held.fileno(), error, self._abi)
        except OSError as failure:
            log(f"the traceback page cannot be served: {failure.strerror}")
        finally:
            if own is not None:
                own.close()

    def _end_fallback(self) -> None:
        if self._fallback:
            try:
                os.kill(self._fallback, signal.SIGKILL)
                os.waitpid(self._fallback, 0)
            except OSError:
                pass  # it is gone already
            self._fallback = 0


def _listening(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit it: an app's small writes are not held back.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(("0.0.0.0", port))
        listener.listen(128)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _ending(status: int | None) -> str:
    if status is None:
        return "The app did not start."
    if os.WIFSIGNALED(status):
        return f"The app was ended by signal {os.WTERMSIG(status)}."
    return f"The app ended with exit code {os.WEXITSTATUS(status)}."
