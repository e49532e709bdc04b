"""Routes against the real Traefik, run from its wheel as a plain process on loopback addresses."""

from __future__ import annotations

import http.server
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from orchestrator.core.ports.proxy import InvalidRoute, Route, RouteFailed
from orchestrator.drivers.traefik import documents
from orchestrator.drivers.traefik.documents import ProxyAddresses
from orchestrator.drivers.traefik.proxy import TraefikProxy

PATIENCE_S = 30.0


class Backend(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        guard = self.path == "/check"
        refused = guard and "let-me-in" not in self.headers.get("Cookie", "")
        self.send_response(401 if refused else 200)
        self.end_headers()
        self.wfile.write(b"no" if refused else b"hello")

    def log_message(self, *arguments: object) -> None:
        return


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def backend() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def proxy(tmp_path: Path, backend: str) -> Iterator[TraefikProxy]:
    addresses = ProxyAddresses("127.0.0.1", free_port(), free_port(), f"{backend}/check")
    made = TraefikProxy(tmp_path / "dynamic", addresses)
    made.prepare()
    static = tmp_path / "traefik.yaml"
    static.write_text(documents.text(documents.static(addresses, directory=str(tmp_path / "dynamic"))))
    program = Path(sys.executable).parent / "traefik"
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([program, f"--configFile={static}"], stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + PATIENCE_S
            while time.monotonic() < deadline:
                try:
                    made.live()
                    break
                except RouteFailed:
                    assert process.poll() is None, (tmp_path / "log").read_text()
                    time.sleep(0.05)
            yield made
        finally:
            process.kill()
            process.wait()


def ask(proxy: TraefikProxy, hostname: str, cookie: str = "") -> int:
    request = urllib.request.Request(
        f"http://127.0.0.1:{proxy._addresses.web_port}/", headers={"Host": hostname, "Cookie": cookie}
    )
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_a_route_is_served_once_confirmed_and_gone_once_withdrawn(proxy: TraefikProxy, backend: str) -> None:
    route = Route("console", "console.localhost", backend, is_guarded=False)
    proxy.publish(route)
    proxy.wait(route, timeout_s=PATIENCE_S)
    assert ask(proxy, "console.localhost") == 200
    assert ask(proxy, "other.localhost") == 404
    (live,) = [one for one in proxy.live() if one.id == "console"]
    assert (live.hostname, live.is_enabled) == ("console.localhost", True)
    proxy.withdraw("console")
    proxy.withdraw("console")
    proxy.wait_gone("console", timeout_s=PATIENCE_S)
    assert ask(proxy, "console.localhost") == 404
    assert proxy.published() == []


def test_a_tenant_is_served_only_past_the_sign_in_check(proxy: TraefikProxy, backend: str) -> None:
    route = Route("t1", "harbour.localhost", backend)
    proxy.publish(route)
    proxy.wait(route, timeout_s=PATIENCE_S)
    assert ask(proxy, "harbour.localhost") == 401
    assert ask(proxy, "harbour.localhost", cookie="pass=let-me-in") == 200


def test_a_route_that_moves_is_confirmed_at_its_new_backend(proxy: TraefikProxy, backend: str) -> None:
    for url in (f"http://127.0.0.1:{free_port()}", backend):
        route = Route("t1", "harbour.localhost", url, is_guarded=False)
        proxy.publish(route)
        proxy.wait(route, timeout_s=PATIENCE_S)
    assert ask(proxy, "harbour.localhost") == 200


def test_a_stopped_proxy_is_said_plainly(tmp_path: Path) -> None:
    lonely = TraefikProxy(tmp_path, ProxyAddresses("127.0.0.1", free_port(), free_port(), "http://127.0.0.1:1/"))
    with pytest.raises(RouteFailed, match="does not answer"):
        lonely.live()
    with pytest.raises(RouteFailed, match="did not appear"):
        lonely.wait(Route("a", "a.localhost", "http://127.0.0.1:1"), timeout_s=0.2)


@pytest.mark.parametrize(
    "route",
    [
        Route("t1", "a.localhost`) || Host(`b.localhost", "http://127.0.0.1:1"),
        Route("t1", "localhost", "http://127.0.0.1:1"),
        Route("t1", "UPPER.localhost", "http://127.0.0.1:1"),
        Route("t1", "a.localhost", "file:///etc/passwd"),
        Route("t1", "a.localhost", "http://user@127.0.0.1:1"),
        Route("t1", "a.localhost", "http://127.0.0.1:1/path"),
        Route("../t1", "a.localhost", "http://127.0.0.1:1"),
        Route("shared", "a.localhost", "http://127.0.0.1:1"),
    ],
)
def test_a_hostile_route_is_refused_before_anything_is_written(tmp_path: Path, route: Route) -> None:
    proxy = TraefikProxy(tmp_path, ProxyAddresses("127.0.0.1", 1, 2, "http://127.0.0.1:3/"))
    with pytest.raises(InvalidRoute):
        proxy.publish(route)
    assert list(tmp_path.iterdir()) == []


def test_documents_survive_yaml_and_are_never_empty() -> None:
    route = Route("t1", "harbour.localhost", "http://10.0.0.3:8000")
    assert yaml.safe_load(documents.text(documents.dynamic(route))) == documents.dynamic(route)
    with pytest.raises(InvalidRoute):
        documents.text({})
