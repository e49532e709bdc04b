"""The allowlist file's shape. Every key is known, every default is the closed one, an unknown key is an error."""

from __future__ import annotations

import re
import shlex
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from orchestrator.core.allowlist.values import Value


class Decision(StrEnum):
    ALLOW = "allow"
    APPROVAL = "approval"
    DENY = "deny"


STRICTNESS = {Decision.ALLOW: 0, Decision.APPROVAL: 1, Decision.DENY: 2}
SAFE_PATH = re.compile(r"/(?:[A-Za-z0-9_+.,@-]+/)*[A-Za-z0-9_+.,@-]+")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")
VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,79}")
SCOPE = re.compile(r"all|(?:profile|tenant):[a-z][a-z0-9-]{0,39}")
# What is no program in the sandbox: a statement on the tenant's database, and the workspace's files over the API.
Builtin = Literal["query", "files"]


def _absolute(path: str) -> str:
    if not SAFE_PATH.fullmatch(path) or ".." in path.split("/"):
        raise ValueError(f"{path!r} is not a plain absolute path")
    return path


def _name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is not a name: lower-case letters, digits, dots and hyphens, starting with a letter"
        )
    return name


def _variable(name: str) -> str:
    if not VARIABLE.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of an environment variable")
    return name


def _scope(scope: str) -> str:
    if not SCOPE.fullmatch(scope):
        raise ValueError(f"{scope!r} is no scope; allowed are all, profile:NAME and tenant:NAME")
    return scope


def _argv(value: object) -> object:
    """Examples may be written as one line; it is split like a shell would split words, nothing is expanded."""
    return shlex.split(value) if isinstance(value, str) else value


AbsolutePath = Annotated[str, AfterValidator(_absolute)]
Name = Annotated[str, AfterValidator(_name)]
Variable = Annotated[str, AfterValidator(_variable)]
Example = Annotated[tuple[str, ...], BeforeValidator(_argv)]
Reason = Annotated[str, Field(min_length=3, max_length=500)]
Text = Annotated[str, Field(max_length=1_000)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RootModel(_Model):
    """A directory, by its path inside the sandbox, that `path` values are confined to."""

    path: AbsolutePath
    access: Literal["ro", "rw"] = "ro"


class ProgramModel(_Model):
    """A program and what the gate and the kernel give it."""

    path: AbsolutePath | None = None
    builtin: Builtin | None = None
    environment: dict[Variable, Text] = Field(default_factory=dict)
    reads: tuple[AbsolutePath, ...] = ()
    writes: tuple[AbsolutePath, ...] = ()
    starts: tuple[AbsolutePath, ...] = ()

    @model_validator(mode="after")
    def _one_of(self) -> ProgramModel:
        if (self.path is None) == (self.builtin is None):
            raise ValueError("give either path or builtin")
        return self


class FlagModel(_Model):
    """One flag with a value. `forms` says how the value may be written: `-n 5`, `--lines=5`, `-n5`."""

    value: Value
    forms: tuple[Literal["split", "equals", "joined"], ...] = ("split",)
    required: bool = False
    max: int = Field(default=1, ge=1, le=64)


def _flag(value: object) -> object:
    """`-n: int` is short for `-n: {value: int}`."""
    if isinstance(value, str) or (isinstance(value, dict) and "type" in value):
        return {"value": value}
    return value


class PositionalModel(_Model):
    name: Name
    value: Value
    min: int = Field(default=1, ge=0, le=256)
    max: int = Field(default=1, ge=1, le=256)

    @model_validator(mode="after")
    def _ordered(self) -> PositionalModel:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is greater than max {self.max}")
        return self


class RuleModel(_Model):
    """Which argv arrays of one program are meant, and what is decided on them.

    `switches` are flags that stand alone, `flags` have a value; `clusters` lets switches be joined (`-la`).
    `insert` tokens are put behind the subcommand when the command is run. `dashes` says what `--` does: `end` (of the
    flags), `split` (positionals of `after_dashes` follow) or `refused`. `number` allows `-5`. `free` takes any
    arguments at all. `networks` names the network profiles a command may ask for, `places` where it may run.
    """

    id: Name
    program: str
    subcommand: tuple[str, ...] = ()
    insert: tuple[str, ...] = ()
    switches: tuple[str, ...] = ()
    flags: dict[str, Annotated[FlagModel, BeforeValidator(_flag)]] = Field(default_factory=dict)
    clusters: bool = False
    number: Value | None = None
    positionals: tuple[PositionalModel, ...] = ()
    after_dashes: tuple[PositionalModel, ...] = ()
    dashes: Literal["end", "split", "refused"] = "end"
    free: bool = False
    stdin: bool = False
    networks: tuple[Name, ...] = ("none",)
    places: tuple[Literal["sandbox", "disposable"], ...] = ("sandbox", "disposable")
    environment: dict[Variable, Value] = Field(default_factory=dict)
    decision: Decision
    reason: Reason
    scope: Annotated[str, AfterValidator(_scope)] = "all"
    accepts: dict[Name, Reason] = Field(default_factory=dict)
    match: tuple[Example, ...] = Field(min_length=1)
    not_match: tuple[Example, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> RuleModel:
        if self.after_dashes and self.dashes != "split":
            raise ValueError("after_dashes needs dashes: split")
        if self.free and (self.switches or self.flags or self.positionals or self.after_dashes):
            raise ValueError("a rule with free: true lists neither switches, flags nor positionals")
        both = sorted(set(self.switches) & set(self.flags))
        if both:
            raise ValueError(f"{both[0]} is both a switch and a flag with a value")
        for token in self.subcommand:
            if not token or token.isspace():
                raise ValueError("a subcommand token is empty")
        for name in self.switches:
            _check_flag(name, ())
        for name, flag in self.flags.items():
            _check_flag(name, flag.forms)
        return self


def _check_flag(name: str, forms: tuple[str, ...]) -> None:
    if not name or name == "--" or any(letter.isspace() or letter == "=" for letter in name):
        raise ValueError(f"{name!r} cannot be a flag")
    if name == "-":
        raise ValueError("`-` is no flag; give the path value stdin: true")
    if "joined" in forms and (name.startswith("--") or len(name) != 2):
        raise ValueError(f"only a short flag such as -n may have a joined value, not {name}")
    if "equals" in forms and not name.startswith("--"):
        raise ValueError(f"only a long flag such as --count may have a value behind `=`, not {name}")


class CommandDefaults(_Model):
    """Caps for one command; a request may ask for less, never for more.

    How many run at once is the profile's to say (configs/limits.yaml); `at_once` here can only make it fewer.
    """

    timeout_s: float = Field(default=60.0, gt=0, le=3_600)
    timeout_max_s: float = Field(default=600.0, gt=0, le=3_600)
    output_bytes: int = Field(default=1_048_576, ge=1_024, le=67_108_864)
    write_bytes: int = Field(default=268_435_456, ge=0)
    stdin_bytes: int = Field(default=1_048_576, ge=0, le=8_388_608)
    at_once: int | None = Field(default=None, ge=1, le=200)

    def fewest(self, at_once: int) -> int:
        """The profile's number, or the allowlist's where that is smaller."""
        return at_once if self.at_once is None else min(self.at_once, at_once)


class AllowlistModel(_Model):
    """The whole file."""

    version: Literal[1]
    roots: dict[Name, RootModel]
    environment: dict[Variable, Text] = Field(default_factory=dict)
    limits: CommandDefaults = Field(default_factory=CommandDefaults)
    programs: dict[Name, ProgramModel]
    rules: tuple[RuleModel, ...]
