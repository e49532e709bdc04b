"""`orchestrator up | down | status | doctor | serve | schedule`: the installation as a whole."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from typing import Annotated

import typer

from orchestrator import logs
from orchestrator.cli import session
from orchestrator.cli.output import Form, FormOption, say, show_rows, table, write, write_json
from orchestrator.config import Settings
from orchestrator.setup import processes
from orchestrator.setup.options import from_settings, is_contained
from orchestrator.store import tenants

UP_PATIENCE_S = 60.0
WITH_SCHEDULE = "--with-schedule"
FIRST_PATIENCE_S = 600.0  # where `serve` itself makes the demo's production before it answers
CONTROL_PATIENCE_S = 60.0  # for a control database that something else starts


def add_to(app: typer.Typer) -> None:
    """Put these verbs at the top, without a noun."""
    for command in (up, demo, down, status, doctor, serve, schedule):
        app.command()(command)
    app.command(hidden=True)(prepare)


def up() -> None:
    """Start what does not run: databases, proxy, control plane. Again is quick and changes nothing."""
    settings = session.settings()
    bring_up(settings)
    say(f"console: {settings.proxy.address(settings.proxy.console_host)}")


def prepare() -> None:
    """What must be there before the control plane's processes start, where something else starts them."""
    _prepare(session.settings())


def bring_up(settings: Settings) -> None:
    """Shared containers first, then the two processes; returns when the API answers. Raises OutsideFailure."""
    if is_contained():  # something else starts the processes, and they prepare what they need
        say("  waiting for the control plane")
        wait_for_api(settings, None, timeout_s=FIRST_PATIENCE_S)
    else:
        _prepare(settings)
        wait_for_api(settings, _start(settings))
    processes.wait(settings.places, "schedule", timeout_s=UP_PATIENCE_S)


def _start(settings: Settings) -> subprocess.Popen[bytes] | None:
    """The processes of this host that do not run yet; returns the one that serves. Raises PortTaken."""
    from orchestrator.wiring import listening

    if processes.pid(settings.places, "serve") is None:
        listening.close(listening.sockets(settings))  # whoever has our port must not be taken for us
    missing = [name for name in processes.NAMES if processes.pid(settings.places, name) is None]
    if missing == list(processes.NAMES):
        served = processes.start(settings, "serve", WITH_SCHEDULE)
    else:
        served = {name: processes.start(settings, name) for name in missing}.get("serve")
    for name in missing:
        say(f"  started: {name}")
    return served


def _prepare(settings: Settings) -> None:
    from orchestrator.wiring.build import build
    from orchestrator.wiring.drivers import make_drivers
    from orchestrator.wiring.installation import Installation

    drivers = make_drivers(settings)
    Installation(drivers).ensure(lambda text: say(f"  {text}"))
    drivers.engine.connection.close()
    build(settings).close()  # the schema is brought up to date before anybody serves


def wait_for_api(
    settings: Settings, process: subprocess.Popen[bytes] | None, *, timeout_s: float = UP_PATIENCE_S
) -> None:
    """Return when it says that it is ready. Raises ProcessFailed, at once when `process` has ended."""
    deadline = time.monotonic() + timeout_s
    url = f"http://127.0.0.1:{settings.api.port}/readyz"
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except (OSError, urllib.error.URLError):
            pass
        has_ended = (
            process is not None and process.poll() is not None and processes.pid(settings.places, "serve") is None
        )
        if has_ended or time.monotonic() > deadline:
            raise processes.failed(settings.places, "serve")
        time.sleep(0.05)


def demo(form: FormOption = Form.TABLE) -> None:
    """A demo production, a masked snapshot, three tenants and three people, from nothing; again shows them."""
    from orchestrator.setup.plan import set_up
    from orchestrator.wiring import demo as demo_wiring

    settings = session.settings()
    demo_wiring.refuse_real(settings)
    if not is_contained():  # the host was prepared from outside then
        set_up(from_settings(settings))
    bring_up(settings)
    with session.opened() as services:
        made = demo_wiring.make(services, lambda text: say(f"  {text}"))
    if form is Form.JSON:
        return write_json(made)
    write(f"Console  {made.console}")
    write("")
    write(
        table([[one.name, one.role.value, one.password] for one in made.sign_ins], ("sign in as", "role", "password"))
    )
    write("")
    write(table([[name, address] for name, address in made.tenants], ("tenant", "address")))


def down() -> None:
    """Stop everything of this installation; nothing is lost. Tenants that ran run again after `up`."""
    from orchestrator.wiring.drivers import make_drivers
    from orchestrator.wiring.installation import Installation

    settings = session.settings()
    if is_contained() and any(processes.pid(settings.places, name) for name in processes.NAMES):
        raise processes.KeptElsewhere(
            "The control plane's processes are containers, which something else keeps.",
            effect="Nothing was stopped: they would start it again.",
            next_step="`docker compose stop orchestrator scheduler`, then `docker compose run --rm --no-deps"
            " orchestrator down`; where `make up` started them: make down.",
        )
    for name in reversed(processes.NAMES):
        if processes.end(settings.places, name):
            say(f"  ended: {name}")
    for name in Installation(make_drivers(settings)).down():
        say(f"  stopped: {name}")


