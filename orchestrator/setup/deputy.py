"""For a user who may use the engine and is not root: the same program as root, in the control plane's own image.

Only root can mount a volume, give each tenant's files to a user of its own, and be refused by no supervisor for having
the caller's own uid. Whoever may use the engine can be root through it; so this gives nobody a right they had not.
Argument lists are made here and nothing else happens, but for `as_root`.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.config import PREFIX, Settings
from orchestrator.core.places import Places
from orchestrator.core.ports.volume import VolumeFailed
from orchestrator.setup.images import load_images
from orchestrator.setup.steps import SetupFailed

SENTENCE = (
    "You are not root: what needs root runs in containers made from the control plane's image, as membership of the"
    " docker group allows."
)
SERVICES = ("serve", "schedule")
SOCKET = Path("/var/run/docker.sock")
LABEL = "orchestrator.deputy"
TOOL_TIMEOUT_S = 180
# Parts of the image itself: a working directory in there must not cover them.
TAKEN = ("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "root", "run", "sbin", "sys", "usr")
# Not --privileged: where the host itself lacks a right, the engine refuses to give every one there is.
MOUNTING = (
    "--pid=host",
    "--cap-drop=ALL",
    *(f"--cap-add={right}" for right in ("SYS_ADMIN", "SYS_CHROOT", "SYS_PTRACE", "DAC_OVERRIDE")),
    *(f"--security-opt={option}" for option in ("seccomp=unconfined", "apparmor=unconfined", "label=disable")),
    "--device-cgroup-rule=b 7:* rmw",  # loop devices
    "--device-cgroup-rule=c 10:237 rmw",  # and what makes them
)
PROGRAMS = (Path("/opt/venv"), Path("/srv/orchestrator"), Path("/var/run"))


@dataclass(frozen=True)
class Deputy:
    """`files` are those the configuration names outside its own directory; `environment` is this process's."""

    image: str
    instance: str
    var: Path
    configs: Path
    cron: Path
    user: str
    here: Path
    socket: Path = SOCKET
    files: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def command(self, arguments: Sequence[str], *, is_terminal: bool) -> list[str]:
        """`docker run …` of one command of ours, in the working directory where it can be seen."""
        seen = [f"--volume={self.here}:{self.here}", f"--workdir={self.here}"] if visible(self.here) else []
        terminal = ["--tty"] if is_terminal else []
        return ["docker", "run", "--rm", "--interactive", *terminal, *self._common(), *seen, self.image, *arguments]

    def service(self, name: str) -> list[str]:
        """`docker run …` of `serve` or `schedule`, which stays."""
        kept = [
            "--detach",
            f"--name={self.service_name(name)}",
            "--restart=unless-stopped",
            "--log-driver=json-file",
            "--log-opt=max-size=10m",
            "--log-opt=max-file=3",
            "--label=orchestrator.kept-by=make up",
            f"--label=orchestrator.instance={self.instance}",
            f"--label=orchestrator.role={name}",
            "--label=orchestrator.tenant=",
            f"--label={LABEL}={self.digest()}",
        ]
        return ["docker", "run", *kept, *self._common(), self.image, name]

    def service_name(self, name: str) -> str:
        return f"{self.instance}-{name}"

    def digest(self) -> str:
        """Changes with whatever a service is started with, secrets in the environment included."""
        settings = sorted((name, value) for name, value in self.environment.items() if name.startswith(PREFIX))
        return hashlib.sha256(repr((self.image, self._common(), settings)).encode()).hexdigest()[:16]

    def _common(self) -> list[str]:
        mounts = [
            f"--volume={self.socket}:{SOCKET}",
            # At the same paths as on the host: the engine resolves mounts of tenants' containers there.
            f"--volume={self.var}:{self.var}",
            f"--volume={self.configs}:{self.configs}",
            *([f"--volume={self.cron}:{self.cron}"] if self.configs not in (self.cron, *self.cron.parents) else []),
            *(f"--volume={file}:{file}:ro" for file in self.files),
        ]
        ours = {
            "ORCHESTRATOR_CONFIGS": str(self.configs),
            "ORCHESTRATOR_VAR": str(self.var),
            "LOGNAME": self.user,  # the audit trail names the person
        }
        # By name alone: a value may be a secret, and arguments are for everybody to see.
        passed = sorted(name for name in self.environment if name.startswith(PREFIX) and name not in ours)
        return [
            "--pull=never",  # set-up makes or brings the image; a registry that hangs holds up no command
            "--network=host",
            "--pid=host",
            "--cap-add=LINUX_IMMUTABLE",
            "--security-opt=no-new-privileges",
            "--env=MALLOC_ARENA_MAX=2",
            *(f"--env={name}={value}" for name, value in ours.items()),
            *(f"--env={name}" for name in passed),
            *mounts,
        ]


