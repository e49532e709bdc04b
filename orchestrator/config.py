"""The settings of an installation: configs/orchestrator.yaml, overridden by ORCHESTRATOR_* from the environment.

An unknown key is an error that names the file, the key and what is allowed there. Secrets never stand in the
file: they come from the environment or from files that the settings name.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails

from orchestrator.core.addresses import control_url, passwords_written, without_password
from orchestrator.core.images import ImageSet
from orchestrator.core.limits import Bytes, Limits, Seconds
from orchestrator.core.networks import NetworkSettings
from orchestrator.core.places import Places
from orchestrator.core.receivers import WebhookSection
from orchestrator.errors import InvalidInput

Model = TypeVar("Model", bound=BaseModel)
PREFIX = "ORCHESTRATOR_"
PROJECT = Path(__file__).resolve().parents[1]
# Read by other programs of the project under the same prefix; no settings.
CONTAINED = "ORCHESTRATOR_CONTAINED"  # set by the control plane's own image
FOREIGN = frozenset({"ORCHESTRATOR_CONFIGS", "ORCHESTRATOR_DEBIAN_MIRROR", CONTAINED})
NOTHING = "Nothing was started or changed."
CORRECT = "Correct the file; `orchestrator config check` reads it again."
WORKED_OUT = ("directory", "limits", "networks")  # fields of Settings that load() fills


class InvalidConfiguration(InvalidInput):
    code = "invalid.configuration"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _label(value: str) -> str:
    if not value or len(value) > 16 or not value.isascii() or not value.isalnum() or value != value.lower():
        raise ValueError("use at most 16 lower-case letters and digits")
    return value


Port = Annotated[int, Field(ge=1, le=65535)]
Instance = Annotated[str, AfterValidator(_label)]


class ImageSection(_Section):
    """Image names; an empty one is built by set-up from what this machine has."""

    sandbox: str = ""
    postgres: str = ""
    pool: str = ""
    proxy: str = ""
    egress: str = ""
    control: str = ""

    def image_set(self) -> ImageSet:
        return ImageSet(**self.model_dump())


class ControlSection(_Section):
    """The control database. An empty `dsn` starts a container of our own."""

    dsn: SecretStr = SecretStr("")
    dsn_file: Path | None = None
    memory: Bytes = Field(256 * 2**20, ge=96 * 2**20, le=2**40)
    connections: int = Field(30, ge=4, le=500)


class _Reached(_Section):
    """A database of the company's. `password` comes from the environment alone (…__PASSWORD), better from a file."""

    dsn: Annotated[str, AfterValidator(without_password)] = ""
    password: SecretStr = SecretStr("")
    password_file: Path | None = None

    def credential(self) -> str | None:
        """The password, read now; None where none is configured. Raises InvalidConfiguration. Never log it."""
        if self.password_file is not None:
            return secret(self.password_file)
        return self.password.get_secret_value() or None


class MirrorSection(_Reached):
    """Where snapshots are read from, with a read-only credential: a server, or a dump."""

    dump: Path | None = None


class PrimarySection(_Reached):
    """Where approved changes are written to. Only `change promote` and `change revert` use this credential."""


class ProductionSection(_Section):
    """The company's own database. With an empty mirror `orchestrator demo` brings one of its own."""

    mirror: MirrorSection = MirrorSection()
    primary: PrimarySection = PrimarySection()
    demo_memory: Bytes = Field(512 * 2**20, ge=128 * 2**20, le=2**36)

    @property
    def is_demo(self) -> bool:
        return not self.mirror.dsn and self.mirror.dump is None


class ProxySection(_Section):
    """The one door: where it listens, and under which names tenants and the console are reached."""

    listen: IPv4Address = IPv4Address("127.0.0.1")
    port: Port = 8080
    domain: str = Field("localhost", pattern=r"^(?:[a-z0-9-]{1,63}\.)*[a-z0-9-]{1,63}$")
    console: str = Field("console", pattern=r"^[a-z](?:[a-z0-9-]{0,38}[a-z0-9])?$")
    scheme: Literal["http", "https"] = "http"
    public_port: Port | None = None
    memory: Bytes = Field(128 * 2**20, ge=64 * 2**20, le=2**34)
    managed: bool = True

    @property
    def console_host(self) -> str:
        return f"{self.console}.{self.domain}"

    def address(self, hostname: str) -> str:
        """The address people type; the port is left out where it is the scheme's own."""
        port = self.public_port or self.port
        usual = {"http": 80, "https": 443}[self.scheme]
        return f"{self.scheme}://{hostname}" + ("" if port == usual else f":{port}")


