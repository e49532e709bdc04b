"""What every command needs: the services of this installation, and who is at the keyboard.

Commands work in this process, with the rights of whoever runs them on the host; the audit trail names that person.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from orchestrator import config
from orchestrator.core.access import Principal, operator

if TYPE_CHECKING:
    from orchestrator.wiring.services import Services


def settings() -> config.Settings:
    """Raises InvalidConfiguration."""
    return config.load()


@contextmanager
def opened() -> Iterator[Services]:
    """The services of the running installation: `with session.opened() as services:`."""
    from orchestrator.wiring.build import build  # takes a moment: `--help` does without

    services = build(settings())
    try:
        yield services
    finally:
        services.close()


def user_name() -> str:
    """Who is at the keyboard, also behind sudo."""
    return os.environ.get("SUDO_USER") or getpass.getuser()


def principal() -> Principal:
    """Whoever may run this has the files, the engine and the databases already: an admin."""
    return operator(user_name())
