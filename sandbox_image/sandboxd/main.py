"""Start: read the container's settings, prove what it holds, then serve."""

from __future__ import annotations

import gc
import os
import signal
import sys

from . import kernel, mounts
from .domain import signal_scope
from .loop import log
from .policy import Image, programs_in_libraries
from .selftest import SelfTest
from .server import Server
from .settings import Settings


def main(arguments: list[str]) -> int:
    image_file = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "image.json")
    image = Image.load(image_file)
    if arguments == ["--check-image"]:
        found = programs_in_libraries(image)
        for path in found:
            log(f"a program lies where every program may read: {path}")
        return 1 if found else 0
    configuration = Settings(dict(os.environ), image_file)
    configuration.roots = mounts.present(configuration.roots)
    return serve(configuration, image)


def facts() -> dict[str, str]:
    """How the container was started, before anything here changes it."""
    with open("/proc/self/status", encoding="utf-8") as file:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}


def serve(configuration: Settings, image: Image) -> int:
    at_start = facts()
    kernel.set_no_new_privileges()
    kernel.set_subreaper()
    kernel.set_dumpable(False)
    abi = kernel.landlock_abi()
    scope = signal_scope(abi)
    server = Server(configuration, image, abi, scope)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_read, False)
    os.set_blocking(wake_write, False)
    test = SelfTest(
        image=image,
        abi=abi,
        starter=server.starter,
        roots=configuration.roots,
        facts=at_start,
        socket_directory=configuration.socket_directory,
        admits=server.admits,
    )
    server.checks = test.run()
    for check in server.checks:
        if not check.ok:
            log(f"self-test: {check.name} failed: {check.evidence}")
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.ask_to_end())
    server.watch_children(wake_read)
    server.listen()
    log(f"ready: kernel gate {server.kernel_gate}, Landlock version {abi}")
    # Forked children touch fewer pages when the collector leaves them alone.
    gc.collect()
    gc.freeze()
    server.starter.begin()
    server.loop.run()
    sys.stderr.flush()
    return 0
