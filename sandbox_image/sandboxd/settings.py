"""What the container is started with. Every limit of the supervisor itself stands here."""

from __future__ import annotations

import os

SOCKET_DIRECTORY = "/run/sandboxd"
SOCKET_NAME = "sandboxd.sock"

FRAME_BYTES_MAX = 512 * 1024
CONNECTIONS_MAX = 64
REQUEST_WAIT_S = 10.0
ARGUMENTS_MAX = 4096
ARGUMENT_BYTES_MAX = 120 * 1024
ARGUMENTS_BYTES_MAX = 256 * 1024
VARIABLES_MAX = 128
VARIABLES_BYTES_MAX = 64 * 1024
GRANTS_MAX = 128
PROGRAMS_MAX = 512
STDIN_BYTES_MAX = 64 * 1024 * 1024
CHUNK_BYTES = 32 * 1024
# A slow reader makes a command wait, not sandboxd grow.
PENDING_BYTES_MAX = 512 * 1024
DRAIN_WAIT_S = 30.0
APP_LOG_BYTES = 128 * 1024
STOP_WAIT_S = 3.0
# How long a command that was made ready may wait for the word to go.
HOLD_WAIT_S = 20.0


def _flag(value: str) -> bool:
    return value.strip().lower() in ("1", "true", "yes", "on")


class Settings:
    """From the container's environment, which the orchestrator writes."""

    __slots__ = ("commands_max", "gate_only", "image_file", "roots", "socket_directory", "workspace")

    def __init__(self, environment: dict[str, str], image_file: str) -> None:
        # Where the tenant's files may lie: the only places a grant may make writable, each mounted noexec.
        roots = environment.get("SANDBOXD_ROOTS", "/workspace:/repository:/tmp:/dev/shm")
        self.roots = tuple(os.path.normpath(root) for root in roots.split(":") if root.startswith("/"))
        self.workspace = os.path.normpath(environment.get("SANDBOXD_WORKSPACE", "/workspace"))
        self.gate_only = _flag(environment.get("SANDBOXD_GATE_ONLY", ""))
        self.commands_max = max(1, min(64, int(environment.get("SANDBOXD_COMMANDS", "20"))))
        self.socket_directory = environment.get("SANDBOXD_SOCKETS", SOCKET_DIRECTORY)
        self.image_file = image_file

    @property
    def socket_path(self) -> str:
        return os.path.join(self.socket_directory, SOCKET_NAME)
