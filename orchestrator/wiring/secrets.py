"""Secrets of the installation itself: made once, readable to us alone, never handed to a container."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

KEY_BYTES = 32


def key(directory: Path, name: str) -> bytes:
    """The key `name`, made when it is first asked for; two processes asking at once get the same one."""
    return bytes.fromhex(text(directory, name))


def text(directory: Path, name: str) -> str:
    """The secret `name` as text (64 hexadecimal digits when it was made here)."""
    path = directory / name
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = directory / f".{name}.{secrets.token_hex(6)}"
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(fresh, path)  # fails when another process was first: its secret counts
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return path.read_text().strip()
