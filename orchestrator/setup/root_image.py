"""The root file system every image is built on: pulled, or bootstrapped where no registry answers."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from orchestrator.drivers.docker.images import DockerImages
from orchestrator.setup.commands import install_packages, run
from orchestrator.setup.options import SetupOptions
from orchestrator.setup.steps import CheckResult, Progress, SetupFailed

ROOT = "orchestrator-root:trixie"
SUITE = "trixie"
BOOTSTRAP_TIMEOUT_S = 600
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class RootImageStep:
    """Debian trixie is there to build on. Asks no registry when the image exists."""

    name = "Debian root image"

    def __init__(self, options: SetupOptions, images: DockerImages, *, name: str = ROOT) -> None:
        self._options = options
        self._images = images
        self.image = name
        self._log = options.places.var / "setup.log"

    def check(self) -> CheckResult:
        if self._images.exists(self.image):
            return CheckResult(self.name, True, note=self.image)
        return CheckResult(self.name, False, f"the image {self.image} is not there", "Run make setup.")

    def do(self, progress: Progress) -> None:
        wanted = self._options.root_image
        if self._images.exists(wanted) or self._pulled(wanted, progress):
            self._images.tag(wanted, self.image)
        else:
            self._bootstrap(progress)

    def _pulled(self, wanted: str, progress: Progress) -> bool:
        progress(f"asking the registry for {wanted} (for at most {self._options.registry_patience_s} s)")
        if not self._images.registry_answers(wanted, timeout_s=self._options.registry_patience_s):
            progress("no registry answers: bootstrapping the same with mmdebstrap")
            return False
        progress(f"pulling {wanted}")
        self._images.pull(wanted, progress=lambda _: None)
        return True

    def _bootstrap(self, progress: Progress) -> None:
        needed = [] if shutil.which("mmdebstrap") else ["mmdebstrap"]
        if not KEYRING.exists():
            needed.append("debian-archive-keyring")
        try:
            if needed:
                install_packages(needed, log=self._log, progress=progress)
            self._bootstrapped(progress)
        except SetupFailed as failure:
            if self._options.is_root:
                raise
            raise SetupFailed(
                failure.message,
                effect=f"Without a registry only root can make the base image. {failure.effect}",
                next_step=f"Bring {self._options.root_image} here (docker load), or run `make setup` once as root.",
            ) from failure

    def _bootstrapped(self, progress: Progress) -> None:
        with tempfile.TemporaryDirectory(prefix="root-image-") as directory:
            archive = Path(directory, "root.tar")
            progress(f"bootstrapping {SUITE} from {self._options.debian_mirror}")
            self._mmdebstrap(archive, progress)
            self._images.import_root(archive, self.image)

    def _mmdebstrap(self, archive: Path, progress: Progress) -> None:
        mirror = self._options.debian_mirror
        argv = [
            "mmdebstrap",
            "--variant=minbase",
            "--include=ca-certificates",
            f"--keyring={KEYRING}",
            '--aptopt=Acquire::Retries "3"',
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-exclude=/usr/share/man/*",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
            SUITE,
            str(archive),
        ]
        lines = [f"deb {mirror} {SUITE} main", f"deb {mirror} {SUITE}-updates main"]
        security = f"deb {mirror}-security {SUITE}-security main"
        try:
            run([*argv, *lines, security], log=self._log, progress=progress, timeout_s=BOOTSTRAP_TIMEOUT_S)
        except SetupFailed:
            progress("that mirror has no updates beside it: taking the release alone")
            run([*argv, lines[0]], log=self._log, progress=progress, timeout_s=BOOTSTRAP_TIMEOUT_S)