class ApiSection(_Section):
    """The control plane's own server: on loopback for this host, and on the edge network for the proxy."""

    port: Port = 8600
    edge_port: Port = 8601
    body_bytes_max: Bytes = Field(2 * 2**20, ge=2**14, le=2**28)
    requests_at_once: int = Field(64, ge=4, le=1000)
    workers: int = Field(40, ge=4, le=200)


class SessionSection(_Section):
    """Sign-in: how long it lasts, and how often it may fail."""

    idle: Seconds = Field(8 * 3600.0, ge=60, le=30 * 86400)
    absolute: Seconds = Field(7 * 86400.0, ge=300, le=90 * 86400)
    code_lifetime: Seconds = Field(60.0, ge=5, le=600)
    token_lifetime_max: Seconds = Field(366 * 86400.0, ge=3600, le=3660 * 86400)
    failures_max: int = Field(8, ge=3, le=100)
    failure_window: Seconds = Field(900.0, ge=60, le=86400)


class OidcSection(_Section):
    """Sign-in through the company's own identity provider; off without an issuer.

    `role_groups` says which group gives which role: the most powerful counts, and without any nobody gets in.
    """

    issuer: str = Field("", pattern=r"^(?:|https://[!-~]+|http://(?:127\.0\.0\.1|localhost):[!-~]+)$")
    client_id: str = ""
    client_secret_file: Path | None = None
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    name_claim: str = "email"
    groups_claim: str = "groups"
    tenants_claim: str = ""
    role_groups: dict[str, Literal["admin", "reviewer", "manager"]] = {}

    @model_validator(mode="after")
    def _complete(self) -> OidcSection:
        if self.issuer and not (self.client_id and self.role_groups and "openid" in self.scopes):
            raise ValueError("with an issuer, give client_id, role_groups, and openid among the scopes")
        return self


class TenantSection(_Section):
    """Launching and keeping tenants."""

    launch_timeout: Seconds = Field(60.0, ge=5, le=3600)
    stop_timeout: Seconds = Field(10.0, ge=1, le=300)
    tenants_max: int = Field(150, ge=1, le=2000)
    require_kernel_gate: bool = True
    snapshot_profile: str = Field("full", min_length=1, max_length=60)
    refresh_policy: Literal["discard", "save", "carry"] = "save"
    pool_mode: Literal["transaction", "session"] = "transaction"


class ReconcileSection(_Section):
    """Setting right what should run and does not."""

    every: Seconds = Field(15.0, ge=1, le=3600)
    at_once: int = Field(4, ge=1, le=32)
    failed_after: int = Field(5, ge=1, le=100)
    base_idle: Seconds = Field(900.0, ge=10, le=86400)


class RefreshSection(_Section):
    """Rebuilding tenants' databases. When it happens is in cron/schedule.yaml."""

    at_once: int = Field(4, ge=1, le=32)
    patience: Seconds = Field(2.0, ge=0, le=600)
    grace: Seconds = Field(5.0, ge=0.5, le=600)
    previous_kept: int = Field(1, ge=0, le=10)


class SnapshotSection(_Section):
    """Taking snapshots."""

    kept: int = Field(6, ge=1, le=1000)
    memory: Bytes = Field(2**30, ge=256 * 2**20, le=2**40)
    parallel: int = Field(2, ge=1, le=64)


class ChangeSection(_Section):
    """Proposals, and how much one may hold."""

    rows_max: int = Field(100_000, ge=10, le=10_000_000)
    diff_timeout: Seconds = Field(300.0, ge=5, le=86400)
    lock_timeout: Seconds = Field(5.0, ge=0.1, le=600)
    statement_timeout: Seconds = Field(60.0, ge=1, le=86400)


