"""Reading every configuration file, to name a mistake before it matters."""

from __future__ import annotations

from orchestrator import config
from orchestrator.config import Settings
from orchestrator.core import schedule
from orchestrator.core.allowlist.load import load as load_allowlist
from orchestrator.core.masking import rules as masking
from orchestrator.core.promotion.rules import parse_rules


def check_files(settings: Settings) -> list[str]:
    """What was read, a line a file (the settings with their limits and networks have been). Raises InvalidInput."""
    said = [f"ok  {settings.directory / 'orchestrator.yaml'}"]
    said += [f"ok  {settings.file(name)}" for name in ("limits", "networks")]
    path = settings.file("allowlist")
    load_allowlist(path.read_text(encoding="utf-8"), source=str(path))
    said.append(f"ok  {path}")
    path = settings.file("masking")
    masking.parse(config.read_yaml(path))
    said.append(f"ok  {path}")
    path = settings.file("promotion")
    parse_rules(config.read_yaml(path))
    said.append(f"ok  {path}")
    path = settings.file("schedule")
    schedule.parse(path.read_text(encoding="utf-8"), source=str(path))
    said.append(f"ok  {path}")
    return said
