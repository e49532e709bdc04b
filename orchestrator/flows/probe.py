"""Probe: try every boundary of a running tenant, from inside and from outside, and keep what answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine

from orchestrator.core.actors import Actor
from orchestrator.core.audit import AuditEvent, Result
from orchestrator.core.limits import Profile
from orchestrator.core.names import TenantNames
from orchestrator.core.places import Places
from orchestrator.core.ports import engine as port
from orchestrator.core.ports.audit import AuditLog
from orchestrator.core.ports.sandboxd import KernelGate, Sandboxd, SandboxPolicy
from orchestrator.core.ports.servers import APP_DATABASE, SUPERUSER
from orchestrator.core.probes import Outcome, Probe, ProbeReport, worst
from orchestrator.core.tenants import Tenant, TenantState, WrongTenantState
from orchestrator.parts.inside import Answers, Attempts, attempt
from orchestrator.parts.network import NetworkPart
from orchestrator.store import probes, tenants

APP_PORT = 8000
OUTSIDE = (("1.1.1.1", 443), ("9.9.9.9", 53))
OUTSIDE_NAMES = ("example.com",)
PROGRAMS = ("/bin/sh", "/usr/bin/env", "/usr/bin/perl", "/usr/bin/apt-get")
ENGINE_SOCKETS = ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock")
UNREACHED = ("TimeoutError", "no answer in time", "No route to host", "Network is unreachable", "Network unreachable")
MEMORY_SLACK = 1.02  # the kernel rounds to pages


@dataclass(frozen=True)
class ProbeTargets:
    """What must not be reached: `host` are this machine's own listeners, `databases` servers with an address."""

    host: Sequence[tuple[str, int]]
    production: Sequence[tuple[str, int]]
    control: Sequence[tuple[str, int]]
    production_paths: Sequence[str]
    control_paths: Sequence[str]
    web_port: int