class CommandSection(_Section):
    """The gate."""

    approval_lifetime: Seconds = Field(24 * 3600.0, ge=60, le=30 * 86400)
    output_kept: Bytes = Field(256 * 2**10, ge=1024, le=2**26)


class BranchSection(_Section):
    """The company's repository. An empty `remote` keeps a bare repository of our own."""

    remote: str = ""
    production: str = Field("main", min_length=1, max_length=100)
    publish_credential_file: Path | None = None
    merge_credential_file: Path | None = None
    file_bytes_max: Bytes = Field(20 * 2**20, ge=1024, le=2**32)


class SchedulerSection(_Section):
    """How many jobs run at once."""

    jobs_at_once: int = Field(4, ge=1, le=64)


class FileSection(_Section):
    """The other configuration files, relative to this one's directory."""

    limits: Path = Path("limits.yaml")
    allowlist: Path = Path("allowlist.yaml")
    masking: Path = Path("masking.yaml")
    promotion: Path = Path("promotion.yaml")
    networks: Path = Path("networks.yaml")
    schedule: Path = Path("../cron/schedule.yaml")


class Settings(_Section):
    """Everything configs/orchestrator.yaml may say, with the defaults in force where it is silent."""

    instance: Instance = "orc"
    var: Path = Path("var")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    disk: Bytes = Field(0, ge=0, le=2**46)
    files: FileSection = FileSection()
    images: ImageSection = ImageSection()
    control: ControlSection = ControlSection()
    production: ProductionSection = ProductionSection()
    proxy: ProxySection = ProxySection()
    api: ApiSection = ApiSection()
    sessions: SessionSection = SessionSection()
    oidc: OidcSection = OidcSection()
    tenants: TenantSection = TenantSection()
    reconcile: ReconcileSection = ReconcileSection()
    refresh: RefreshSection = RefreshSection()
    snapshots: SnapshotSection = SnapshotSection()
    changes: ChangeSection = ChangeSection()
    commands: CommandSection = CommandSection()
    branch: BranchSection = BranchSection()
    scheduler: SchedulerSection = SchedulerSection()
    webhooks: WebhookSection = WebhookSection()
    # Filled by load(), never read from the file.
    directory: Path = PROJECT / "configs"
    limits: Limits = Limits()
    networks: NetworkSettings = NetworkSettings()

    @property
    def places(self) -> Places:
        return Places(self.var)

    def file(self, name: str) -> Path:
        """The path of another configuration file: `settings.file("allowlist")`."""
        path: Path = getattr(self.files, name)
        return path if path.is_absolute() else (self.directory / path).resolve()

    def control_url(self) -> str:
        """The control database's SQLAlchemy URL when it is not ours to run; empty otherwise. Never log it."""
        named = self.control.dsn_file
        value = secret(named) if named is not None else self.control.dsn.get_secret_value()
        return control_url(value, str(named or "control.dsn"))


def secret(path: Path) -> str:
    """The content of a secret's file. Raises InvalidConfiguration without naming the content."""
    try:
        return path.read_text().strip()
    except OSError as error:
        raise InvalidConfiguration(
            f"The secret file {path} cannot be read: {error.strerror}.", next_step="Create it, readable to us alone."
        ) from error


def configuration_directory() -> Path:
    """$ORCHESTRATOR_CONFIGS, else ./configs where it has an orchestrator.yaml, else the one beside the package."""
    named = os.environ.get("ORCHESTRATOR_CONFIGS", "")
    if named:
        return Path(named).resolve()
    here = Path.cwd() / "configs"
    return here if (here / "orchestrator.yaml").is_file() else PROJECT / "configs"


def load(directory: Path | None = None, *, environment: Mapping[str, str] | None = None) -> Settings:
    """Read and check the configuration. Raises InvalidConfiguration naming file, key and what is allowed there."""
    directory = configuration_directory() if directory is None else directory.resolve()
    main = directory / "orchestrator.yaml"
    written = read_yaml(main)
    _refuse_passwords(written, main)
    values = _merged(written, _from_environment(os.environ if environment is None else environment))
    for name in WORKED_OUT:
        if name in values:
            raise InvalidConfiguration(f"{main}: {name} cannot be set here; it is worked out.", file=str(main))
    settings = _validated(Settings, values | {"directory": directory}, main)
    limits_file, networks_file = settings.file("limits"), settings.file("networks")
    var = settings.var if settings.var.is_absolute() else (directory.parent / settings.var)
    return settings.model_copy(
        update={
            "var": Path(os.path.normpath(var)),
            "limits": _validated(Limits, read_yaml(limits_file), limits_file),
            "networks": _validated(NetworkSettings, read_yaml(networks_file), networks_file),
        }
    )


