"""A company's repository, a developer's clone and one tenant's workspace, with the real publish between them.

git runs on the host instead of in a container; the same flows run against real containers in tests/trips.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine

from orchestrator.core.actors import Actor, ActorKind
from orchestrator.core.audit import AuditEvent
from orchestrator.core.places import Places
from orchestrator.core.tenants import PoolMode, RefreshPolicy, Tenant, TenantState
from orchestrator.drivers.git.remote import Remote
from orchestrator.drivers.git.repository import BareRepository
from orchestrator.flows.publish import PublishFlow
from orchestrator.parts.workspace import WorkspacePart
from orchestrator.store.metadata import METADATA
from orchestrator.store.session import connect
from tests.support.cluster import Cluster
from tests.support.local_sandboxd import LocalSandboxd

ACTOR = Actor(ActorKind.PERSON, "u1", "Ada")


class Records(list[AuditEvent]):
    """Keeps what was recorded; the real log has tests of its own."""

    def append(self, event: AuditEvent, *, durable: bool = True) -> None:
        super().append(event)


def git(directory: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Dev", "-c", "user.email=dev@example.test", "-c", "safe.directory=*"]
    done = subprocess.run(["git", *identity, *arguments], cwd=directory, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@dataclass
class Site:
    flow: PublishFlow
    tenant: Tenant
    sandboxd: LocalSandboxd
    company: Path
    developer: Path
    store: Engine
    repository: BareRepository
    records: Records

    @property
    def tree(self) -> Path:
        return self.sandboxd.tree

    def company_head(self, branch: str) -> str:
        return git(self.company, "rev-parse", branch)

    def develop(self, path: str, text: str) -> str:
        """A person commits to production from their own clone."""
        (self.developer / path).write_text(text)
        git(self.developer, "add", "--all")
        git(self.developer, "commit", "--quiet", "--message", "By hand")
        git(self.developer, "push", "--quiet", "origin", "HEAD:main")
        return git(self.developer, "rev-parse", "HEAD")


@contextmanager
def publishing_site(tmp_path: Path, cluster: Cluster) -> Iterator[Site]:
    """The site below `tmp_path`, with a control database of its own; its tenant is made, nothing is published."""
    company, developer = tmp_path / "company.git", tmp_path / "developer"
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch=main", str(company))
    git(tmp_path, "clone", "--quiet", str(company), str(developer))
    (developer / "app.py").write_text("one\ntwo\nthree\n")
    git(developer, "add", "--all")
    git(developer, "commit", "--quiet", "--message", "First")
    git(developer, "push", "--quiet", "origin", "HEAD:main")
    places = Places(tmp_path / "var")
    repository = BareRepository(places.bare_repository(), Remote(str(company)))
    repository.ensure()
    repository.fetch(branch="main")
    tenant = Tenant(
        "t1", "harbour", 1, "small", "image", TenantState.RUNNING, None, "default", RefreshPolicy.SAVE,
        PoolMode.TRANSACTION, datetime.now(UTC),
    )  # fmt: skip
    workspace = WorkspacePart(places, repository, "main")
    workspace.ensure(tenant, "tenant/harbour")
    workspace.ensure(tenant, "tenant/harbour")
    sandboxd = LocalSandboxd(places.workspace("t1"), places.repository("t1"))

    @contextmanager
    def reach(_: Tenant) -> Iterator[LocalSandboxd]:
        yield sandboxd

    records = Records()
    with cluster.database() as name:
        store = connect(cluster.url(name))
        METADATA.create_all(store)
        flow = PublishFlow(store, records, repository, workspace, "main", reach, lambda _: ["c7"])  # type: ignore[arg-type]
        yield Site(flow, tenant, sandboxd, company, developer, store, repository, records)
        store.dispose()
