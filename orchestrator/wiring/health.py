"""How the installation is: what its own records say at once, and what machine, engine and proxy say when asked."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from orchestrator import config
from orchestrator.core.alerts import Judged, judge
from orchestrator.core.forecast import Forecast, disk_full
from orchestrator.core.generations import GenerationState
from orchestrator.core.snapshots import Snapshot, SnapshotState
from orchestrator.core.tenants import Tenant, TenantState
from orchestrator.errors import OrchestratorError
from orchestrator.setup.options import from_settings
from orchestrator.setup.plan import facts
from orchestrator.setup.steps import CheckResult
from orchestrator.store import generations, jobs, leaders, measures, samples, slots, snapshots, tenants
from orchestrator.store.leaders import Leader
from orchestrator.store.session import lock_key
from orchestrator.store.slots import Decided
from orchestrator.wiring.changes import credential_results
from orchestrator.wiring.databases import mirror_results
from orchestrator.wiring.schedule import load
from orchestrator.wiring.services import Services

WATCHED = timedelta(days=14)
TICK_LATE_S = 60.0
SHOWN_DECISIONS = 8
MEASURED_GENERATIONS = 5


@dataclass(frozen=True)
class Fact:
    """One thing that is so, or should be: `tone` is good, warn, bad or nothing."""

    name: str
    said: str
    tone: str = "good"
    cure: str = ""


@dataclass(frozen=True)
class Disk:
    """`per_snapshot` is what one snapshot takes; unlike a generation, it shares nothing."""

    free_bytes: int
    total_bytes: int
    is_reflink: bool
    forecast: Forecast
    per_snapshot: int | None

    @property
    def snapshots_left(self) -> int | None:
        return self.free_bytes // self.per_snapshot if self.per_snapshot else None

    @property
    def tone(self) -> str:
        share = self.free_bytes / self.total_bytes if self.total_bytes else 0.0
        days = self.forecast.days
        if share < 0.05 or (days is not None and days < 2):
            return "bad"
        return "warn" if share < 0.15 or (days is not None and days < 14) else "good"


@dataclass(frozen=True)
class Records:
    """What the control database knows; read with a fixed number of queries."""

    leader: Leader | None
    leads_now: bool
    late_s: float | None
    decisions: list[Decided]
    snapshots: dict[str, Snapshot | None]
    alerts: Judged
    disk: Disk
    control: list[Fact] = field(default_factory=list)
    versions: list[tuple[str, str]] = field(default_factory=list)


def records(services: Services) -> Records:
    """Without asking the engine or the proxy. Raises OutsideFailure when the disk cannot be looked at."""
    store = services.store
    now = slots.now(store)
    leader = leaders.current(store)
    schedule = load(services.settings)
    present = tenants.listed(store)
    wanted = sorted({one.snapshot_profile for one in present} | {services.settings.tenants.snapshot_profile})
    with store.connect() as connection:
        newest = {profile: snapshots.newest(connection, profile) for profile in wanted}
    rules = config.read_yaml(services.settings.directory / "alerts.yaml") or {}
    listed = [rule for group in rules.get("groups") or [] for rule in group.get("rules") or []]
    return Records(
        leader=leader,
        leads_now=_is_led(services),
        late_s=(now - leader.ticked_at).total_seconds() if leader else None,
        decisions=slots.recent(store, limit=SHOWN_DECISIONS, without=("reconcile",)),
        snapshots=newest,
        alerts=judge(listed, measures.collect(store, schedule)),
        disk=_disk(services),
        control=_control(services),
        versions=_versions(services),
    )


def _is_led(services: Services) -> bool:
    """Whether some process holds the leader's lock now; its record alone may be of one that died."""
    key = lock_key("leader", "scheduler")
    query = text(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " AND classid::bigint = :high AND objid::bigint = :low)"
    )
    parts = {"high": (key >> 32) & 0xFFFFFFFF, "low": key & 0xFFFFFFFF}
    with services.store.connect() as connection:
        return bool(connection.scalar(query, parts))


def _disk(services: Services) -> Disk:
    volume = services.sample.volume
    watched = samples.disk(services.store, since=WATCHED)
    with services.store.connect() as connection:
        ready = snapshots.listed(connection, state=SnapshotState.READY, limit=5)
    sizes = [one.manifest.size_bytes for one in ready if one.manifest]
    free = volume.free_bytes()
    points = [(one.at, one.free_bytes) for one in watched]
    return Disk(
        free_bytes=free,
        total_bytes=volume.total_bytes(),
        is_reflink=volume.is_reflink,
        forecast=disk_full([*points, (datetime.now(UTC), free)]),
        per_snapshot=max(sizes) if sizes else None,
    )


