"""The tenant's app runs under the same rule, comes back by itself, and breaks for its own visitors alone."""

from __future__ import annotations

import pytest

from orchestrator.core.ports.sandboxd import (
    Access,
    AppSpec,
    AppState,
    CommandLimits,
    PathGrant,
    ProgramNotListed,
    SandboxRequestInvalid,
)
from tests.support.processes import eventually
from tests.support.sandbox import ENVIRONMENT, Sandbox

pytestmark = pytest.mark.engine

APP = """
import os, signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
import message
server = socket.socket(fileno=3)
server.setblocking(True)
print('serving', flush=True)
while True:
    client, _ = server.accept()
    client.recv(4096)
    body = message.TEXT.encode()
    client.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n' % len(body) + body)
    client.close()
"""
ASK = """
import socket
caller = socket.create_connection(('127.0.0.1', 8000), 60)
caller.sendall(b'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')
data = b''
while part := caller.recv(65536):
    data += part
print(data.decode())
"""
SPEC = AppSpec(argv=("/usr/bin/python3", "app.py"), environment={**ENVIRONMENT, "PYTHONDONTWRITEBYTECODE": "1"})


def write(sandbox: Sandbox, name: str, text: str) -> None:
    script = "import sys; open(sys.argv[1], 'w').write(sys.stdin.read())"
    ran = sandbox.python(script, name, stdin=text.encode(), limits=CommandLimits(wall_s=60))
    assert ran.exited.exit_code == 0, ran.text


def ask(sandbox: Sandbox) -> str:
    """What a visitor gets; never refused, however the app is doing."""
    ran = sandbox.python(ASK, tcp_connect=(8000,))
    assert ran.exited.exit_code == 0, ran.text
    return ran.stdout.decode()


@pytest.fixture
def served(sandbox: Sandbox) -> Sandbox:
    write(sandbox, "message.py", "TEXT = 'one'")
    write(sandbox, "app.py", APP)
    sandbox.client.start_app(SPEC)
    assert "one" in ask(sandbox)
    return sandbox


def test_the_app_answers_and_says_that_it_runs(served: Sandbox) -> None:
    assert eventually(lambda: served.client.app().state is AppState.RUNNING)
    status = served.client.app()
    assert status.pid is not None
    assert status.started_at is not None
    assert "serving" in served.client.app_log()


def test_an_edit_is_visible_and_nobody_is_refused_meanwhile(served: Sandbox) -> None:
    write(served, "message.py", "TEXT = 'two'")
    assert eventually(lambda: "two" in ask(served))
    assert served.client.app().restarts >= 1


def test_broken_code_shows_its_traceback_until_it_is_mended(served: Sandbox) -> None:
    write(served, "message.py", "TEXT = <b>undefined")
    assert eventually(lambda: "does not start" in ask(served))
    page = ask(served)
    assert "500 Internal Server Error" in page
    assert "SyntaxError" in page
    assert "&lt;b&gt;" in page
    assert "<b>undefined" not in page
    status = served.client.app()
    assert status.state in (AppState.BROKEN, AppState.STARTING)
    write(served, "message.py", "TEXT = 'mended'")
    assert eventually(lambda: "mended" in ask(served))
    assert served.client.app().error == ""


def test_an_app_that_dies_is_started_again(served: Sandbox) -> None:
    write(served, "message.py", "import os, pathlib\nif not pathlib.Path('/tmp/once').exists():\n"
          "    pathlib.Path('/tmp/once').touch(); os._exit(5)\nTEXT = 'again'")  # fmt: skip
    assert eventually(lambda: "again" in ask(served))


def test_stop_closes_the_port_and_start_opens_it(served: Sandbox) -> None:
    served.client.stop_app()
    assert eventually(lambda: served.client.app().pid is None)
    assert served.client.app().state is AppState.STOPPED
    assert b"ConnectionRefusedError" in served.python(ASK, tcp_connect=(8000,)).stderr
    served.client.start_app(SPEC)
    assert "one" in ask(served)


def test_restart_gives_a_new_process(served: Sandbox) -> None:
    before = served.client.app().pid
    served.client.restart_app()
    assert eventually(lambda: served.client.app().pid not in (None, before))
    assert "one" in ask(served)


def test_the_app_can_start_nothing_and_write_nowhere_it_was_not_given(sandbox: Sandbox) -> None:
    write(sandbox, "message.py", """
import subprocess
said = []
for argv in (['/usr/bin/id'], ['/bin/sh', '-c', 'id'], ['/usr/bin/cat', 'app.py']):
    try:
        subprocess.run(argv); said.append('ran')
    except PermissionError:
        said.append('refused')
for path in ('/workspace/written', '/run/sandboxd/x', '/etc/x'):
    try:
        open(path, 'w'); said.append('written')
    except OSError:
        said.append('refused')
TEXT = ' '.join(said)
""")  # fmt: skip
    write(sandbox, "app.py", APP)
    sandbox.client.start_app(SPEC)
    assert "refused refused refused refused refused refused" in ask(sandbox)


def test_a_command_cannot_touch_the_apps_process(served: Sandbox) -> None:
    pid = served.client.app().pid
    ran = served.python(f"import os; os.kill({pid}, 9)")
    assert b"PermissionError" in ran.stderr
    assert "one" in ask(served)


def test_an_app_that_binds_its_own_port(sandbox: Sandbox) -> None:
    own = APP.replace(
        "server = socket.socket(fileno=3)",
        "server = socket.socket(); server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1);"
        " server.bind(('127.0.0.1', 8000)); server.listen()",
    )
    write(sandbox, "message.py", "TEXT = 'own'")
    write(sandbox, "app.py", own)
    sandbox.client.start_app(AppSpec(argv=SPEC.argv, environment=SPEC.environment, pass_socket=False))
    assert eventually(lambda: "own" in sandbox.python(ASK, tcp_connect=(8000,)).text)


def test_an_app_that_is_not_listed_does_not_start(sandbox: Sandbox) -> None:
    with pytest.raises(ProgramNotListed):
        sandbox.client.start_app(AppSpec(argv=("/usr/bin/perl", "-e", "1")))


def test_an_app_with_a_grant_too_wide_does_not_start(sandbox: Sandbox) -> None:
    with pytest.raises(SandboxRequestInvalid):
        sandbox.client.start_app(AppSpec(argv=SPEC.argv, grants=(PathGrant("/", Access.READ),)))
