"""Publishing: an unchanged workspace, a thousand changed files, a night's round of a whole fleet; beside plain git.

Brings up an installation of its own, with the demo. PUBLISH_TIMES (15), PUBLISH_FILES (1000) and PUBLISH_FLEET (50)
set the size. The alternative is `git add`, `git commit` and `git push` on the host, in a clone of the same repository:
no container, no checks, no scan, no records.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from benchmarks.numbers import emit, say
from orchestrator.core.actors import system
from orchestrator.core.publishes import Publish, PublishState
from orchestrator.core.tenants import Tenant
from orchestrator.flows.launch import LaunchRequest
from orchestrator.wiring.drivers import company_repository
from tests.support.installation import Running, running

TIMES = int(os.environ.get("PUBLISH_TIMES", "15"))
FILES = int(os.environ.get("PUBLISH_FILES", "1000"))
FLEET = int(os.environ.get("PUBLISH_FLEET", "50"))
ROUNDS = 5
EDITED = 10  # files each tenant of the fleet has changed by the night
LINES = 60
LAUNCHED_AT_ONCE = 2
ACTOR = system("benchmark")


def main() -> None:
    with running() as installation, _plain(installation) as plain:
        tenant = _launch(installation, "bench")
        _publish(installation, tenant)
        _unchanged(installation, tenant, plain)
        _changed(installation, tenant, plain)
        _fleet(installation, plain)


class Plain:
    """Somebody's clone and a remote of its own, on the same disk, with git as it comes."""

    def __init__(self, origin: Path, directory: Path) -> None:
        self.remote, self.tree = directory / "remote.git", directory / "tree"
        _git(directory, "clone", "--quiet", "--bare", str(origin), str(self.remote))
        _git(directory, "clone", "--quiet", str(self.remote), str(self.tree))

    def publish(self) -> float:
        began = time.perf_counter()
        _git(self.tree, "add", "--all")
        if subprocess.run(["git", "diff", "--cached", "--quiet"], cwd=self.tree, check=False).returncode:
            _git(self.tree, "commit", "--quiet", "--message", "Nightly")
        _git(self.tree, "push", "--quiet", "origin", "HEAD:refs/heads/nightly")
        return time.perf_counter() - began


@contextmanager
def _plain(installation: Running) -> Iterator[Plain]:
    directory = installation.settings.places.disk / "plain"
    directory.mkdir()
    try:
        yield Plain(company_repository(installation.settings.places), directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _git(directory: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=Bench", "-c", "user.email=bench@example.test", "-c", "safe.directory=*"]
    subprocess.run(["git", *identity, *arguments], cwd=directory, check=True, capture_output=True)


def _launch(installation: Running, name: str) -> Tenant:
    request = LaunchRequest(name, snapshot_profile=installation.settings.tenants.snapshot_profile)
    return installation.services.launch.run(request, actor=ACTOR)


def _publish(installation: Running, tenant: Tenant) -> tuple[Publish, float]:
    began = time.perf_counter()
    done = installation.services.publish.run(tenant, actor=ACTOR, reason="benchmark")
    return done, time.perf_counter() - began


def _expect(done: Publish, *states: PublishState) -> None:
    if done.state not in states:
        raise SystemExit(f"the publish is {done.state}: {done.error}")


def _unchanged(installation: Running, tenant: Tenant, plain: Plain) -> None:
    """Side by side, so that both meet the same machine."""
    plain.publish()
    ours, theirs = [], []
    for _ in range(TIMES):
        done, spent = _publish(installation, tenant)
        _expect(done, PublishState.UNCHANGED)
        ours.append(spent)
        theirs.append(plain.publish())
    emit("publish_unchanged_s", ours, "s", baseline=statistics.median(theirs))


def _changed(installation: Running, tenant: Tenant, plain: Plain) -> None:
    """Every file of a directory another one, in every round."""
    tree = installation.settings.places.workspace(tenant.id)
    ours, theirs = [], []
    for number in range(ROUNDS):
        _write(tree, FILES, f"round {number}", uid=tenant.uid)
        _write(plain.tree, FILES, f"round {number}")
        done, spent = _publish(installation, tenant)
        _expect(done, PublishState.PUBLISHED)
        if done.files_count != FILES:
            raise SystemExit(f"{done.files_count} files were published, not {FILES}")
        ours.append(spent)
        theirs.append(plain.publish())
        say(f"  {FILES} files: {spent:.2f} s, plain git {theirs[-1]:.2f} s")
    emit(f"publish_{FILES}_s", ours, "s", baseline=statistics.median(theirs))


def _write(tree: Path, count: int, word: str, *, uid: int | None = None) -> None:
    """Source code like anybody's: some kilobytes a file, no two alike."""
    directory = tree / "generated"
    directory.mkdir(exist_ok=True)
    for number in range(count):
        path = directory / f"page_{number}.py"
        lines = [f"VALUE_{line} = {number * LINES + line}  # {word}, line {line} of it\n" for line in range(LINES)]
        path.write_text("".join(lines))
        if uid is not None:
            os.chown(path, uid, uid)
    if uid is not None:
        os.chown(directory, uid, uid)


def _fleet(installation: Running, plain: Plain) -> None:
    say(f"launching {FLEET} tenants")
    with ThreadPoolExecutor(LAUNCHED_AT_ONCE) as pool:
        fleet = list(pool.map(lambda number: _launch(installation, f"fleet-{number}"), range(FLEET)))
    for tenant in fleet:
        _write(installation.settings.places.workspace(tenant.id), EDITED, tenant.name, uid=tenant.uid)
    say("the night's round")
    began = time.perf_counter()
    results = installation.services.publish.run_all(fleet, actor=ACTOR, reason="benchmark")
    spent = time.perf_counter() - began
    published = [one for one in results.values() if isinstance(one, Publish) and one.state is PublishState.PUBLISHED]
    for name, one in results.items():
        if one not in published:
            say(f"  {name}: {one}")
    theirs = 0.0
    for number in range(FLEET):
        _write(plain.tree, EDITED, f"tenant {number}")
        theirs += plain.publish()
    began = time.perf_counter()
    installation.services.publish.run_all(fleet, actor=ACTOR, reason="benchmark")
    again = time.perf_counter() - began
    more = {"published": len(published), "per_tenant_s": round(spent / FLEET, 4), "unchanged_s": round(again, 4)}
    emit(f"fleet_publish_{FLEET}_s", [spent], "s", baseline=theirs, **more)


if __name__ == "__main__":
    main()
