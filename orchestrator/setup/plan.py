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
from orchestrator.setup import deputy, marks, processes
from orchestrator.setup.emptying import empty
from orchestrator.setup.engine import EngineStep
from orchestrator.setup.engine_kind import EngineKindStep
from orchestrator.setup.facts import DiskFact, HostFact, KernelFact
from orchestrator.setup.images import ReadyImagesFact, image_steps, load_images
from orchestrator.setup.options import SetupOptions, is_contained
from orchestrator.setup.packages import PackagesStep
from orchestrator.setup.steps import CheckResult, Progress, SetupFailed, Step, check_all, run_all, to_stderr
from orchestrator.setup.volume import VolumeStep, remove_volume


def steps(options: SetupOptions) -> list[Step]:
    """Everything that must be true before the first tenant, in order."""
    images = DockerImages(Connection())
    return [
        PackagesStep(options),
        EngineStep(options),
        EngineKindStep(),
        *image_steps(options, images),
        VolumeStep(options),  # last: a user who is not root has it mounted from a container
    ]


def set_up(options: SetupOptions, progress: Progress = to_stderr) -> ImageSet:
    """Make this machine ready; again is quick and changes nothing. Raises SetupFailed with what to do."""
    options.places.var.mkdir(parents=True, exist_ok=True)
    with _alone(options):
        run_all(steps(options), progress)
    return load_images(options.places)


def facts(options: SetupOptions) -> list[CheckResult]:
    """Every check of set-up and every fact it cannot change; nothing is changed.

    Inside a container the host's own checks cannot be repeated: what remains is what the installation lives on.
    """
    if is_contained():
        ready = ReadyImagesFact(options, DockerImages(Connection()))
        return check_all(
            [HostFact(), DiskFact(options), EngineStep(options), EngineKindStep(), ready, VolumeStep(options)]
        )
    return check_all([HostFact(), KernelFact(), DiskFact(options), *steps(options)])


def remove(options: SetupOptions, progress: Progress = to_stderr, *, keep_images: bool = False) -> None:
    """Delete an installation: its processes, containers and networks, its volume, its data, and images only it uses.

    Raises an OrchestratorError when something of it cannot be deleted; what is left can be tried again.
    """
    connection = Connection()
    engine, images = DockerEngine(options.instance, connection), DockerImages(connection)
    # The control plane goes first, as containers or as processes: it would make again what is removed.
    for container in engine.containers():
        if container.role in processes.NAMES:
            progress(f"removing {container.name}")
            engine.remove(container.name)
    processes.refuse_kept(options.places)
    for name in reversed(processes.NAMES):
        if processes.end(options.places, name):
            progress(f"ended {name}")
    for container in engine.containers():
        progress(f"removing {container.name}")
        engine.remove(container.name)
    for network in engine.networks():
        engine.remove_network(network)
    var = options.places.var
    progress(f"deleting {var}")
    run = None if options.is_root or not var.exists() else deputy.as_root(options.places)
    remove_volume(var, run=run)
    if run is not None:
        run(["python", "-m", "orchestrator.setup.emptying", str(var)])  # root's files, made by containers
    left = empty(var)
    if left:
        raise SetupFailed(
            f"{len(left)} files in {var} could not be deleted: {left[0]}",
            effect="The containers are gone; the images stay.",
            next_step="End what uses them, then try again.",
        )
    shutil.rmtree(var, ignore_errors=True)
    marks.forget(options, images)
    if not keep_images:
        for name in marks.delete_unused(images):
            progress(f"deleted the image {name}")


def engine_ready(options: SetupOptions) -> None:
    """Raises SetupFailed with cause and cure when this user cannot use the engine."""
    result = EngineStep(options).check()
    if not result.ok:
        raise SetupFailed(f"{result.name}: {result.cause}.", effect="Nothing was done.", next_step=result.cure)


@contextmanager
def _alone(options: SetupOptions) -> Iterator[None]:
    """One set-up of an installation at a time; a second one waits and then finds everything done."""
    descriptor = os.open(options.places.var / "setup.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
