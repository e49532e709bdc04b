"""Every image is there: built when its inputs changed, never asked of a registry when it exists."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from orchestrator.core.images import ImageSet
from orchestrator.core.places import Places
from orchestrator.drivers.docker.engine import DockerEngine
from orchestrator.drivers.docker.images import DockerImages
from orchestrator.drivers.postgres.image import try_image
from orchestrator.setup.marks import MarkStep
from orchestrator.setup.options import SetupOptions
from orchestrator.setup.recipes import NOUNS, PREFIX, Recipe, base_recipe, recipe
from orchestrator.setup.root_image import ROOT, RootImageStep
from orchestrator.setup.steps import CheckResult, Progress, SetupFailed, Step

MADE_HERE_MAJOR = 18  # of the PostgreSQL that images/postgres is made from


class BuildStep:
    """One image, built from its recipe."""

    def __init__(self, made: Recipe, images: DockerImages) -> None:
        self.recipe = made
        self.image = made.image
        self.name = f"image for {made.noun}"
        self._images = images

    def check(self) -> CheckResult:
        if self._images.exists(self.image):
            return CheckResult(self.name, True, note=self.image)
        return CheckResult(self.name, False, f"{self.image} is not built yet", "Run make setup.")

    def do(self, progress: Progress) -> None:
        def show(line: str) -> None:
            if line.startswith("Step "):
                progress(line[:110])

        self._images.build(self.recipe.context, self.image, arguments=self.recipe.arguments, progress=show)


class NamedImageStep:
    """One image that the configuration names: pulled when it is not there."""

    def __init__(self, noun: str, image: str, images: DockerImages) -> None:
        self.image = image
        self.name = f"image for {noun}"
        self._images = images

    def check(self) -> CheckResult:
        if self._images.exists(self.image):
            return CheckResult(self.name, True, note=self.image)
        return CheckResult(
            self.name, False, f"{self.image} is not on this host", f"docker pull {self.image}, or correct its name."
        )

    def do(self, progress: Progress) -> None:
        progress(f"pulling {self.image}")
        self._images.pull(self.image, progress=lambda _: None)


class PostgresImageStep:
    """A PostgreSQL image that the configuration names can hold tenants' databases: tried once for each image."""

    name = "tenants' PostgreSQL"

    def __init__(self, options: SetupOptions, image: str, images: DockerImages) -> None:
        self._image = image
        self._images = images
        self._instance = options.instance
        self._file = _tried_file(options.places)

    def check(self) -> CheckResult:
        try:
            tried = json.loads(self._file.read_text())
        except (OSError, ValueError):
            tried = {}
        if tried.get("image") == self._image and tried.get("id") == self._images.id(self._image):
            return CheckResult(self.name, True, note=f"{tried.get('major')} from {self._image}")
        return CheckResult(self.name, False, f"{self._image} was not tried yet", "Run make setup.")

    def do(self, progress: Progress) -> None:
        progress(f"trying {self._image}")
        engine = DockerEngine(self._instance, self._images.connection)
        major = try_image(engine, self._image, name=f"{self._instance}-try-postgres")
        self._file.parent.mkdir(parents=True, exist_ok=True)
        tried = {"image": self._image, "id": self._images.id(self._image), "major": major}
        self._file.write_text(json.dumps(tried) + "\n")


class ComposeStep:
    """`docker compose` finds images, addresses and the data's place in the file .env beside docker-compose.yml.

    They are written from the configuration, so that the two cannot say different things; but the control database
    stays with the image that made its files, when the tenants' is another one.
    """

    name = "settings for docker compose"

    def __init__(self, options: SetupOptions, images: ImageSet) -> None:
        self._file = options.home / ".env"
        written = dict(line.split("=", 1) for line in self._present() if "=" in line).get("POSTGRES_IMAGE", "")
        made_here = f"{PREFIX}postgres:"  # of one version, whenever it was made
        is_kept = written and not (written.startswith(made_here) and images.postgres.startswith(made_here))
        ours = {
            "ORCHESTRATOR_IMAGE": images.control,
            "POSTGRES_IMAGE": written if is_kept else images.postgres,
            "PROXY_IMAGE": images.proxy,
            **options.compose,
        }
        self._lines = [f"{name}={value}" for name, value in ours.items()]
        self._names = tuple(f"{name}=" for name in ours)

    def check(self) -> CheckResult:
        if set(self._lines) <= set(self._present()):
            return CheckResult(self.name, True)
        return CheckResult(self.name, False, f"{self._file} is not up to date", "Run make setup COMPOSE=1.")

    def do(self, progress: Progress) -> None:
        kept = [line for line in self._present() if not line.startswith(self._names)]
        self._file.write_text("\n".join([*kept, *self._lines]) + "\n")
        progress(f"written to {self._file}")

    def _present(self) -> list[str]:
        return self._file.read_text().splitlines() if self._file.is_file() else []


