"""Looking at one SQL statement without running it: is it one, and does it stay within its own transaction?

This is a courtesy (a clear refusal before anything is sent), not a boundary: the server takes one statement per
message in the extended protocol, the role has few rights, and a watchdog with another role ends what runs too long.
"""

from __future__ import annotations

import re

STATEMENT_BYTES_MAX = 65_536

# Session, transaction and server commands: they would outlive the statement or leave the dry run's rollback.
_REFUSED = {
    "abort": "ends the transaction",
    "begin": "starts a transaction",
    "checkpoint": "acts on the whole server",
    "close": "needs a session",
    "cluster": "cannot run here",
    "commit": "ends the transaction",
    "deallocate": "needs a session",
    "declare": "needs a session",
    "discard": "changes the session",
    "end": "ends the transaction",
    "execute": "needs a session",
    "fetch": "needs a session",
    "listen": "needs a session",
    "load": "loads code into the server",
    "lock": "needs a transaction of its own",
    "move": "needs a session",
    "notify": "needs a session",
    "prepare": "needs a session",
    "release": "changes the transaction",
    "reset": "changes the session's limits",
    "rollback": "ends the transaction",
    "savepoint": "changes the transaction",
    "set": "changes the session's limits",
    "start": "starts a transaction",
    "unlisten": "needs a session",
}
_REFUSED_PAIRS = {
    ("alter", "role"): "changes a role",
    ("alter", "user"): "changes a role",
    ("alter", "group"): "changes a role",
    ("alter", "system"): "changes the server",
    ("alter", "database"): "changes the database's settings",
    ("create", "role"): "makes a role",
    ("create", "user"): "makes a role",
    ("create", "group"): "makes a role",
    ("create", "database"): "makes a database",
    ("create", "tablespace"): "makes a tablespace",
    ("drop", "database"): "drops a database",
    ("drop", "role"): "drops a role",
    ("drop", "user"): "drops a role",
    ("drop", "owned"): "drops everything",
}
_TOKEN = re.compile(
    r"""
      (?P<blank>\s+)
    | (?P<line>--[^\n]*)
    | (?P<block>/\*)
    | (?P<dollar>\$(?:[A-Za-z_\x80-\uffff][A-Za-z0-9_\x80-\uffff]*)?\$)
    | (?P<escape>[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z))
    | (?P<string>(?:[bBxXnN]|[uU]&)?'(?:[^']|'')*(?:'|\Z))
    | (?P<quoted>(?:[uU]&)?"(?:[^"]|"")*(?:"|\Z))
    | (?P<word>[A-Za-z_\x80-\uffff][A-Za-z0-9_$\x80-\uffff]*)
    | (?P<number>\.?[0-9][0-9A-Za-z_.]*)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)


def statement_problem(text: str) -> str | None:
    """Why `text` may not be sent as one statement, None when it may."""
    if len(text.encode("utf-8", "replace")) > STATEMENT_BYTES_MAX:
        return f"is longer than {STATEMENT_BYTES_MAX} bytes"
    tokens = _tokens(text)
    if tokens is None:
        return "ends inside a comment or a quoted text"
    while tokens and tokens[-1] == ";":
        tokens.pop()
    if not tokens:
        return "holds no statement"
    # A function body in SQL-standard form may hold semicolons between BEGIN ATOMIC and END.
    if ";" in tokens and not ("begin" in tokens and "atomic" in tokens and tokens[0] == "create"):
        return "holds more than one statement"
    if tokens[0].startswith("\\"):
        return "is a command of another program, not SQL"
    return _refusal(tokens)


def first_word(text: str) -> str:
    """The statement's first word in lower case, as in `select`; empty when there is none."""
    tokens = _tokens(text) or []
    return next((token for token in tokens if token.isidentifier()), "")


def _refusal(tokens: list[str]) -> str | None:
    first = tokens[0]
    if first in _REFUSED:
        return f"is {first.upper()}, which {_REFUSED[first]}"
    pair = _REFUSED_PAIRS.get((first, tokens[1] if len(tokens) > 1 else ""))
    if pair is not None:
        return f"is {first.upper()} {tokens[1].upper()}, which {pair}"
    if first == "copy":
        return "is COPY, which needs a client of its own: use SELECT or INSERT"
    return None


def _tokens(text: str) -> list[str] | None:
    """Words in lower case and single characters; quoted texts become `''`; None when one of them never ends."""
    found: list[str] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return None
        kind, value = match.lastgroup, match.group()
        position = match.end()
        if kind == "block":
            end = _block_end(text, position)
            if end is None:
                return None
            position = end
        elif kind == "dollar":
            end = text.find(value, position)
            if end < 0:
                return None
            position = end + len(value)
            found.append("''")
        elif kind in ("string", "escape", "quoted"):
            mark = '"' if kind == "quoted" else "'"
            if len(value.lstrip("bBxXnNuUeE&")) < 2 or not value.endswith(mark):
                return None
            found.append("''" if kind != "quoted" else '""')
        elif kind == "word":
            found.append(value.lower())
        elif kind not in ("blank", "line"):
            found.append(value)
    return found


def _block_end(text: str, position: int) -> int | None:
    """Just behind the end of a block comment; they nest."""
    depth = 1
    for match in re.finditer(r"/\*|\*/", text[position:]):
        depth += 1 if match.group() == "/*" else -1
        if depth == 0:
            return position + match.end()
    return None