def _per_generation(services: Services) -> int | None:
    """What the newest live generations hold for themselves, on average; None when none can be measured."""
    with services.store.connect() as connection:
        live = generations.listed(connection, states=[GenerationState.LIVE])
    found = []
    for one in live[-MEASURED_GENERATIONS:]:
        try:
            path = services.usage.places.generation(one.tenant_id, one.id)
            found.append(services.sample.volume.exclusive_bytes(path))
        except (OrchestratorError, OSError):
            continue
    return int(sum(found) / len(found)) if found else None


def _control(services: Services) -> list[Fact]:
    with services.store.connect() as connection:
        row = connection.execute(
            text(
                "SELECT current_setting('server_version'), pg_database_size(current_database()),"
                " (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()),"
                " current_setting('max_connections')::int"
            )
        ).one()
    crowded = row[2] > row[3] * 0.8
    counted = jobs.counts(services.store)
    waiting = sum(number for (_, state), number in counted.items() if state == "queued")
    return [
        Fact("PostgreSQL", f"{row[0]}, {row[1] / 2**20:.0f} MiB"),
        Fact(
            "Connections",
            f"{row[2]} of {row[3]}",
            "warn" if crowded else "good",
            "Raise max_connections, or run fewer jobs at once." if crowded else "",
        ),
        Fact("Jobs waiting", f"{waiting:,}", "warn" if waiting > 100 else "good"),
    ]


def _versions(services: Services) -> list[tuple[str, str]]:
    try:
        own = version("orchestrator")
    except PackageNotFoundError:
        own = "unknown"
    return [
        ("This product", own),
        ("Python", platform.python_version()),
        ("Instance", services.settings.instance),
    ]


@dataclass(frozen=True)
class Outside:
    """What had to be asked for: the engine, the proxy, and every check `orchestrator doctor` makes."""

    facts: list[Fact]
    doctor: list[CheckResult]


def outside(services: Services) -> Outside:
    """Asks the engine, the proxy and the machine; takes a moment. Never raises for a part that does not answer."""
    found = [
        _asked("Container engine", lambda: _engine(services)),
        _asked("Proxy", lambda: _proxy(services)),
        _asked("Room for refreshes", lambda: _room(services)),
    ]
    settings = services.settings
    checks = [*facts(from_settings(settings)), *mirror_results(settings), *credential_results(settings)]
    return Outside(found, checks)


def _asked(name: str, ask: Callable[[], Fact]) -> Fact:
    try:
        return ask()
    except OrchestratorError as error:
        return Fact(name, f"{error.message} {error.effect}".strip(), "bad", error.next_step)
    except (OSError, SQLAlchemyError) as error:
        return Fact(name, f"It could not be asked ({type(error).__name__}).", "bad")


def _room(services: Services) -> Fact:
    """For how many generations more the disk has room, by what the present ones hold for themselves."""
    each, free = _per_generation(services), services.sample.volume.free_bytes()
    if each is None:
        return Fact("Room for refreshes", "No tenant has a database yet, so nothing can be measured.")
    count = free // max(each, 1)
    said = f"about {count:,} more databases: each holds {each / 2**20:,.1f} MiB that no snapshot shares"
    return Fact("Room for refreshes", said, "good" if count >= 50 else "warn" if count >= 10 else "bad")


def _engine(services: Services) -> Fact:
    engine = services.installation.drivers.engine
    running = [one for one in engine.containers() if one.running]
    told = engine.connection.api.version(api_version=False)
    said = f"Docker {told.get('Version', '?')}, API {told.get('ApiVersion', '?')}; {len(running)} of our containers run"
    return Fact("Container engine", said)


def _proxy(services: Services) -> Fact:
    """Whether the running proxy serves exactly the routes that should be there."""
    proxy = services.installation.drivers.proxy
    domain = services.settings.proxy.domain
    wanted = {one.id: f"{one.name}.{domain}" for one in _routed(services)}
    wanted["console"] = services.settings.proxy.console_host
    serves = {one.id: one for one in proxy.live()}
    missing = sorted(
        wanted[route]
        for route in wanted
        if route not in serves or not serves[route].is_enabled or serves[route].hostname != wanted[route]
    )
    strays = sorted(one.hostname or one.id for route, one in serves.items() if route not in wanted and one.hostname)
    confirmed = len(wanted) - len(missing)
    said = f"{confirmed} of {len(wanted)} routes confirmed by the proxy"
    if missing:
        return Fact(
            "Proxy", f"{said}; not served: {', '.join(missing[:10])}", "bad", "Reconcile writes them again within 15 s."
        )
    if strays:
        return Fact("Proxy", f"{said}; and some nobody asked for: {', '.join(strays[:10])}", "warn")
    return Fact("Proxy", said)


def _routed(services: Services) -> list[Tenant]:
    return tenants.listed(services.store, states=[TenantState.RUNNING])