@dataclass(frozen=True)
class ProbeFlow:
    """`rights` reads what the tenant's role may do; `stranger` asks the hostname without a sign-in."""

    store: Engine
    audit: AuditLog
    engine: port.Engine
    network: NetworkPart
    places: Places
    instance: str
    uid: Callable[[Tenant], int]
    targets: ProbeTargets
    connect: Callable[[Tenant], Sandboxd]
    policy: Callable[[Tenant], SandboxPolicy]
    profile: Callable[[str], Profile]
    rights: Callable[[Tenant], Mapping[str, bool]]
    live_id: Callable[[str], str | None]
    stranger: Callable[[Tenant], str]

    def run(self, tenant: Tenant, *, actor: Actor) -> ProbeReport:
        """Try every boundary of a running tenant. Raises WrongTenantState, or what failed outside."""
        tenant = tenants.get(self.store, tenant.id)
        if tenant.state is not TenantState.RUNNING:
            raise WrongTenantState(
                f"{tenant.name} is {tenant.state.value}.",
                effect="Nothing was probed.",
                next_step=f"Start it first: `orchestrator tenant start {tenant.name}`.",
            )
        others = [one for one in tenants.listed(self.store, states=[TenantState.RUNNING]) if one.id != tenant.id]
        sandboxd = self.connect(tenant)
        answers = attempt(sandboxd, self._attempts(tenant, others[:3]))
        found = [
            *self._network(tenant, others[:3], answers),
            *self._mounts(tenant, others[:3], answers),
            *self._programs(tenant, sandboxd, answers),
            *self._container(tenant, answers),
            self._memory(tenant),
            self._database_memory(tenant),
            self._database_role(tenant),
            self._sign_in(tenant),
        ]
        report = probes.add(self.store, tenant.id, found)
        broken = [probe.boundary for probe in found if probe.outcome is Outcome.BROKEN]
        self.audit.append(
            AuditEvent(
                actor,
                "tenant.probe",
                target=report.id,
                tenant=tenant.name,
                result=Result.FAILED if broken else Result.OK,
                details={"broken": broken},
            )
        )
        return report

    def _attempts(self, tenant: Tenant, others: Sequence[Tenant]) -> Attempts:
        where = self.network.addresses(tenant)
        targets = self.targets
        connect = [("own", where.sandbox, APP_PORT)]
        connect += [(f"other {one.name}", self.network.addresses(one).sandbox, APP_PORT) for one in others]
        connect += [("proxy", where.proxy, targets.web_port)]
        for kind, addresses in (
            ("host", (*targets.host, (str(where.subnet[1]), 22))),
            ("outside", OUTSIDE),
            ("production", targets.production),
            ("control", targets.control),
        ):
            connect += [(f"{kind} {host}:{number}", host, number) for host, number in addresses]
        paths = [*targets.production_paths, *targets.control_paths, *ENGINE_SOCKETS]
        paths += [str(self.places.pool_sockets(one.id)) for one in others]
        paths += [str(self.places.databases(one.id)) for one in (tenant, *others)]
        roles = [TenantNames(self.instance, one.id, one.name).role for one in others]
        return Attempts(connect, paths, OUTSIDE_NAMES, [*roles, SUPERUSER], PROGRAMS, APP_DATABASE)

    def _network(self, tenant: Tenant, others: Sequence[Tenant], answers: Answers) -> list[Probe]:
        own = answers.connect.get("own", "")
        if own != "connected":
            evidence = f"the tenant's own app could not be reached either ({own}): nothing can be concluded"
            kinds = ("other_sandbox", "host", "proxy", "outside")
            return [Probe(kind, Outcome.NOT_TRIED, "connections from inside", evidence) for kind in kinds]
        found = [
            worst("other_sandbox", [_unreached("other_sandbox", f"other {one.name}", answers) for one in others])
            if others
            else Probe("other_sandbox", Outcome.NOT_TRIED, "no other tenant runs", "")
        ]
        for kind in ("host", "outside"):
            keys = [
                key
                for key in answers.connect
                if key.startswith((f"{kind} ", "name ") if kind == "outside" else f"{kind} ")
            ]
            found.append(worst(kind, [_unreached(kind, key, answers) for key in keys]))
        said = answers.connect.get("proxy", "")
        tried = f"connect to {self.network.addresses(tenant).proxy}:{self.targets.web_port}"
        outcome = Outcome.BROKEN if said == "connected" else Outcome.HOLDS
        return [*found, Probe("proxy", outcome, tried, said)]

    def _mounts(self, tenant: Tenant, others: Sequence[Tenant], answers: Answers) -> list[Probe]:
        targets = self.targets
        found = []
        for kind, paths in (("production", targets.production_paths), ("control", targets.control_paths)):
            keys = [key for key in answers.connect if key.startswith(f"{kind} ")]
            attempts = [_absent(kind, path, answers) for path in paths]
            found.append(worst(kind, [*attempts, *(_unreached(kind, key, answers) for key in keys)]))
        found.append(worst("engine", [_absent("engine", path, answers) for path in ENGINE_SOCKETS]))
        paths = [str(self.places.pool_sockets(one.id)) for one in others]
        paths += [str(self.places.databases(one.id)) for one in (tenant, *others)]
        attempts = [_absent("other_database", path, answers) for path in paths]
        for role, said in answers.roles.items():
            outcome = Outcome.BROKEN if said == "let in" else Outcome.HOLDS
            attempts.append(Probe("other_database", outcome, f"sign in at the own pool as {role}", said))
        return [*found, worst("other_database", attempts)]

    def _programs(self, tenant: Tenant, sandboxd: Sandboxd, answers: Answers) -> list[Probe]:
        status = sandboxd.status()
        lacking = sandboxd.check_policy(self.policy(tenant)).refused
        started = {key: said for key, said in answers.programs.items() if key != "own"}
        evidence = f"kernel gate {status.kernel_gate.value}, Landlock {status.landlock_abi}"
        if lacking:  # no hole, but somebody expects a program that cannot start
            evidence += "; listed, but closed: " + ", ".join(f"{path} ({why})" for path, why in sorted(lacking.items()))
        broken = [key for key, said in started.items() if said == "started"]
        if status.kernel_gate is not KernelGate.ENFORCED or broken:
            unlisted = Probe(
                "unlisted_program", Outcome.BROKEN, f"start {', '.join(started)}", f"{evidence}; started: {broken}"
            )
        elif not started:
            unlisted = Probe("unlisted_program", Outcome.NOT_TRIED, "the image has no program to try", evidence)
        else:
            said = ", ".join(f"{key}: {text}" for key, text in started.items())
            unlisted = Probe("unlisted_program", Outcome.HOLDS, "start programs of the image", f"{said}; {evidence}")
        own = answers.programs.get("own", "")
        outcome = Outcome.BROKEN if own == "started" else Outcome.HOLDS
        if own.startswith("not written") or not own:
            outcome = Outcome.NOT_TRIED
        return [unlisted, Probe("own_program", outcome, "start a script written to the workspace", own)]

    def _container(self, tenant: Tenant, answers: Answers) -> list[Probe]:
        status = answers.status
        wanted = {"capabilities": "0", "no new privileges": "1", "seccomp": "2", "uid": str(self.uid(tenant))}
        holds = all(status.get(name) == value for name, value in wanted.items())
        shown = ", ".join(f"{name} {value}" for name, value in status.items())
        return [
            Probe(
                "read_only",
                Outcome.HOLDS if answers.root == "ro" else Outcome.BROKEN,
                "how / is mounted",
                answers.root or "not said",
            ),
            Probe(
                "privileges",
                Outcome.HOLDS if holds else Outcome.BROKEN,
                "what the kernel says of a process inside",
                shown,
            ),
        ]

    def _memory(self, tenant: Tenant) -> Probe:
        limits = self.profile(tenant.profile).sandbox_limits
        return self._bounded("memory", TenantNames(self.instance, tenant.id, tenant.name).sandbox, limits)

    def _database_memory(self, tenant: Tenant) -> Probe:
        live_id = self.live_id(tenant.id)
        if live_id is None:
            return Probe("database_memory", Outcome.NOT_TRIED, "there is no live database", "")
        names = TenantNames(self.instance, tenant.id, tenant.name)
        return self._bounded(
            "database_memory", names.database(live_id), self.profile(tenant.profile).database_limits.container
        )

    def _bounded(self, boundary: str, container: str, limits: port.ContainerLimits) -> Probe:
        found = self.engine.stats(container)
        holds = 0 < found.memory_limit_bytes <= limits.memory_bytes * MEMORY_SLACK and found.pids <= limits.pids
        evidence = (
            f"limit {found.memory_limit_bytes >> 20} MiB (wanted {limits.memory_bytes >> 20}),"
            f" {found.pids} of {limits.pids} processes"
        )
        return Probe(boundary, Outcome.HOLDS if holds else Outcome.BROKEN, f"the cgroup of {container}", evidence)

    def _database_role(self, tenant: Tenant) -> Probe:
        rights = self.rights(tenant)
        had = sorted(name for name, has in rights.items() if has)
        evidence = f"has: {', '.join(had)}" if had else f"has none of: {', '.join(sorted(rights))}"
        return Probe(
            "database_role", Outcome.BROKEN if had else Outcome.HOLDS, "the role's rights in pg_catalog", evidence
        )

    def _sign_in(self, tenant: Tenant) -> Probe:
        said = self.stranger(tenant)
        outcome = Outcome.HOLDS if said in ("401", "302", "303") else Outcome.BROKEN
        if not said.isdigit() or said.startswith("5"):
            outcome = Outcome.NOT_TRIED
        return Probe("sign_in", outcome, "ask the hostname without a sign-in", said)


def _unreached(boundary: str, key: str, answers: Answers) -> Probe:
    said = answers.connect.get(key, "no answer")
    holds = any(word in said for word in UNREACHED) or (key.startswith("name ") and said != "resolved")
    return Probe(boundary, Outcome.HOLDS if holds else Outcome.BROKEN, f"connect: {key}", f"{key}: {said}")


def _absent(boundary: str, path: str, answers: Answers) -> Probe:
    said = answers.paths.get(path, "no answer")
    outcome = Outcome.HOLDS if said == "No such file or directory" else Outcome.BROKEN
    return Probe(boundary, outcome, "look for its files", f"{path}: {said}")
