"""`python -m orchestrator.setup.outside PROGRAM ARG…`: in a container, run a program among the host's own mounts.

The container's parent is the engine's, which lives where the host's mounts are. The host's process 1 may be out of
reach, or live elsewhere.
"""

from __future__ import annotations

import os
import sys


def arguments(parent: int, program: list[str]) -> list[str]:
    """nsenter's argument list."""
    return ["nsenter", f"--target={parent}", "--mount", "--", *program]


if __name__ == "__main__":
    found = arguments(os.getppid(), sys.argv[1:])
    os.execvp(found[0], found)  # noqa: S606
