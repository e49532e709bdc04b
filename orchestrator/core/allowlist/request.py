"""What is asked for: an argv array and where to run it. A string is refused, whatever is in it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from orchestrator.core.allowlist.errors import InvalidArgv, InvalidRequest
from orchestrator.core.allowlist.texts import ARGUMENTS_MAX, ARGV_BYTES_MAX, problem_in, shown

ENVIRONMENT_MAX = 32


def check_argv(argv: object) -> tuple[str, ...]:
    """The argv as a tuple of texts. Raises InvalidArgv with a hint, for a string above all."""
    if isinstance(argv, str | bytes):
        raise InvalidArgv(
            "The command is one string, not an argv array.",
            effect="Nothing was run: no shell is ever started, so nothing splits or expands a string.",
            next_step='Send each argument by itself: ["ls", "-l", "reports"].',
        )
    if not isinstance(argv, list | tuple) or not all(isinstance(argument, str) for argument in argv):
        raise InvalidArgv("The command is not an array of texts.", next_step='Send ["ls", "-l", "reports"].')
    return tuple(argv)


def argv_problem(argv: tuple[str, ...]) -> str | None:
    """Why no rule could ever match this argv, None when one could."""
    if not argv or not argv[0]:
        return "There is no program."
    if len(argv) > ARGUMENTS_MAX:
        return f"There are {len(argv)} arguments, the limit is {ARGUMENTS_MAX}."
    total = 0
    for number, argument in enumerate(argv):
        problem = problem_in(argument)
        if problem is not None:
            return f"Argument {number} ({shown(argument[:40])}) {problem}."
        total += len(argument)
    return None if total <= ARGV_BYTES_MAX else f"The arguments have more than {ARGV_BYTES_MAX} bytes."


class CommandRequest(BaseModel):
    """One request to run a command. Nothing else can be asked for: not the executable, not argv[0], not a user."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    argv: Annotated[tuple[str, ...], BeforeValidator(check_argv)]
    cwd: str = Field(default="/workspace", max_length=4_096)
    environment: dict[str, str] = Field(default_factory=dict, max_length=ENVIRONMENT_MAX)
    stdin: str = Field(default="", max_length=8_388_608)
    timeout_s: float | None = Field(default=None, gt=0, le=3_600)
    place: Literal["sandbox", "disposable"] = "sandbox"
    network: str = Field(default="none", max_length=40, pattern=r"^[a-z][a-z0-9-]*$")
    approval: str | None = Field(default=None, max_length=40)

    @classmethod
    def asked(cls, **given: object) -> CommandRequest:
        """As somebody typed it. Raises InvalidArgv or InvalidRequest, which names what is out of its bounds."""
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            problems = [f"{item['loc'][0]}: {item['msg']}" for item in error.errors(include_url=False)]
            raise InvalidRequest(f"{'; '.join(problems[:10])}.", effect="Nothing was run.") from error
