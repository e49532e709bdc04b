"""From the settings to every flow: the only place where drivers and flows meet."""

from __future__ import annotations

import os
from collections.abc import Callable

from psycopg.conninfo import make_conninfo
from sqlalchemy import Engine

from orchestrator import config
from orchestrator.config import Settings
from orchestrator.core.actors import system
from orchestrator.core.generations import DatabaseLimits
from orchestrator.core.limits import Profile
from orchestrator.core.masking import rules as masking_rules
from orchestrator.core.names import TenantNames
from orchestrator.core.ports.servers import APP_DATABASE
from orchestrator.core.ports.snapshots import Source
from orchestrator.core.tenants import Tenant, room_for
from orchestrator.demo import hotels
from orchestrator.drivers.docker.images import DockerImages
from orchestrator.drivers.oidc.provider import make_provider
from orchestrator.drivers.postgres.apply.production import PostgresProduction
from orchestrator.drivers.postgres.watchdog import PostgresWatchdog
from orchestrator.drivers.postgres.workshop import PostgresWorkshop
from orchestrator.flows.access import Access, AccessRules
from orchestrator.flows.command import CommandFlow
from orchestrator.flows.containers import ContainersFlow
from orchestrator.flows.launch import Host, LaunchFlow
from orchestrator.flows.publish import PublishFlow
from orchestrator.flows.reconcile import ReconcileFlow
from orchestrator.flows.refresh import RefreshFlow, RefreshRecovery
from orchestrator.flows.sample import SampleFlow
from orchestrator.flows.snapshot import Snapshots
from orchestrator.flows.tenant import TenantFlow
from orchestrator.flows.usage import UsageFlow
from orchestrator.flows.watch import WatchFlow
from orchestrator.parts.code import Code
from orchestrator.parts.drafts import ChangeDrafts
from orchestrator.parts.egress import EgressPart
from orchestrator.parts.generation import Generations
from orchestrator.parts.network import NetworkPart
from orchestrator.parts.policy import PolicyPart
from orchestrator.parts.pool import TenantPools
from orchestrator.parts.route import RoutePart
from orchestrator.parts.sandbox import AppCommand, SandboxPart
from orchestrator.parts.tenancy import Tenancy
from orchestrator.parts.workspace import WorkspacePart
from orchestrator.store import changes, commands, publishes, tenants
from orchestrator.wiring import secrets, servers
from orchestrator.wiring.changes import ChangeServices, change_services
from orchestrator.wiring.drivers import SECCOMP_PROFILE, WEB_PORT, Drivers, make_drivers
from orchestrator.wiring.gate import make_gate, make_policies
from orchestrator.wiring.installation import Installation
from orchestrator.wiring.notifying import make_notify
from orchestrator.wiring.probing import make_probe
from orchestrator.wiring.services import Services
from orchestrator.wiring.visitor import Visitor

RECONCILER = system("reconcile")
COMMANDS_NAMED = 50
DEMO_APP = AppCommand(("/usr/bin/python3", "-m", "uvicorn", "backoffice.main:app", "--fd", "3"))


def build(settings: Settings, *, store: Engine | None = None) -> Services:
    """Connect to a running installation. Raises SetupFailed before the first set-up."""
    drivers = make_drivers(settings)
    installation = Installation(drivers)
    store = store or installation.open_store()
    policies = make_policies(drivers, store)
    tenancy = _tenancy(drivers, store, policies)
    gate = make_gate(drivers, store, tenancy, policies)
    visitor = _visitor(settings)
    launch = LaunchFlow(
        store=store,
        audit=drivers.audit,
        tenancy=tenancy,
        limits=settings.limits,
        host=_host(),
        image=drivers.images.sandbox,
        tenants_max=min(settings.tenants.tenants_max, room_for(settings.networks.plan)),
        answers=visitor.visit,
        has_image=DockerImages(drivers.engine.connection).exists,
    )
    tenant_flow = TenantFlow(store, drivers.audit, tenancy, visitor.visit)
    code = Code(drivers.repository, settings.branch.production)
    proposing = change_services(drivers, store, tenancy.generations, code)
    refresh, recovery = _refreshing(drivers, store, tenancy, proposing)
    snapshots = _snapshots(drivers, store, tenancy.generations)
    return Services(
        settings=settings,
        store=store,
        audit=drivers.audit,
        access=Access(store, drivers.audit, _access_rules(settings), visitor.key),
        installation=installation,
        launch=launch,
        tenants=tenant_flow,
        reconcile=ReconcileFlow(
            store=store,
            engine=drivers.engine,
            tenancy=tenancy,
            installation=lambda: _shared(installation, snapshots, gate.commands),
            recover=recovery.recover,
            finish_launch=lambda one: launch.finish(one, actor=RECONCILER),
            finish_removal=lambda one: tenant_flow.finish_removal(one, actor=RECONCILER),
            at_once=settings.reconcile.at_once,
            failed_after=settings.reconcile.failed_after,
        ),
        probe=make_probe(drivers, store, tenancy),
        watch=_watch(drivers, store, tenancy),
        containers=ContainersFlow(drivers.engine),
        usage=UsageFlow(
            store=store,
            engine=drivers.engine,
            volume=drivers.volume,
            places=drivers.places,
            instance=settings.instance,
            profile=settings.limits.profile,
        ),
        sample=SampleFlow(store, drivers.engine, drivers.volume, settings.instance),
        snapshots=snapshots,
        source=lambda: source(settings, drivers),
        refresh=refresh,
        publish=_publish(drivers, store, tenancy),
        code=code,
        changes=proposing,
        commands=gate.commands,
        approvals=gate.approvals,
        identity=make_provider(settings.oidc),
        allowlist=gate.allowlist,
        files=gate.files,
        notify=make_notify(drivers, store),
    )