def _refuse_passwords(written: Mapping[str, Any], main: Path) -> None:
    for name in passwords_written(written.get("production")):
        raise InvalidConfiguration(
            f"{main}: production.{name}.password must not stand in the file.",
            effect=NOTHING,
            next_step=f"Put it into a file readable to us alone and name that as production.{name}.password_file.",
        )


def read_yaml(path: Path) -> dict[str, Any]:
    """A mapping from a YAML file. Raises InvalidConfiguration."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        told = f"{path} cannot be read: {error.strerror}."
        raise InvalidConfiguration(told, effect=NOTHING, next_step="Put it there, or name another.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidConfiguration(f"{path} is not valid YAML: {error}", effect=NOTHING, next_step=CORRECT) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        told = f"{path} must hold a mapping of keys to values."
        raise InvalidConfiguration(told, effect=NOTHING, next_step=CORRECT)
    return content


def _validated(model: type[Model], values: dict[str, Any], source: Path) -> Model:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _explained(model, source, error.errors(include_url=False, include_input=False)) from None
    except TypeError as error:  # a key that is no string
        raise InvalidConfiguration(f"{source}: every key must be text ({error}).") from error


def _explained(model: type[BaseModel], source: Path, problems: list[ErrorDetails]) -> InvalidConfiguration:
    parts = []
    for problem in problems[:10]:
        where = tuple(problem["loc"])
        key = ".".join(map(str, where))
        if problem["type"] == "extra_forbidden":
            allowed = _allowed(model, where[:-1])
            close = difflib.get_close_matches(str(where[-1]), allowed, 1)
            hint = f" Did you mean {close[0]}?" if close else ""
            parts.append(f"{key} is not a known key; allowed here: {', '.join(allowed)}.{hint}")
        else:
            parts.append(f"{key}: {problem['msg'].removeprefix('Value error, ')}.")
    return InvalidConfiguration(
        f"{source}: " + " ".join(parts),
        effect=NOTHING,
        next_step=CORRECT,
        file=str(source),
        keys=[".".join(map(str, problem["loc"])) for problem in problems],
    )


def _allowed(model: type[BaseModel], where: tuple[int | str, ...]) -> list[str]:
    """The keys that may stand at `where`; values of a mapping are stepped into."""
    current: Any = model
    for part in where:
        fields = getattr(current, "model_fields", {})
        annotation = fields[part].annotation if part in fields else None
        candidates = [annotation, *get_args(annotation)]
        current = next((one for one in candidates if isinstance(one, type) and issubclass(one, BaseModel)), current)
    names = getattr(current, "model_fields", {})
    return [name for name in names if current is not Settings or name not in WORKED_OUT]


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """ORCHESTRATOR_PROXY__PORT=9000 as {"proxy": {"port": "9000"}}; one that names no setting is an error."""
    found: dict[str, Any] = {}
    for name, value in sorted(environment.items()):
        if not name.upper().startswith(PREFIX) or name.upper() in FOREIGN:
            continue
        parts = name[len(PREFIX) :].lower().split("__")
        if not _allowed_path(parts):
            raise InvalidConfiguration(
                f"The environment variable {name} names no setting.",
                next_step="Write sections and keys with two underscores between: ORCHESTRATOR_PROXY__PORT=9000.",
            )
        place = found
        for part in parts[:-1]:
            place = place.setdefault(part, {})
        place[parts[-1]] = value
    return found


def _allowed_path(parts: list[str]) -> bool:
    where: tuple[int | str, ...] = ()
    for part in parts:
        if part not in _allowed(Settings, where):
            return False
        where = (*where, part)
    return True


def _merged(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        known = result.get(key)
        result[key] = _merged(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
    return result
