"""The schedule in force, read from its file."""

from __future__ import annotations

from orchestrator.config import Settings
from orchestrator.core.schedule import InvalidSchedule, Schedule, parse


def load(settings: Settings) -> Schedule:
    """Raises InvalidSchedule, which names the file and the key."""
    path = settings.file("schedule")
    try:
        content = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidSchedule(f"{path} cannot be read: {error.strerror}.") from error
    return parse(content, source=str(path))
