"""The command `orchestrator`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Parse the command line and do what it says; ends the process with an exit code by error family."""
    if os.geteuid() != 0:
        _as_a_plain_user(sys.argv[1:])
    from orchestrator.cli.app import create

    create()()


def _as_a_plain_user(arguments: list[str]) -> None:
    """What needs root runs in a container; returns when nothing does."""
    from orchestrator.cli import plain
    from orchestrator.cli.exits import INTERRUPTED, report
    from orchestrator.errors import OrchestratorError

    if not plain.is_meant(arguments):
        return
    try:
        code = plain.run(arguments)
    except OrchestratorError as error:
        code = report(error)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        code = INTERRUPTED
    sys.exit(code)


if __name__ == "__main__":
    main()
