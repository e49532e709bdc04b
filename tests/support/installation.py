"""One running installation for every journey: set up, brought up with the demo, taken down at the end."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from orchestrator import config
from orchestrator.config import PROJECT, Settings
from orchestrator.core.places import Places
from orchestrator.setup.options import SetupOptions
from orchestrator.setup.plan import remove
from orchestrator.wiring.build import build
from orchestrator.wiring.services import Services
from tests.support.engine import start_engine

SLOTS = 8  # test runs at once on one machine
PATIENCE_S = 400
REDIRECTS_MAX = 8


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    text: str
    url: str

    def json(self) -> Any:
        return json.loads(self.text)


@dataclass
class Browser:
    """Cookies by host, redirects followed, every name resolved to the proxy: what a person's browser does."""

    port: int
    jar: dict[str, dict[str, str]] = field(default_factory=dict)

    def ask(
        self,
        method: str,
        url: str,
        *,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        follow: bool = True,
    ) -> Answer:
        for _ in range(REDIRECTS_MAX):
            answer = self._once(method, url, body, headers or {})
            location = answer.headers.get("location")
            if not follow or answer.status not in (301, 302, 303, 307) or not location:
                return answer
            parts = urlsplit(url)
            url = location if "://" in location else f"{parts.scheme}://{parts.netloc}{location}"
            if answer.status in (301, 302, 303):
                method, body = "GET", None
        raise AssertionError(f"redirected in circles at {url}")

    def get(self, url: str, **rest: Any) -> Answer:
        return self.ask("GET", url, **{"headers": {"Accept": "text/html"}, **rest})

    def send(self, method: str, url: str, document: Any, **headers: str) -> Answer:
        """JSON to the API."""
        return self.ask(method, url, body=json.dumps(document), headers={"Content-Type": "application/json", **headers})

    def _once(self, method: str, url: str, body: bytes | str | None, headers: Mapping[str, str]) -> Answer:
        parts = urlsplit(url)
        host = parts.hostname or ""
        kept = "; ".join(f"{name}={value}" for name, value in self.jar.get(host, {}).items())
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            sent = {"Host": parts.netloc, **({"Cookie": kept} if kept else {}), **headers}
            if method not in ("GET", "HEAD") and kept:
                sent.setdefault("Origin", f"{parts.scheme}://{parts.netloc}")
            connection.request(method, path, body=body, headers=sent)
            response = connection.getresponse()
            text = response.read().decode("utf-8", "replace")
            for line in response.headers.get_all("Set-Cookie") or []:
                for name, morsel in SimpleCookie(line).items():
                    self.jar.setdefault(host, {})[name] = morsel.value
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, text, url)
        finally:
            connection.close()


@dataclass(frozen=True)
class Running:
    """The installation: by its command line, its hostnames, and its services in this process."""

    settings: Settings
    services: Services
    demo: Mapping[str, Any]

    @property
    def console(self) -> str:
        return str(self.demo["console"])

    def address(self, tenant: str) -> str:
        return self.settings.proxy.address(f"{tenant}.{self.settings.proxy.domain}")

    def password(self, name: str) -> str:
        return next(str(one["password"]) for one in self.demo["sign_ins"] if one["name"] == name)

    def browser(self, name: str = "") -> Browser:
        """A fresh browser, signed in as `name` where one is given."""
        made = Browser(self.settings.proxy.port)
        if name:
            document = {"name": name, "password": self.password(name)}
            answer = made.send("POST", f"{self.console}/api/v1/session", document)
            assert answer.status == 201, answer.text
        return made

    def run(self, *arguments: str, expect: int = 0, stdin: str = "") -> str:
        """The command line; standard output. Its words on failure are shown when the exit code is not `expect`."""
        return command(self.settings.directory, *arguments, expect=expect, stdin=stdin)

    def remarks(self, *arguments: str, expect: int = 0) -> str:
        """What the command line says beside its output: standard error."""
        return _ended(self.settings.directory, *arguments, expect=expect).stderr

    def json(self, *arguments: str, expect: int = 0) -> Any:
        return json.loads(self.run(*arguments, "-o", "json", expect=expect))


def command(directory: Path, *arguments: str, expect: int = 0, stdin: str = "") -> str:
    """Standard output."""
    return _ended(directory, *arguments, expect=expect, stdin=stdin).stdout


