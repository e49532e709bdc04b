"""The command `orchestrator`."""

from __future__ import annotations


def main() -> None:
    """Parse the command line and do what it says; ends the process with an exit code by error family."""
    from orchestrator.cli.app import create

    create()()


if __name__ == "__main__":
    main()
