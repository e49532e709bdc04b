"""Who may push what to a repository of our own: two keys, and a hook of the repository that knows them apart.

For a company's remote the same is two deploy keys and a protected branch, which are the company's to set up. Ours is
held by git itself: `receive-pack` runs the hook for every push, whoever starts it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path

from orchestrator.core.ports.git import GitFailed
from orchestrator.drivers.git.process import Git

VARIABLE = "ORCHESTRATOR_PUSH_KEY_FILE"  # a path: the key itself is in no argument and no environment
CREDENTIALS = ("publish", "merge")
SETTINGS = {
    "receive.denyNonFastForwards": "true",
    "receive.denyDeletes": "true",
    "receive.fsckObjects": "true",
    # Said in the repository itself, so that no user's or system's setting leads its hook aside.
    "core.hooksPath": "hooks",
}
REFUSED = "this key may not move this branch"
HOOK = """#!/bin/sh
# Written by the orchestrator: which key may move which branch. Arguments: reference, old id, new id.
set -eu
keys="$(dirname "$0")/../push-keys"
case "$1" in
  refs/heads/tenant/*) wanted=publish ;;
  "refs/heads/$(cat "$keys/production")") wanted=merge ;;
  *) echo "only tenants' branches and production's are kept here" >&2; exit 1 ;;
esac
shown=none
if [ -n "${ORCHESTRATOR_PUSH_KEY_FILE:-}" ] && [ -r "$ORCHESTRATOR_PUSH_KEY_FILE" ]; then
  shown=$(sha256sum < "$ORCHESTRATOR_PUSH_KEY_FILE" | cut -d ' ' -f 1)
fi
if [ "$shown" != "$(cat "$keys/$wanted")" ]; then
  echo "this key may not move this branch; set ORCHESTRATOR_PUSH_KEY_FILE to the $wanted key's file" >&2
  exit 1
fi
"""


@dataclass(frozen=True)
class PushKeys:
    """The keys' files, in a directory only the orchestrator reads, and the repository they are for."""

    repository: Path
    directory: Path
    production: str

    def files(self) -> dict[str, Path]:
        """By credential."""
        return {name: self.directory / f"git-{name}.key" for name in CREDENTIALS}

    def ensure(self) -> None:
        """Make keys and hook, and have the repository refuse every push that rewrites or deletes. Repeatable."""
        known = self.repository / "push-keys"
        known.mkdir(mode=0o700, exist_ok=True)
        for name, path in self.files().items():
            if not path.exists():
                _write(path, secrets.token_urlsafe(32) + "\n", 0o600)
            _write(known / name, hashlib.sha256(path.read_bytes()).hexdigest() + "\n", 0o600)
        _write(known / "production", self.production + "\n", 0o600)
        _write(self._hook, HOOK, 0o700)
        settings = "".join(f"{name} = {value}\n" for name, value in SETTINGS.items())
        if (known / "settings").exists() and (known / "settings").read_text() == settings:
            return
        for name, value in SETTINGS.items():
            Git(self.repository).run("config", name, value)
        _write(known / "settings", settings, 0o600)

    def probe(self) -> tuple[bool, str]:
        """Have the hook judge both keys on both kinds of branch, without moving any; whether all is as it must be."""
        files = self.files()
        tries = [(key, branch) for key in (*CREDENTIALS, "none") for branch in (self.production, "tenant/probe")]
        wrong = []
        for key, branch in tries:
            is_right = (key, branch) in (("merge", self.production), ("publish", "tenant/probe"))
            if self._may(files.get(key), branch) is not is_right:
                wrong.append(f"the {key} key {'cannot' if is_right else 'can'} move {branch}")
        return not wrong, "; ".join(wrong) or f"{len(tries)} pushes judged by the repository's own hook"

    @property
    def _hook(self) -> Path:
        return self.repository / "hooks" / "update"

    def _may(self, key: Path | None, branch: str) -> bool:
        environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), **({VARIABLE: str(key)} if key else {})}
        try:
            done = subprocess.run(
                [str(self._hook), f"refs/heads/{branch}", "0" * 40, "1" * 40],
                env=environment,
                cwd="/",
                capture_output=True,
                timeout=30,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise GitFailed(f"The hook of {self.repository} could not be asked: {error}.") from error
        return done.returncode == 0


def _write(path: Path, text: str, mode: int) -> None:
    """Replace in one step, and only what is another one."""
    if path.exists() and path.read_text() == text and path.stat().st_mode & 0o777 == mode:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.chmod(mode)
    new.rename(path)
