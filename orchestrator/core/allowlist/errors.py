"""What can be wrong with a request or with an allowlist file."""

from __future__ import annotations

from orchestrator.errors import InvalidInput


class InvalidArgv(InvalidInput):
    """The request is not an argv array that could ever be decided on."""

    code = "invalid.argv"


class InvalidAllowlist(InvalidInput):
    """The file cannot become an allowlist. `fields["problems"]` lists every problem with its place."""

    code = "invalid.allowlist"

    def __init__(self, problems: list[str], *, source: str) -> None:
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        super().__init__(
            f"{source}: {shown}.",
            effect="The allowlist in force stays as it is.",
            next_step="Correct the file and check it with `orchestrator allowlist check FILE`.",
            problems=problems,
            source=source,
        )
        self.problems = problems


class InvalidRequest(InvalidInput):
    """A part of a request for a command is out of its bounds."""

    code = "invalid.command"
