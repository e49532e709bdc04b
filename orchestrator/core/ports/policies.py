"""The allowlist's file on disk: the truth an admin may also edit by hand."""

from __future__ import annotations

from typing import Protocol

from orchestrator.errors import OutsideFailure


class PolicyFileFailed(OutsideFailure):
    """The allowlist's file cannot be read or written."""

    code = "outside_failure.allowlist_file"


class PolicyFile(Protocol):
    @property
    def name(self) -> str:
        """Its path, for people."""
        ...

    def stamp(self) -> object:
        """A value that changes whenever the file does, None when it is not there; costs one system call."""
        ...

    def read(self) -> str:
        """Raises PolicyFileFailed."""
        ...

    def write(self, text: str) -> None:
        """Replace the file atomically and durably. Raises PolicyFileFailed."""
        ...