class RememberImagesStep:
    """The names are written down where the running installation reads them."""

    name = "image names"

    def __init__(self, places: Places, wanted: ImageSet) -> None:
        self._file = _file(places)
        self._wanted = json.dumps(asdict(wanted), indent=2, sort_keys=True) + "\n"

    def check(self) -> CheckResult:
        if self._file.is_file() and self._file.read_text() == self._wanted:
            return CheckResult(self.name, True)
        return CheckResult(self.name, False, "the images changed since the last set-up", "Run make setup.")

    def do(self, progress: Progress) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        partial = self._file.with_name(self._file.name + ".partial")
        partial.write_text(self._wanted)
        partial.replace(self._file)
        progress(f"written to {self._file}")


class ReadyImagesFact:
    """Every image this installation was set up with is still there."""

    name = "images"

    def __init__(self, options: SetupOptions, images: DockerImages) -> None:
        self._places = options.places
        self._images = images

    def check(self) -> CheckResult:
        names = [name for name in asdict(load_images(self._places)).values() if name]
        missing = [name for name in names if not self._images.exists(name)]
        if missing:
            return CheckResult(self.name, False, f"not on this host: {', '.join(missing)}", "Run make setup.")
        return CheckResult(self.name, True, note=f"{len(names)} of {len(names)}")


def image_steps(options: SetupOptions, images: DockerImages) -> list[Step]:
    """One step for each part's image, then remembering their names and that they are used.

    What those are built on comes first, unless the configuration names every one of them.
    """
    nouns = (*NOUNS, *(("control",) if options.wants_control else ()))
    named = {noun: str(getattr(options.images, noun)) for noun in nouns}
    steps: list[Step] = []
    below: dict[str, str] = {}
    if not all(named.values()):
        base = BuildStep(base_recipe(options), images)
        steps += [RootImageStep(options, images), base]
        below = {"base": base.image, "root": ROOT}
    names: dict[str, str] = {}
    for noun, image in named.items():
        step = NamedImageStep(noun, image, images) if image else BuildStep(recipe(noun, options, below["base"]), images)
        names[noun] = step.image
        steps.append(step)
        if noun == "postgres" and image:
            steps.append(PostgresImageStep(options, image, images))
    wanted = ImageSet(**names)
    steps.append(RememberImagesStep(options.places, wanted))
    steps.append(MarkStep(options, images, {**names, **below}))
    if options.for_compose:
        steps.append(ComposeStep(options, wanted))
    return steps


def postgres_major(places: Places) -> int:
    """The major version of the tenants' PostgreSQL. Raises SetupFailed before the first set-up."""
    image = load_images(places).postgres
    try:
        tried = json.loads(_tried_file(places).read_text())
    except (OSError, ValueError):
        tried = {}
    return int(tried["major"]) if tried.get("image") == image else MADE_HERE_MAJOR


def load_images(places: Places) -> ImageSet:
    """The images of this installation, as the last set-up left them. Raises SetupFailed before the first."""
    try:
        return ImageSet(**json.loads(_file(places).read_text()))
    except (OSError, ValueError, TypeError) as failure:
        raise SetupFailed(
            "The images of this installation are not known.", next_step="Run `make setup` first."
        ) from failure


def _file(places: Places) -> Path:
    return places.software / "images.json"


def _tried_file(places: Places) -> Path:
    return places.software / "postgres.json"