def _ended(directory: Path, *arguments: str, expect: int, stdin: str = "") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", *arguments],
        env={**os.environ, "ORCHESTRATOR_CONFIGS": str(directory)},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        cwd="/",
    )
    shown = f"orchestrator {' '.join(arguments)}: exit {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    assert done.returncode == expect, shown
    return done


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def configured(root: Path, instance: str, *, plan: str) -> Path:
    """A copy of the shipped configuration that stands beside any other installation on this machine."""
    directory = root / "configs"
    shutil.copytree(PROJECT / "configs", directory)
    shutil.copytree(PROJECT / "cron", root / "cron")
    main = directory / "orchestrator.yaml"
    values = yaml.safe_load(main.read_text()) or {}
    values["instance"] = instance
    values["disk"] = "24 GiB"
    # On a busy machine a short transaction may take long, and none may be ended for that.
    values["refresh"] = {**(values.get("refresh") or {}), "patience": "60 s"}
    values["proxy"] = {**(values.get("proxy") or {}), "port": free_port()}
    values["api"] = {**(values.get("api") or {}), "port": free_port(), "edge_port": free_port()}
    main.write_text(yaml.safe_dump(values))
    limits = directory / "limits.yaml"
    sizes = yaml.safe_load(limits.read_text())
    sizes["profiles"]["giant"] = {"sandbox": {"memory": "1 TiB"}}  # more than any machine of ours has
    limits.write_text(yaml.safe_dump(sizes))
    networks = directory / "networks.yaml"
    networks.write_text(re.sub(r"(?m)^plan:.*$", f"plan: {plan}", networks.read_text()))
    return directory


@contextmanager
def running() -> Iterator[Running]:
    """Set it up, bring it up with the demo, and delete everything of it at the end, whatever happens."""
    with free_slot("trips") as slot:
        root = Path(f"/tmp/orchestrator-trips-{slot}")  # short: socket paths must stay under 108 bytes
        yield from _running(f"trips{slot}", plan=f"10.{215 + slot}.0.0/16", root=root)


@contextmanager
def free_slot(purpose: str) -> Iterator[int]:
    """A number no other test run on this machine has for the same purpose: for addresses and names."""
    for slot in range(SLOTS):
        with Path(f"/tmp/orchestrator-{purpose}-{slot}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield slot
            return
    raise AssertionError(f"more than {SLOTS} test runs at once on this machine")


def _running(instance: str, *, plan: str, root: Path) -> Iterator[Running]:
    delete(root)
    root.mkdir(parents=True)
    directory = configured(root, instance, plan=plan)
    try:
        setup(directory)
        demo = json.loads(command(directory, "demo", "-o", "json"))
        settings = config.load(directory, environment={})
        services = build(settings)
        try:
            yield Running(settings, services, demo)
        finally:
            services.close()
    finally:
        delete(root)


def setup(directory: Path, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator.setup", *arguments],
        env={**os.environ, "ORCHESTRATOR_CONFIGS": str(directory)},
        capture_output=True,
        text=True,
        timeout=900,
        cwd="/",
    )
    assert done.returncode == 0, done.stdout + done.stderr


def delete(root: Path) -> None:
    """Also what a run that was killed has left, of whatever version its configuration is.

    Whatever the product's own commands leave is removed by label; what stays all the same is an error, and keeps
    the configuration, which tells whose it is.
    """
    directory = root / "configs"
    if (directory / "orchestrator.yaml").exists():
        start_engine()
        environment = {**os.environ, "ORCHESTRATOR_CONFIGS": str(directory)}
        said = _tried(["orchestrator.setup", "--remove", "--keep-images", "--yes"], environment)
        if said:
            sys.stderr.write(f"{root}: {said}\n")
        instance = str((yaml.safe_load((directory / "orchestrator.yaml").read_text()) or {}).get("instance", "orc"))
        delete_directly(instance, root / "var")
    shutil.rmtree(root, ignore_errors=True)


def delete_directly(instance: str, var: Path) -> None:
    """End its processes, remove everything with its label, unmount its volume. Raises what cannot be removed."""
    remove(SetupOptions(Places(var), instance=instance), lambda _: None, keep_images=True)


def _tried(arguments: list[str], environment: Mapping[str, str]) -> str:
    """Run a module of ours; what it said when it failed, nothing when it did not."""
    shown = " ".join(arguments)
    argv = [sys.executable, "-m", *arguments]
    try:
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=300, cwd="/", check=False)
    except subprocess.TimeoutExpired as error:
        return f"{shown}: longer than {error.timeout:.0f} s"
    return f"{shown}: exit {done.returncode}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}" if done.returncode else ""