def visible(directory: Path) -> bool:
    """Whether a working directory of the host can be shown at its own path without covering the program itself."""
    parts = directory.parts
    if len(parts) < 2 or parts[1] in TAKEN:
        return False
    return not any(directory == one or directory in one.parents or one in directory.parents for one in PROGRAMS)


def files_named(settings: Settings) -> tuple[Path, ...]:
    """Every file outside `configs` that the configuration names and a process in a container must read."""
    production, branch = settings.production, settings.branch
    named = [
        settings.control.dsn_file,
        production.mirror.password_file,
        production.mirror.dump,
        production.primary.password_file,
        settings.oidc.client_secret_file,
        branch.publish_credential_file,
        branch.merge_credential_file,
    ]
    paths = [one for one in named if one is not None]
    if branch.remote.startswith("/"):
        paths.append(Path(branch.remote))
    own = (settings.directory, settings.places.var)
    found = {path for path in paths if path.is_absolute() and path.exists()}
    return tuple(sorted(path for path in found if not any(one in path.parents for one in own)))


def of(settings: Settings, *, user: str) -> Deputy:
    """The deputy of an installation that is set up. Raises SetupFailed before that."""
    return Deputy(
        image=image(settings.places),
        instance=settings.instance,
        var=settings.places.var,
        configs=settings.directory,
        cron=settings.file("schedule").parent,
        user=user,
        here=Path.cwd(),
        socket=engine_socket(os.environ),
        files=files_named(settings),
        environment=dict(os.environ),
    )


def image(places: Places) -> str:
    """The control plane's image. Raises SetupFailed where set-up has not made it."""
    found = load_images(places).control
    if not found:
        raise SetupFailed(
            "The control plane's own image was not made here yet.",
            effect="Without it only root can run this installation.",
            next_step="Run `make setup` as the user who is to run it.",
        )
    return found


def engine_socket(environment: Mapping[str, str]) -> Path:
    """Where the engine listens on this host. Raises SetupFailed when it is another host's."""
    address = environment.get("DOCKER_HOST", "")
    if address and not address.startswith("unix://"):
        raise SetupFailed(
            f"DOCKER_HOST names an engine that is reached by {address.split(':')[0]}, which may be another machine's.",
            effect="Tenants' files must lie where the engine runs; nothing was started.",
            next_step="Unset DOCKER_HOST, or name a socket: unix:///var/run/docker.sock.",
        )
    return Path(address.removeprefix("unix://")) if address else SOCKET


def tool(made_from: str, var: Path, argv: Sequence[str]) -> list[str]:
    """`docker run …` of one program as root: it sees `var` alone."""
    return _tool(made_from, ["--cap-add=LINUX_IMMUTABLE", f"--volume={var}:{var}"], argv)


def host_tool(made_from: str, argv: Sequence[str]) -> list[str]:
    """`docker run …` of one program of the host, among the host's own mounts."""
    return _tool(made_from, MOUNTING, ["python", "-m", "orchestrator.setup.outside", *argv])


def _tool(made_from: str, options: Sequence[str], argv: Sequence[str]) -> list[str]:
    start = ["docker", "run", "--rm", "--pull=never", "--network=none", *options, f"--entrypoint={argv[0]}"]
    return [*start, made_from, *argv[1:]]


def as_root(places: Places) -> Callable[[Sequence[str]], None]:
    """Runs mkfs, mount, umount and the like in a container. Raises SetupFailed before the images are made."""
    made_from = image(places)

    def run(argv: Sequence[str]) -> None:
        is_mount = argv[0] in ("mount", "umount")
        wrapped = host_tool(made_from, argv) if is_mount else tool(made_from, places.var, argv)
        try:
            done = subprocess.run(wrapped, check=False, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S)
        except FileNotFoundError as failure:
            raise VolumeFailed(
                "The program docker is not installed.", next_step="As root: apt-get install docker.io"
            ) from failure
        except subprocess.TimeoutExpired as failure:
            raise VolumeFailed(f"{argv[0]} took longer than {TOOL_TIMEOUT_S} s.") from failure
        if done.returncode != 0:
            raise VolumeFailed(f"{argv[0]} failed: {done.stderr.strip()[-500:]}")

    return run
