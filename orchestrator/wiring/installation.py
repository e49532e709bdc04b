"""The installation's shared containers: made sure of, observed, stopped. Safe to run from two processes at once."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

import psycopg
from psycopg import sql
from sqlalchemy import Engine

from orchestrator import logs
from orchestrator.config import PROJECT
from orchestrator.core.ports.engine import EngineFailed
from orchestrator.core.ports.proxy import Route, RouteFailed
from orchestrator.core.ports.servers import ServerSpec
from orchestrator.demo import hotels
from orchestrator.drivers.git.workspace import first_commit
from orchestrator.drivers.postgres.image import major_of
from orchestrator.drivers.traefik import documents
from orchestrator.errors import OutsideFailure
from orchestrator.store.opening import look, migrate_when_ready, refuse_shared_sessions
from orchestrator.store.session import connect
from orchestrator.wiring import listening, secrets, servers
from orchestrator.wiring.drivers import Drivers, company_repository, push_keys

LOG = logs.get("installation")
PROXY_PATIENCE_S = 20.0
FETCH_EVERY_S = 60.0  # the company's repository may be a network away
STOP_PATIENCE_S = 10
STOPS_AT_ONCE = 8
DEMO_APP = PROJECT / "sandbox_image" / "app"
Progress = Callable[[str], None]


def quiet(_: str) -> None:
    """Nobody watches."""


@dataclass(frozen=True)
class Part:
    """One shared part as it is now."""

    name: str
    is_running: bool
    detail: str


@dataclass(frozen=True)
class Installation:
    """What `up` starts before the control plane itself, in this order: control database, production, proxy."""

    drivers: Drivers

    def ensure(self, progress: Progress = quiet) -> list[str]:
        """Start what does not run; returns what was started. Raises OutsideFailure."""
        settings = self.drivers.settings
        started: list[str] = []
        with self._alone():
            if not settings.control_url() and self._server(servers.control(settings), servers.CONTROL_DATABASE):
                started.append("control database")
            if settings.production.is_demo and self._production(progress):
                started.append("demo production")
            self._repository(progress)
            if self._proxy():
                started.append("proxy")
        self._fetch()
        for name in started:
            progress(f"started: {name}")
        return started

    def open_store(self, *, patience_s: float = 0.0) -> Engine:
        """The control database, migrated; one that is not ours to start may need a while.

        `ensure` must have run. Raises ControlDatabaseUnreachable or ControlDatabaseRefused.
        """
        store = connect(self.control_url(), connections_max=self.drivers.settings.control.connections)
        migrate_when_ready(store, patience_s=patience_s)  # one at a time by a lock in the database itself
        if self.drivers.settings.control_url():
            refuse_shared_sessions(store)
        return store

    def control_url(self) -> str:
        settings = self.drivers.settings
        if settings.control_url():
            return settings.control_url()
        sockets = servers.control(settings).sockets
        return f"postgresql+psycopg://postgres@/{servers.CONTROL_DATABASE}?host={sockets}"

    def status(self) -> list[Part]:
        """Every shared part as it is; asks the engine and starts nothing."""
        settings, found = self.drivers.settings, []
        for what, spec in (
            ("control database", servers.control(settings)),
            ("production", servers.production(settings)),
        ):
            container = self.drivers.engine.observe(spec.name)
            ready = container is not None and container.running and self.drivers.servers.is_ready(spec)
            is_ours = not settings.control_url() if what == "control database" else settings.production.is_demo
            detail = spec.name if is_ours else "reached by its own address"
            if not is_ours and what == "control database":
                ready, detail = self._control_answers()
                found.append(Part(what, ready, detail))
                continue
            found.append(Part(what, ready or not is_ours, detail))
        proxy = self.drivers.engine.observe(servers.proxy_name(settings))
        found.append(Part("proxy", proxy is not None and proxy.running, settings.proxy.address(settings.proxy.domain)))
        return found

    def _control_answers(self) -> tuple[bool, str]:
        """Of one that is not ours to run: whether it lets us in, and what it is or says."""
        store = connect(self.drivers.settings.control_url(), connections_max=4)
        try:
            return True, f"PostgreSQL {look(store)}, reached by its own address"
        except OutsideFailure as error:
            return False, error.message
        finally:
            store.dispose()

    def down(self) -> list[str]:
        """Stop every container of this installation; files stay. Returns their names."""
        running = [one.name for one in self.drivers.engine.containers() if one.running]
        with ThreadPoolExecutor(STOPS_AT_ONCE, thread_name_prefix="stop") as side_by_side:
            list(side_by_side.map(lambda name: self.drivers.engine.stop(name, timeout_s=STOP_PATIENCE_S), running))
        return running

    def console_route(self) -> Route:
        settings = self.drivers.settings
        backend = f"http://{settings.networks.edge_gateway}:{settings.api.edge_port}"
        return Route("console", settings.proxy.console_host, backend, is_guarded=False)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time makes shared parts; the lock goes with the process."""
        path = self.drivers.places.var / "run" / "installation.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _server(self, spec: ServerSpec, database: str) -> bool:
        """Start a server and make its database; whether it had to be started."""
        container = self.drivers.engine.observe(spec.name)
        was_running = container is not None and container.running and self.drivers.servers.is_ready(spec)
        if not was_running:
            spec = self.with_image(spec)
            self.drivers.servers.create(spec)
            self.drivers.servers.start(spec)
        if database:
            with psycopg.connect(self.drivers.servers.dsn(spec.sockets), autocommit=True) as connection:
                row = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,)).fetchone()
                if row is None:
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
        return not was_running

    def with_image(self, spec: ServerSpec) -> ServerSpec:
        """With the image that can read its files: `images.postgres` may name another version than made them."""
        engine, current = self.drivers.engine, self.drivers.images.postgres
        record = spec.data.with_name(f"{spec.data.name}.image")
        kept = record.read_text().strip() if record.exists() else ""
        made = spec.data / "PG_VERSION"
        has_changed = kept not in ("", current) and made.exists()
        if has_changed and major_of(engine, current, name=f"{spec.name}-version") != int(made.read_text()):
            LOG.warning("server.keeps_image", server=spec.name, image=kept, configured=current)
            return replace(spec, image=kept)
        if kept != current:
            record.parent.mkdir(parents=True, exist_ok=True)
            record.write_text(current + "\n")
        return spec

    def _production(self, progress: Progress) -> bool:
        spec = servers.production(self.drivers.settings)
        was_started = self._server(spec, "")
        dsn = self.drivers.servers.dsn(spec.sockets)
        if not hotels.is_present(dsn):
            directory = self.drivers.places.secrets
            hotels.generate(
                dsn,
                reader_password=secrets.text(directory, "demo-mirror.password"),
                promoter_password=secrets.text(directory, "demo-primary.password"),
                progress=progress,
            )
        return was_started

    def _repository(self, progress: Progress) -> None:
        """Our mirror of the company's repository; without a remote of its own the demo app becomes the company's."""
        places, branch = self.drivers.places, self.drivers.settings.branch
        self.drivers.repository.ensure()
        if branch.remote:
            return
        if not (company_repository(places) / "HEAD").exists():
            if self.drivers.repository.branch(branch.production) is not None:
                LOG.error("repository.gone", path=str(company_repository(places)))
                return  # it was there before: another history in its place would be taken for production's
            progress("making the company's repository from the demo app")
            first_commit(DEMO_APP, company_repository(places), branch=branch.production)
        push_keys(self.drivers.settings).ensure()

    def _fetch(self) -> None:
        """Bring our mirror up to date now and then; a remote that hangs holds up nobody who waits for the lock."""
        stamp = self.drivers.places.var / "run" / "repository.fetched"
        if stamp.exists() and time.time() - stamp.stat().st_mtime < FETCH_EVERY_S:
            return
        stamp.touch()
        try:
            self.drivers.repository.fetch(branch=self.drivers.settings.branch.production)
        except OutsideFailure as error:  # a remote that is down must not keep the installation down
            LOG.warning("repository.fetch_failed", reason=error.message)

    def _proxy(self) -> bool:
        drivers = self.drivers
        settings, places = drivers.settings, drivers.places
        drivers.proxy.prepare()
        static = places.proxy_static / "traefik.yaml"
        static.parent.mkdir(parents=True, exist_ok=True)
        document = documents.static(drivers.proxy_addresses, directory="/etc/traefik/dynamic")
        written = documents.text(document)
        is_same = static.exists() and static.read_text() == written
        if not is_same:
            static.with_suffix(".new").write_text(written)
            static.with_suffix(".new").rename(static)
        drivers.proxy.publish(self.console_route())
        name = servers.proxy_name(settings)
        container = drivers.engine.observe(name)
        if not settings.proxy.managed:
            # Made or started here it would stand in the way of whoever keeps it, who may just be taking it down.
            if container is not None and container.running and not is_same:
                drivers.engine.stop(name, timeout_s=5)
                drivers.engine.start(servers.proxy(drivers))
            return False
        drivers.engine.ensure_network(servers.edge_network(settings))
        if container is not None and container.running and is_same:
            drivers.engine.start(servers.proxy(drivers))
            return False
        if container is not None and not is_same:
            drivers.engine.stop(name, timeout_s=5)
        try:
            drivers.engine.start(servers.proxy(drivers))
        except EngineFailed as error:
            raise (listening.proxy_refused(settings, error.message) or error) from error
        try:
            drivers.proxy.wait(self.console_route(), timeout_s=PROXY_PATIENCE_S)
        except RouteFailed as error:
            said = drivers.engine.logs(name, lines=20)
            raise RouteFailed(error.message, effect=said[-1500:], next_step=error.next_step) from error
        return True
