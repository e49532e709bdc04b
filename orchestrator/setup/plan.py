"""Which steps set-up takes, in which order."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.core.images import ImageSet
from orchestrator.drivers.docker.connection import Connection
from orchestrator.drivers.docker.engine import DockerEngine
from orchestrator.drivers.docker.images import DockerImages
from orchestrator.setup.engine import EngineStep
from orchestrator.setup.facts import DiskFact, HostFact, KernelFact
from orchestrator.setup.images import image_steps, load_images
from orchestrator.setup.options import SetupOptions
from orchestrator.setup.packages import PackagesStep
from orchestrator.setup.recipes import NOUNS, PREFIX
from orchestrator.setup.root_image import RootImageStep
from orchestrator.setup.steps import CheckResult, Progress, Step, check_all, run_all, to_stderr
from orchestrator.setup.volume import VolumeStep, remove_volume


def steps(options: SetupOptions) -> list[Step]:
    """Everything that must be true before the first tenant, in order."""
    images = DockerImages(Connection())
    return [
        PackagesStep(options),
        EngineStep(options),
        VolumeStep(options),
        RootImageStep(options, images),
        *image_steps(options, images),
    ]


def set_up(options: SetupOptions, progress: Progress = to_stderr) -> ImageSet:
    """Make this machine ready; again is quick and changes nothing. Raises SetupFailed with what to do."""
    options.places.var.mkdir(parents=True, exist_ok=True)
    with _alone(options):
        run_all(steps(options), progress)
    return load_images(options.places)


def facts(options: SetupOptions) -> list[CheckResult]:
    """Every check of set-up and every fact it cannot change; nothing is changed."""
    return check_all([HostFact(), KernelFact(), DiskFact(options), *steps(options)])


def remove(options: SetupOptions, progress: Progress = to_stderr, *, keep_images: bool = False) -> None:
    """Delete an installation: its containers and networks, its volume, its data, the images made here.

    Raises an OrchestratorError when something of it cannot be deleted; what is left can be tried again.
    """
    connection = Connection()
    engine = DockerEngine(options.instance, connection)
    for container in engine.containers():
        progress(f"removing {container.name}")
        engine.remove(container.name)
    for network in engine.networks():
        engine.remove_network(network)
    progress(f"deleting {options.places.var}")
    remove_volume(options.places.var)
    shutil.rmtree(options.places.var, ignore_errors=True)
    if keep_images:
        return
    images = DockerImages(connection)
    for noun in (*reversed(NOUNS), "base", "root"):
        for name in images.named(f"{PREFIX}{noun}"):
            images.remove(name)


@contextmanager
def _alone(options: SetupOptions) -> Iterator[None]:
    """One set-up of an installation at a time; a second one waits and then finds everything done."""
    descriptor = os.open(options.places.var / "setup.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
