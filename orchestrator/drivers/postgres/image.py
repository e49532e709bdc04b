"""What a PostgreSQL image offers: tried out in throw-away containers, not believed."""

from __future__ import annotations

import re

from orchestrator.core.ports.engine import ContainerLimits, Engine, EngineFailed, EngineUnreachable, ImageMissing
from orchestrator.drivers.postgres.tools import Binaries, ToolFailed, ToolRun, run_tool
from orchestrator.errors import InvalidInput

OLDEST, NEWEST = 14, 18
LIMITS = ContainerLimits(memory_bytes=128 << 20, cpus=1.0, pids=16)
NOBODY = 65534
# A data directory is held by this very form of flock, which other systems' flock does not know.
LOCKED = ("--nonblock", "--conflict-exit-code", "75", "--no-fork", "/etc/passwd", "postgres", "--version")
ALSO_NEEDED = ("initdb", "pg_dump", "pg_restore", "pg_controldata", "pg_checksums")


class UnfitImage(InvalidInput):
    """An image that cannot run tenants' databases."""

    code = "invalid.postgres_image"


def major_of(engine: Engine, image: str, *, name: str) -> int:
    """The major version of the server in `image`. Raises UnfitImage or EngineFailed; `name` is the container's."""
    said = _run(engine, image, name, "flock", LOCKED)
    found = re.search(r"\(PostgreSQL\) (\d+)", said)
    if found is None:
        raise _unfit(image, f"`postgres --version` says {said[:80]!a}")
    return int(found.group(1))


def try_image(engine: Engine, image: str, *, name: str) -> int:
    """The major version of `image`, when it can hold tenants' databases. Raises UnfitImage naming what it lacks."""
    major = major_of(engine, image, name=name)
    if not OLDEST <= major <= NEWEST:
        raise _unfit(image, f"it has PostgreSQL {major}; {OLDEST} to {NEWEST} are known here")
    for program in ALSO_NEEDED:
        _run(engine, image, name, program, ("--version",))
    return major


def _run(engine: Engine, image: str, name: str, program: str, arguments: tuple[str, ...]) -> str:
    run = ToolRun(name=name, program=program, arguments=arguments, uid=NOBODY, limits=LIMITS, timeout_s=60)
    try:
        return run_tool(engine, Binaries(image), run)
    except ToolFailed as error:
        raise _unfit(image, f"`{program}` does not run as needed: {error.effect[:200]}") from error
    except (EngineUnreachable, ImageMissing):
        raise
    except EngineFailed as error:
        if "executable file not found" in str(error):
            raise _unfit(image, f"it has no `{program}` in its PATH") from error
        raise


def _unfit(image: str, why: str) -> UnfitImage:
    return UnfitImage(
        f"The image {image} cannot run tenants' databases: {why}.",
        effect="Nothing was started with it; what runs goes on with the image it has.",
        next_step="Name one of PostgreSQL 14 to 18 built on Debian under images.postgres (postgres:17-trixie, not"
        " postgres:17-alpine), then make setup.",
        image=image,
    )
