"""Running the host's own commands: logged, bounded, with a sign of life."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.setup.steps import Progress, SetupFailed

SIGN_OF_LIFE_S = 5.0
INSTALL_TIMEOUT_S = 900


def run(
    argv: Sequence[str],
    *,
    log: Path,
    progress: Progress,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run to the end with the output in `log`. Raises SetupFailed with the log's end."""
    log.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with log.open("ab") as output:
        output.write(f"\n$ {' '.join(argv)}\n".encode())
        output.flush()
        begin = output.tell()
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "LC_ALL": "C.UTF-8", **(environment or {})},
        )
        try:
            while True:
                try:
                    code = process.wait(SIGN_OF_LIFE_S)
                    break
                except subprocess.TimeoutExpired:
                    elapsed = time.monotonic() - started
                    progress(f"{Path(argv[0]).name} … {elapsed:.0f} s")
                    if elapsed > timeout_s:
                        raise SetupFailed(f"{argv[0]} took longer than {timeout_s:.0f} s; see {log}.") from None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if code != 0:
        with log.open("rb") as text:
            text.seek(max(begin, log.stat().st_size - 1500))
            tail = text.read().decode(errors="replace").strip()
        raise SetupFailed(f"{' '.join(argv[:3])} failed (exit status {code}).", effect=tail)


def can_install_packages() -> bool:
    """Whether we may install packages: root on a Debian or Ubuntu."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install_packages(names: Sequence[str], *, welcome: Sequence[str] = (), log: Path, progress: Progress) -> None:
    """apt-get install, lists refreshed first; of `welcome` what this release has.

    Raises SetupFailed; says what to type where we may not install.
    """
    wanted = " ".join(names)
    if not can_install_packages():
        raise SetupFailed(f"These packages are missing: {wanted}.", next_step=f"As root: apt-get install {wanted}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_MODE": "a"}
    patience = ["-o", "DPkg::Lock::Timeout=180", "-o", "Acquire::Retries=3"]
    progress("refreshing the package lists")
    try:
        run(["apt-get", *patience, "update"], log=log, progress=progress, timeout_s=180, environment=quiet)
    except SetupFailed as failure:
        # One broken source of many must not stop us: the installation says what is really missing.
        progress(f"the package lists could not all be refreshed: {failure.message}")
    chosen = [*names, *(name for name in welcome if _is_in_this_release(name))]
    progress(f"installing {' '.join(chosen)}")
    install = ["apt-get", *patience, "install", "-y", "--no-install-recommends", *chosen]
    run(install, log=log, progress=progress, timeout_s=INSTALL_TIMEOUT_S, environment=quiet)


def _is_in_this_release(package: str) -> bool:
    argv = ["apt-cache", "show", "--quiet=2", package]
    try:
        return subprocess.run(argv, check=False, capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