def _watch(drivers: Drivers, store: Engine, tenancy: Tenancy) -> WatchFlow:
    return WatchFlow(
        store=store,
        audit=drivers.audit,
        generations=tenancy.generations,
        watchdog=PostgresWatchdog(drivers.servers),
        limits=_database_limits(drivers.settings),
    )


def _visitor(settings: Settings) -> Visitor:
    return Visitor(
        address=settings.networks.edge_proxy,
        port=WEB_PORT,
        domain=settings.proxy.domain,
        key=secrets.key(settings.places.secrets, "visit.key"),
        timeout_s=settings.tenants.launch_timeout,
    )


def _refreshing(
    drivers: Drivers, store: Engine, tenancy: Tenancy, proposing: ChangeServices
) -> tuple[RefreshFlow, RefreshRecovery]:
    """The refresh and what finishes one that was cut off: the same parts, the same drafts."""
    settings = drivers.settings
    drafts = ChangeDrafts(
        store=store,
        differences=proposing.checks.differences,
        proposals=proposing.checks.proposals,
        at=PostgresProduction,
        as_tenant=lambda tenant: _as_tenant(drivers, tenancy, tenant),
    )
    limits, kept = _database_limits(settings), settings.refresh.previous_kept
    generations, pools = tenancy.generations, tenancy.pools

    def reload(tenant_id: str) -> Tenant:
        return tenants.get(store, tenant_id)

    return (
        RefreshFlow(
            store=store,
            audit=drivers.audit,
            generations=generations,
            pools=pools,
            drafts=drafts,
            reload=reload,
            limits=limits,
            previous_kept=kept,
        ),
        RefreshRecovery(
            store=store,
            generations=generations,
            pools=pools,
            drafts=drafts,
            reload=reload,
            limits=limits,
            previous_kept=kept,
        ),
    )


def _as_tenant(drivers: Drivers, tenancy: Tenancy, tenant: Tenant) -> str:
    """The tenant's live database by way of its pool, with its own password and rights. Never log it."""
    return make_conninfo(
        host=str(drivers.places.pool_sockets(tenant.id)),
        user=TenantNames("", tenant.id, tenant.name).role,
        dbname=APP_DATABASE,
        password=tenancy.pools.password(tenant),
    )


def _publish(drivers: Drivers, store: Engine, tenancy: Tenancy) -> PublishFlow:
    branch = drivers.settings.branch

    def command_ids(tenant: Tenant) -> list[str]:
        """What the tenant ran since its last publish."""
        last = next(iter(publishes.history(store, tenant.id, limit=1)), None)
        recent = commands.listed(store, tenant_ids=[tenant.id], limit=COMMANDS_NAMED)
        return [one.id for one in recent if last is None or one.created_at > last.started_at]

    return PublishFlow(
        store=store,
        audit=drivers.audit,
        repository=drivers.repository,
        workspace=tenancy.workspace,
        production=branch.production,
        reach=tenancy.sandbox.reach,
        command_ids=command_ids,
        file_bytes_max=branch.file_bytes_max,
    )