def status(form: FormOption = Form.TABLE) -> None:
    """What runs: shared parts, processes, tenants. Exit code 1 when something should run and does not."""
    from orchestrator.wiring.drivers import make_drivers
    from orchestrator.wiring.installation import Installation

    settings = session.settings()
    installation = Installation(make_drivers(settings))
    rows: list[dict[str, object]] = [
        {"part": part.name, "runs": part.is_running, "detail": part.detail} for part in installation.status()
    ]
    for name in processes.NAMES:
        found = processes.pid(settings.places, name)
        detail = f"process {found}" if found else "start it: orchestrator up"
        rows.append({"part": name, "runs": found is not None, "detail": detail})
    if all(row["runs"] for row in rows):
        with session.opened() as services:
            rows += [
                {
                    "part": f"tenant {tenant.name}",
                    "runs": tenant.state == "running"
                    and tenants.trouble(services.store, tenant.id).attempts < settings.reconcile.failed_after,
                    "detail": tenant.reason or tenant.state.value,
                }
                for tenant in tenants.listed(services.store)
            ]
    show_rows(rows, ("part", "runs", "detail"), form)
    if not all(row["runs"] or row["detail"] == "stopped" for row in rows):
        raise typer.Exit(1)


def doctor(form: FormOption = Form.TABLE) -> None:
    """Repeat every check of set-up and look at what runs; each problem with its cause and cure."""
    from orchestrator.setup.plan import facts
    from orchestrator.wiring.changes import credential_results
    from orchestrator.wiring.databases import control_results, mirror_results
    from orchestrator.wiring.notifying import webhook_results
    from orchestrator.wiring.pushing import push_results

    settings = session.settings()
    results = facts(from_settings(settings))
    results += [*control_results(settings), *mirror_results(settings)]
    results += credential_results(settings)
    results += push_results(settings)
    results += webhook_results(settings)
    if form is Form.JSON:
        write_json(results)
    else:
        for one in results:
            write(f"ok    {one.name}  {one.note}".rstrip() if one.ok else f"FAIL  {one.name}: {one.cause}")
            if not one.ok:
                write(f"      cure: {one.cure}")
    if not all(one.ok for one in results):
        raise typer.Exit(1)


def serve(with_schedule: Annotated[bool, typer.Option(WITH_SCHEDULE, hidden=True)] = False) -> None:
    """Serve the API, the console and the sign-in check in the foreground, and keep what should run running."""
    from orchestrator.scheduler import start
    from orchestrator.wiring.build import build
    from orchestrator.wiring.drivers import make_drivers
    from orchestrator.wiring.installation import Installation
    from orchestrator.wiring.keeper import WATCH_EVERY_S, Keeper
    from orchestrator.wiring.rest import Rest, frugal

    frugal()
    settings = session.settings()
    if with_schedule:  # a process of its own all the same, for little more than what it holds by itself
        assert start  # noqa: S101 - loaded before the two part
        processes.apart(settings.places, "schedule", schedule)
    # Loaded only now: what the schedule never needs would be kept twice from the first write to it on.
    from orchestrator.api import server
    from orchestrator.web.pages import create_console

    logs.configure(level=settings.log_level, as_json=True)
    with processes.only_one(settings.places, "serve"):
        installation = Installation(make_drivers(settings))
        installation.ensure()
        services = build(settings, store=installation.open_store(patience_s=CONTROL_PATIENCE_S))
        keeper = Keeper(
            services.store,
            services.reconcile.run,
            every_s=settings.reconcile.every,
            repair=services.installation.ensure,
        )
        watcher = Keeper(services.store, services.watch.run, every_s=WATCH_EVERY_S, what="watch")
        try:
            keeper.start()
            watcher.start()
            console = create_console(services)
            with Rest(services.store):
                server.serve(console, settings)
        finally:
            keeper.stop()
            watcher.stop()
            services.close()


def schedule() -> None:
    """Run the schedule and its jobs in the foreground: snapshots, refreshes, publishing, pruning."""
    from orchestrator.scheduler.start import make_scheduler
    from orchestrator.wiring.build import build
    from orchestrator.wiring.drivers import make_drivers
    from orchestrator.wiring.installation import Installation
    from orchestrator.wiring.rest import Rest, frugal

    frugal()
    settings = session.settings()
    logs.configure(level=settings.log_level, as_json=True)
    with processes.only_one(settings.places, "schedule"):
        store = Installation(make_drivers(settings)).open_store(patience_s=CONTROL_PATIENCE_S)
        services = build(settings, store=store)
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        try:
            with Rest(services.store):
                make_scheduler(services).run(stop)
        finally:
            services.close()
