"""Where every file of an installation lies, below one `var/` directory. Pure: it names paths and makes none.

Two roots: `var` for small durable things, `disk` for the reflink volume (snapshots, generations, workspaces),
mounted at `var/disk`. Socket paths must stay under 108 bytes (sun_path), hence the short names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Places:
    var: Path

    @property
    def disk(self) -> Path:
        """The reflink volume, mounted nosuid,nodev,noexec."""
        return self.var / "disk"

    @property
    def secrets(self) -> Path:
        return self.var / "secrets"

    @property
    def audit(self) -> Path:
        return self.var / "audit"

    @property
    def proxy(self) -> Path:
        """Traefik's dynamic configuration directory."""
        return self.var / "proxy"

    @property
    def proxy_static(self) -> Path:
        """Traefik's static configuration directory."""
        return self.var / "proxy-static"

    @property
    def software(self) -> Path:
        """Binaries and image roots made by set-up."""
        return self.var / "software"

    def server_data(self, name: str) -> Path:
        """The data directory of a long-lived server: control, production, builder."""
        return self.var / "servers" / name

    def server_sockets(self, name: str) -> Path:
        return self.var / "run" / "s" / name

    def snapshot(self, snapshot_id: str) -> Path:
        """Holds `data` and `manifest.json`; immutable once it is there."""
        return self.disk / "snapshots" / snapshot_id

    def building(self, snapshot_id: str) -> Path:
        """A snapshot in the making, on the same file system; renamed to `snapshot` when it is good."""
        return self.disk / "building" / snapshot_id

    def base(self, snapshot_id: str) -> Path:
        """The data directory of a snapshot's read-only instance: a throw-away clone."""
        return self.disk / "bases" / snapshot_id

    def generation(self, tenant_id: str, generation_id: str) -> Path:
        return self.disk / "generations" / tenant_id / generation_id

    def workspace(self, tenant_id: str) -> Path:
        """The tenant's work tree, mounted at /workspace; hostile input."""
        return self.disk / "workspaces" / tenant_id / "tree"

    def repository(self, tenant_id: str) -> Path:
        """The work tree's git directory, mounted at /repository; hostile input too."""
        return self.disk / "workspaces" / tenant_id / "git"

    def results(self, tenant_id: str) -> Path:
        """Large files that disposable commands left, by command and digest, until they are applied or make room."""
        return self.disk / "results" / tenant_id

    def bare_repository(self) -> Path:
        """Checked objects of every tenant's branch; written by the orchestrator alone."""
        return self.var / "git" / "company.git"

    def tenant_run(self, tenant_id: str) -> Path:
        return self.var / "run" / "t" / tenant_id

    def databases(self, tenant_id: str) -> Path:
        """Holds one socket directory per generation and the `live` link; mounted into the pool at /databases."""
        return self.tenant_run(tenant_id) / "d"

    def database_sockets(self, tenant_id: str, generation_id: str) -> Path:
        return self.databases(tenant_id) / generation_id

    def live_link(self, tenant_id: str) -> Path:
        """A relative link to the live generation's socket directory; replaced by rename(2)."""
        return self.databases(tenant_id) / "live"

    def pool_sockets(self, tenant_id: str) -> Path:
        """The pool's socket, what the sandbox sees at /run/postgresql."""
        return self.tenant_run(tenant_id) / "p"

    def pool_configuration(self, tenant_id: str) -> Path:
        """The pool's configuration and its list of users (secrets); mounted read-only into the pool alone."""
        return self.tenant_run(tenant_id) / "c"

    def pool_password(self, tenant_id: str, user: str) -> Path:
        """A password of the pool in clear: the tenant's own, or that of its console."""
        return self.secrets / "pools" / tenant_id / user

    def sandboxd_sockets(self, tenant_id: str) -> Path:
        return self.tenant_run(tenant_id) / "b"