def _shared(installation: Installation, snapshots: Snapshots, commands: CommandFlow) -> list[str]:
    """What belongs to no tenant: the shared containers, what interrupted snapshots and commands left."""
    cleared = [f"cleared the snapshot {one}" for one in snapshots.recover()]
    return [*installation.ensure(), *cleared, *commands.settle()]


def _access_rules(settings: Settings) -> AccessRules:
    section = settings.sessions
    return AccessRules(
        console_host=settings.proxy.console_host,
        domain=settings.proxy.domain,
        idle_s=section.idle,
        absolute_s=section.absolute,
        code_lifetime_s=section.code_lifetime,
        token_lifetime_max_s=section.token_lifetime_max,
        failures_max=section.failures_max,
        failure_window_s=section.failure_window,
    )


def source(settings: Settings, drivers: Drivers) -> Source:
    """Where snapshots are read from: the company's mirror, a dump, or the demo's production."""
    mirror = settings.production.mirror
    if mirror.dump is not None:
        return Source(description=f"the dump {mirror.dump}", dump=mirror.dump)
    if mirror.dsn:
        return Source(description="the mirror of production", dsn=mirror.dsn, password=mirror.credential())
    sockets = servers.production(settings).sockets
    return Source(
        description="Harbour Hotels, the demo production",
        dsn=drivers.servers.dsn(sockets, user=hotels.READER, database=hotels.DATABASE),
        password=secrets.text(settings.places.secrets, "demo-mirror.password"),
    )


def _tenancy(drivers: Drivers, store: Engine, policies: PolicyPart) -> Tenancy:
    settings, places = drivers.settings, drivers.places
    generations = Generations(drivers.servers, drivers.roles, drivers.volume, places, settings.instance)
    pools = TenantPools(
        pools=drivers.pools,
        servers=drivers.servers,
        places=places,
        instance=settings.instance,
        image=drivers.images.pool,
        patience_s=settings.refresh.patience,
        grace_s=settings.refresh.grace,
    )
    network = NetworkPart(drivers.engine, settings.networks.plan, settings.instance, servers.proxy_name(settings))
    sandbox = SandboxPart(
        engine=drivers.engine,
        sandboxds=drivers.sandboxds,
        volume=drivers.volume,
        places=places,
        instance=settings.instance,
        seccomp_profile=SECCOMP_PROFILE,
        app=DEMO_APP,
        profile=settings.limits.profile,
        policy=policies.sandbox_policy,
        password=pools.password,
        require_kernel_gate=settings.tenants.require_kernel_gate,
        patience_s=settings.tenants.launch_timeout,
        stop_timeout_s=settings.tenants.stop_timeout,
    )
    return Tenancy(
        store=store,
        generations=generations,
        pools=pools,
        network=network,
        workspace=WorkspacePart(places, drivers.repository, settings.branch.production),
        sandbox=sandbox,
        egress=EgressPart(
            engine=drivers.engine,
            network=network,
            places=places,
            instance=settings.instance,
            image=drivers.images.egress,
            profiles=settings.networks.profiles,
        ),
        route=RoutePart(drivers.proxy, network, settings.proxy.domain),
        places=places,
        profile=settings.limits.profile,
    )


def _snapshots(drivers: Drivers, store: Engine, generations: Generations) -> Snapshots:
    settings = drivers.settings
    masking_file = settings.file("masking")
    workshop = PostgresWorkshop(
        drivers.engine,
        drivers.servers,
        drivers.binaries,
        network=servers.edge_network(settings),
        network_address=str(settings.networks.edge[5]),
        jobs=settings.snapshots.parallel,
    )
    return Snapshots(
        control=store,
        audit=drivers.audit,
        workshop=workshop,
        volume=drivers.volume,
        places=drivers.places,
        generations=generations,
        instance=settings.instance,
        masking=lambda: masking_rules.parse(config.read_yaml(masking_file)),
        key=lambda: secrets.key(settings.places.secrets, "masking.key"),
        image=drivers.images.postgres,  # noted with each: its databases need the version that made its files
        references=(changes.snapshots_in_use,),
        builder_memory_bytes=settings.snapshots.memory,
    )


def _database_limits(settings: Settings) -> Callable[[Tenant], DatabaseLimits]:
    return lambda tenant: _profile(settings, tenant).database_limits


def _profile(settings: Settings, tenant: Tenant) -> Profile:
    return settings.limits.profile(tenant.profile)


def _host() -> Host:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Host(memory_bytes=pages, cpus=os.cpu_count() or 1)
