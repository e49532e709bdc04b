"""The images every container of an installation is made from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ImageSet:
    """Names with tags. In options an empty name means: build it here."""

    sandbox: str = ""
    postgres: str = ""
    pool: str = ""
    proxy: str = ""
    egress: str = ""
    control: str = ""  # the control plane itself, where it runs in containers; empty where it does not
