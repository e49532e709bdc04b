"""`orchestrator up | down | status | doctor | serve | schedule`: the installation as a whole."""

from __future__ import annotations

import signal
import threading
import time
import urllib.error
import urllib.request

import typer

from orchestrator import logs
from orchestrator.cli import processes, session
from orchestrator.cli.output import Form, FormOption, say, show_rows, table, write, write_json
from orchestrator.config import Settings
from orchestrator.core.places import Places
from orchestrator.store import tenants

UP_PATIENCE_S = 60.0


def add_to(app: typer.Typer) -> None:
    """Put these verbs at the top, without a noun."""
    for command in (up, demo, down, status, doctor, serve, schedule):
        app.command()(command)


def up() -> None:
    """Start what does not run: databases, proxy, control plane. Again is quick and changes nothing."""
    settings = session.settings()
    bring_up(settings)
    say(f"console: {settings.proxy.address(settings.proxy.console_host)}")


def bring_up(settings: Settings) -> None:
    """Shared containers first, then the two processes; returns when the API answers. Raises OutsideFailure."""
    from orchestrator.wiring.build import build
    from orchestrator.wiring.drivers import make_drivers
    from orchestrator.wiring.installation import Installation

    drivers = make_drivers(settings)
    Installation(drivers).ensure(lambda text: say(f"  {text}"))
    drivers.engine.connection.close()
    build(settings).close()  # the schema is brought up to date before anybody serves
    for name in processes.NAMES:
        if processes.start(settings, name):
            say(f"  started: {name}")
    wait_for_api(settings)
    processes.wait(settings, "schedule", timeout_s=UP_PATIENCE_S)


def wait_for_api(settings: Settings) -> None:
    """Return when it says that it is ready. Raises ProcessFailed."""
    deadline = time.monotonic() + UP_PATIENCE_S
    url = f"http://127.0.0.1:{settings.api.port}/readyz"
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except (OSError, urllib.error.URLError):
            pass
        if time.monotonic() > deadline:
            raise processes.failed(settings, "serve")
        time.sleep(0.05)


def demo(form: FormOption = Form.TABLE) -> None:
    """A demo production, a masked snapshot, three tenants and three people, from nothing; again shows them."""
    from orchestrator.setup.options import SetupOptions
    from orchestrator.setup.plan import set_up
    from orchestrator.wiring import demo as demo_wiring

    settings = session.settings()
    set_up(SetupOptions(settings.places, disk_bytes=settings.disk, images=settings.images.image_set()))
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
    for name in reversed(processes.NAMES):
        if processes.end(settings, name):
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
        found = processes.pid(settings, name)
        detail = f"process {found}" if found else "start it: orchestrator up"
        rows.append({"part": name, "runs": found is not None, "detail": detail})
    if all(row["runs"] for row in rows):
        with session.opened() as services:
            rows += [
                {
                    "part": f"tenant {tenant.name}",
                    "runs": tenant.state == "running",
                    "detail": tenant.reason or tenant.state.value,
                }
                for tenant in tenants.listed(services.store)
            ]
    show_rows(rows, ("part", "runs", "detail"), form)
    if not all(row["runs"] or row["detail"] == "stopped" for row in rows):
        raise typer.Exit(1)


def doctor(form: FormOption = Form.TABLE) -> None:
    """Repeat every check of set-up and look at what runs; each problem with its cause and cure."""
    from orchestrator.setup.options import SetupOptions
    from orchestrator.setup.plan import facts
    from orchestrator.wiring.changes import credential_results

    settings = session.settings()
    results = facts(SetupOptions(Places(settings.var), disk_bytes=settings.disk, images=settings.images.image_set()))
    results += credential_results(settings)
    if form is Form.JSON:
        write_json(results)
    else:
        for one in results:
            write(f"ok    {one.name}  {one.note}".rstrip() if one.ok else f"FAIL  {one.name}: {one.cause}")
            if not one.ok:
                write(f"      cure: {one.cure}")
    if not all(one.ok for one in results):
        raise typer.Exit(1)


def serve() -> None:
    """Serve the API, the console and the sign-in check in the foreground, and keep what should run running."""
    from orchestrator.api import server
    from orchestrator.web.pages import create_console
    from orchestrator.wiring.build import build
    from orchestrator.wiring.drivers import make_drivers
    from orchestrator.wiring.installation import Installation
    from orchestrator.wiring.keeper import WATCH_EVERY_S, Keeper

    settings = session.settings()
    logs.configure(level=settings.log_level, as_json=True)
    with processes.only_one(settings, "serve"):
        Installation(make_drivers(settings)).ensure()
        services = build(settings)
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
            server.serve(create_console(services), settings)
        finally:
            keeper.stop()
            watcher.stop()
            services.close()


def schedule() -> None:
    """Run the schedule and its jobs in the foreground: snapshots, refreshes, publishing, pruning."""
    from orchestrator.scheduler.start import make_scheduler
    from orchestrator.wiring.build import build

    settings = session.settings()
    logs.configure(level=settings.log_level, as_json=True)
    with processes.only_one(settings, "schedule"):
        services = build(settings)
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        try:
            make_scheduler(services).run(stop)
        finally:
            services.close()
