"""A tenant's sandbox: the hardened container, its supervisor, and the app in it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator import logs
from orchestrator.core.limits import Profile
from orchestrator.core.names import TenantNames
from orchestrator.core.places import Places
from orchestrator.core.ports.engine import Attachment, Container, ContainerSpec, Engine, Mount
from orchestrator.core.ports.sandboxd import (
    AppSpec,
    AppState,
    KernelGate,
    KernelGateBroken,
    Sandboxd,
    Sandboxds,
    SandboxdStatus,
    SandboxdUnreachable,
    SandboxPolicy,
)
from orchestrator.core.ports.servers import APP_DATABASE
from orchestrator.core.ports.volume import Volume
from orchestrator.core.tenants import Tenant
from orchestrator.errors import OutsideFailure

LOOK_EVERY_S = 1.0  # at a container whose supervisor does not answer yet
LOG = logs.get("sandbox")


class SandboxEnded(OutsideFailure):
    """The tenant's container does not stay: mostly an image without the supervisor."""

    code = "outside_failure.sandbox_ended"


@dataclass(frozen=True)
class AppCommand:
    """How a tenant's app is started; `argv[0]` must be in the image. Empty: the image has no app."""

    argv: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SandboxPart:
    """`policy` gives what may start for a tenant; `password` its own password at its own pool."""

    engine: Engine
    sandboxds: Sandboxds
    volume: Volume
    places: Places
    instance: str
    seccomp_profile: Path
    app: AppCommand
    profile: Callable[[str], Profile]
    policy: Callable[[Tenant], SandboxPolicy]
    password: Callable[[Tenant], str]
    require_kernel_gate: bool = True
    patience_s: float = 20.0
    stop_timeout_s: float = 10.0

    def spec(self, tenant: Tenant, network: Attachment | None) -> ContainerSpec:
        """The container; the same arguments give the same one. Without a network it is a place to run git only."""
        profile = self.profile(tenant.profile)
        names = TenantNames(self.instance, tenant.id, tenant.name)
        uid = tenant.uid if os.geteuid() == 0 else os.geteuid()
        return ContainerSpec(
            name=names.sandbox if network else f"{names.sandbox}-aside",
            image=tenant.image,
            argv=(),
            uid=uid,
            gid=uid,
            limits=profile.sandbox_limits,
            role="sandbox" if network else "aside",
            tenant_id=tenant.id,
            environment={
                "SANDBOXD_COMMANDS": str(profile.commands.at_once),
                "SANDBOXD_GATE_ONLY": "" if self.require_kernel_gate else "1",
            },
            mounts=(
                # Never read-only: Docker then drops noexec, nosuid and nodev of what the tenant can write elsewhere.
                Mount(self.places.workspace(tenant.id), "/workspace"),
                Mount(self.places.repository(tenant.id), "/repository"),
                Mount(self._sockets(tenant, network), "/run/sandboxd"),
                Mount(self.places.pool_sockets(tenant.id), "/run/postgresql", read_only=True),
            ),
            tmpfs={"/tmp": f"rw,nosuid,nodev,noexec,size={profile.sandbox.temporary}"},  # noqa: S108
            networks=(network,) if network else (),
            seccomp_profile=self.seccomp_profile,
            init=True,
        )

    def prepare(self, tenant: Tenant) -> None:
        """Make the directories that are mounted, owned by the tenant's uid."""
        uid = tenant.uid if os.geteuid() == 0 else os.geteuid()
        for network in (None, Attachment("", "")):
            sockets = self._sockets(tenant, network)
            sockets.mkdir(parents=True, exist_ok=True)
            sockets.chmod(0o700)
            os.chown(sockets, uid, uid)
        self.places.pool_sockets(tenant.id).mkdir(parents=True, exist_ok=True)

    def start(self, tenant: Tenant, network: Attachment) -> Container:
        """Start the container; `ready` waits for it. Raises EngineFailed or ImageMissing."""
        self.prepare(tenant)
        return self.engine.start(self.spec(tenant, network))

    def wait(self, tenant: Tenant) -> SandboxdStatus:
        """Until the supervisor answers. Raises SandboxEnded as soon as there is nobody left who could."""
        deadline = time.monotonic() + self.patience_s
        while True:
            left_s = deadline - time.monotonic()
            try:
                return self.connect(tenant).wait(timeout_s=max(0.0, min(LOOK_EVERY_S, left_s)))
            except SandboxdUnreachable:
                container = self.observe(tenant)
                if container is not None and container.exit_code is not None and not container.running:
                    raise self._ended(tenant, container) from None
                if left_s <= 0:
                    raise

    def _ended(self, tenant: Tenant, container: Container) -> SandboxEnded:
        said = ""
        with suppress(OutsideFailure):
            said = self.engine.logs(container.name, lines=20)[-1000:].strip()
        return SandboxEnded(
            f"The sandbox of {tenant.name} ended at once (exit status {container.exit_code}).",
            effect=said or "It said nothing.",
            next_step=f"The image {tenant.image} must start sandboxd; sandbox_image/Dockerfile shows how it is added.",
        )

    def ready(self, tenant: Tenant) -> SandboxdStatus:
        """Wait for the supervisor, push the policy in force and start the app.

        Raises SandboxdUnreachable, and KernelGateBroken when the self-test failed and a kernel gate is required.
        """
        sandboxd = self.connect(tenant)
        status = self.wait(tenant)
        self.check_gate(tenant, status)
        policy = self.policy(tenant)
        if status.policy_digest != policy.digest:
            report = sandboxd.set_policy(policy)
            if report.refused:
                LOG.warning("sandbox.programs_refused", tenant=tenant.name, refused=dict(report.refused))
        if self.app.argv and status.app.state is AppState.STOPPED:
            sandboxd.start_app(self.app_spec(tenant))
        return sandboxd.status()

    def app_spec(self, tenant: Tenant) -> AppSpec:
        names = TenantNames(self.instance, tenant.id, tenant.name)
        environment = {
            "PGHOST": "/run/postgresql",
            "PGDATABASE": APP_DATABASE,
            "PGUSER": names.role,
            # The tenant's own password for the tenant's own pool: it opens nothing else.
            "PGPASSWORD": self.password(tenant),
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            **self.app.environment,
        }
        return AppSpec(argv=self.app.argv, environment=environment)

    def connect(self, tenant: Tenant) -> Sandboxd:
        return self._connect(tenant, Attachment("", ""))

    def _connect(self, tenant: Tenant, network: Attachment | None) -> Sandboxd:
        uid = tenant.uid if os.geteuid() == 0 else os.geteuid()
        return self.sandboxds.connect(self._sockets(tenant, network), uid=uid)

    def observe(self, tenant: Tenant) -> Container | None:
        return self.engine.observe(TenantNames(self.instance, tenant.id, tenant.name).sandbox)

    @contextmanager
    def reach(self, tenant: Tenant) -> Iterator[Sandboxd]:
        """The supervisor of the running sandbox, or of a throw-away container without network when it is stopped."""
        found = self.observe(tenant)
        if found is not None and found.running:
            yield self.connect(tenant)
            return
        self.prepare(tenant)
        spec = self.spec(tenant, None)
        self.engine.start(spec)
        try:
            sandboxd = self._connect(tenant, None)
            self.check_gate(tenant, sandboxd.wait(timeout_s=self.patience_s))
            sandboxd.set_policy(self.policy(tenant))
            yield sandboxd
        finally:
            self.engine.remove(spec.name)

    def stop(self, tenant: Tenant) -> None:
        name = TenantNames(self.instance, tenant.id, tenant.name).sandbox
        self.engine.stop(name, timeout_s=round(self.stop_timeout_s))

    def remove(self, tenant: Tenant) -> None:
        """Delete the containers and their socket directories; the workspace is the workspace part's."""
        names = TenantNames(self.instance, tenant.id, tenant.name)
        for name in (names.sandbox, f"{names.sandbox}-aside"):
            self.engine.remove(name)
        for network in (None, Attachment("", "")):
            sockets = self._sockets(tenant, network)
            if sockets.is_dir():
                for entry in sockets.iterdir():
                    entry.unlink(missing_ok=True)
                sockets.rmdir()

    def _sockets(self, tenant: Tenant, network: Attachment | None) -> Path:
        sockets = self.places.sandboxd_sockets(tenant.id)
        return sockets if network else sockets.with_name(f"{sockets.name}a")

    def check_gate(self, tenant: Tenant, status: SandboxdStatus) -> None:
        """Raises KernelGateBroken when nothing but our decision would hold and that is not enough here."""
        holds = status.kernel_gate is KernelGate.ENFORCED
        if holds or (not self.require_kernel_gate and status.kernel_gate is KernelGate.GATE_ONLY):
            return
        failed = "; ".join(f"{check.name}: {check.evidence}" for check in status.failed) or str(status.kernel_gate)
        raise KernelGateBroken(
            f"The kernel gate of {tenant.name} does not hold: {failed}",
            effect="The tenant is refused service.",
            next_step="`orchestrator doctor` says what this host lacks.",
            checks=[check.name for check in status.failed],
        )
