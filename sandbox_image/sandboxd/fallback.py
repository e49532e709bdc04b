"""The page visitors of one tenant see while that tenant's app is broken: its traceback.

A forked process in a domain without any file, on the same listening socket; it answers and knows nothing else.
"""

from __future__ import annotations

import gc
import os
import signal
import socket

from . import kernel
from .domain import Domain

_REQUEST_BYTES_MAX = 16 * 1024
_CLIENT_WAIT_S = 2.0

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>The app does not start</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta http-equiv="refresh" content="3">
<style>
:root {{ color-scheme: light dark; --ink: #1c2430; --paper: #f6f7f9; --card: #fff; --edge: #d9dee6; --accent: #b3261e }}
@media (prefers-color-scheme: dark) {{ :root {{
  --ink: #e6e9ee; --paper: #14181f; --card: #1c222c; --edge: #323b49;
  --accent: #ff8a80 }} }}
body {{ margin: 0; font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper) }}
main {{ max-width: 60rem; margin: 3rem auto; padding: 0 1.25rem }}
h1 {{ font-size: 1.5rem; margin: 0 0 .5rem; color: var(--accent) }}
pre {{ background: var(--card); border: 1px solid var(--edge); border-radius: .5rem; padding: 1rem;
   overflow: auto; font-size: .875rem }}
</style></head><body><main>
<h1>This copy of the app does not start</h1>
<p>Only this workspace is affected: production and every other copy keep running. The page reloads by itself as soon
as the files change. This is what the app printed last:</p>
<pre>{error}</pre>
</main></body></html>
"""


def _escaped(text: str) -> str:
    for character, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(character, name)
    return text


def page(error: str) -> bytes:
    """A complete HTTP response with the escaped text in it."""
    body = _PAGE.format(error=_escaped(error or "Nothing.")).encode("utf-8", "replace")
    head = (
        "HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/html; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n"
        "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\n"
        "X-Content-Type-Options: nosniff\r\n\r\n"
    )
    return head.encode() + body


def start(listener: int, error: str, abi: int) -> int:
    """Fork the server on the listening socket `listener`; returns its pid. Raises OSError."""
    response = page(error)
    pid = os.fork()
    if pid == 0:
        try:
            _serve(listener, response, abi)
        finally:
            os._exit(70)
    return pid


def _serve(listener: int, response: bytes, abi: int) -> None:
    gc.disable()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    os.dup2(listener, 3)
    os.closerange(4, 1 << 20)
    domain = Domain(abi)
    kernel.set_no_new_privileges()
    domain.enter()
    domain.close()
    server = socket.socket(fileno=3)
    server.setblocking(True)
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            continue
        with client:
            try:
                _answer(client, response)
            except OSError:
                continue


def _answer(client: socket.socket, response: bytes) -> None:
    client.settimeout(_CLIENT_WAIT_S)
    request = b""
    while b"\r\n\r\n" not in request and len(request) < _REQUEST_BYTES_MAX:
        data = client.recv(4096)
        if not data:
            return
        request += data
    client.sendall(response)
    client.shutdown(socket.SHUT_WR)
