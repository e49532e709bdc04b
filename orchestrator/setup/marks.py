"""Which installations of this machine use an image: a name more for each, in the engine, where the images are.

Images are shared: two installations with the same sources have the same image. What one of them deletes must not be
missing in the other, and the engine is the only place both know.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from orchestrator.drivers.docker.images import DockerImages
from orchestrator.setup.options import SetupOptions
from orchestrator.setup.recipes import NOUNS, PREFIX
from orchestrator.setup.steps import CheckResult, Progress

MARK = "orchestrator-for-"
MADE_HERE = tuple(f"{PREFIX}{noun}" for noun in ("control", *reversed(NOUNS), "base", "root"))


def repository(options: SetupOptions) -> str:
    """The name all marks of this installation share."""
    where = hashlib.sha256(str(options.places.var).encode()).hexdigest()[:8]
    return f"{MARK}{options.instance}-{where}"


class MarkStep:
    """The engine knows that this installation uses its images; `wanted` are the images by what they are for."""

    name = "images kept"

    def __init__(self, options: SetupOptions, images: DockerImages, wanted: Mapping[str, str]) -> None:
        self._images = images
        self._repository = repository(options)
        self._wanted = {noun: image for noun, image in wanted.items() if image.startswith(PREFIX)}

    def check(self) -> CheckResult:
        missing = [noun for noun, image in self._wanted.items() if self._mark(noun) not in self._images.tags(image)]
        if missing:
            return CheckResult(self.name, False, "the engine does not know yet what is used here", "Run make setup.")
        return CheckResult(self.name, True)

    def do(self, _: Progress) -> None:
        for noun, image in self._wanted.items():
            self._images.tag(image, self._mark(noun))

    def _mark(self, noun: str) -> str:
        return f"{self._repository}:{noun}"


def forget(options: SetupOptions, images: DockerImages) -> None:
    """This installation uses no image any more. Raises EngineFailed."""
    for name in images.named(repository(options)):
        images.remove(name)


def delete_unused(images: DockerImages, repositories: Sequence[str] = MADE_HERE) -> list[str]:
    """Delete the images made by set-up that no installation uses; returns their names. Raises EngineFailed."""
    deleted = []
    for made in repositories:
        for name in images.named(made):
            if not any(tag.startswith(MARK) for tag in images.tags(name)):
                images.remove(name)
                deleted += [] if images.exists(name) else [name]  # one that a container uses stays
    return deleted
