"""SQL migrations of a change: split into statements, refused by name when a transaction cannot hold them, run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import psycopg
from psycopg import sql

from orchestrator.core.ports.production import MigrationRefused
from orchestrator.core.promotion.order import Migration
from orchestrator.drivers.postgres.apply.session import (
    PASSING,
    Session,
    is_lost,
    use_default_search_path,
)

# What ends or splits the transaction, leaves the database, or changes who we are. The server refuses some of it
# itself; COMMIT it would obey.
_REFUSED = re.compile(
    r"(?ix)^(?:"
    r"BEGIN|START\s+TRANSACTION|COMMIT|END|ROLLBACK|ABORT|SAVEPOINT|RELEASE|PREPARE\s+TRANSACTION"
    r"|VACUUM|ALTER\s+SYSTEM|CREATE\s+DATABASE|DROP\s+DATABASE|CREATE\s+TABLESPACE|DROP\s+TABLESPACE"
    r"|CREATE\s+(?:UNIQUE\s+)?INDEX\s+CONCURRENTLY|DROP\s+INDEX\s+CONCURRENTLY|REINDEX\s.*CONCURRENTLY"
    r"|REFRESH\s+MATERIALIZED\s+VIEW\s+CONCURRENTLY|ALTER\s+TABLE\s.*DETACH\s+PARTITION\s.*CONCURRENTLY"
    r"|CREATE\s+SUBSCRIPTION|DROP\s+SUBSCRIPTION|ALTER\s+SUBSCRIPTION|CREATE\s+ROLE|CREATE\s+USER|CREATE\s+GROUP"
    r"|ALTER\s+ROLE|ALTER\s+USER|DROP\s+ROLE|DROP\s+USER|DROP\s+OWNED|REASSIGN\s+OWNED|LOAD|COPY|CLUSTER|CHECKPOINT"
    r"|SET\s+(?:LOCAL\s+|SESSION\s+)?(?:ROLE|SESSION\s+AUTHORIZATION|TRANSACTION|search_path|row_security|\S*timeout)"
    r"|RESET|DISCARD|LISTEN|NOTIFY|UNLISTEN|DECLARE"
    r")\b"
)
_BACKSLASH = re.compile(r"(?m)^\s*\\")
_TOKEN = re.compile(
    r"""(?x)
    (?P<line>--[^\n]*)
  | (?P<block>/\*)
  | (?P<escape>[eE]'(?:[^'\\]|\\.|'')*')
  | (?P<string>'(?:[^']|'')*')
  | (?P<name>"(?:[^"]|"")*")
  | (?P<dollar>\$(?:[A-Za-z_][A-Za-z_0-9]*)?\$)
  | (?P<word>[A-Za-z_][A-Za-z_0-9$]*)
  | (?P<end>;)
  | (?P<other>.)
    """,
    re.DOTALL,
)
_ATOMIC = re.compile(r"(?i)\bBEGIN\s+ATOMIC\b")


def statements(text: str) -> Iterator[str]:
    """The statements of a file, without leading comments; what quotes and comments enclose never splits one."""
    start = position = 0
    depth = 0  # BEGIN ATOMIC … END of SQL-standard functions
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            break
        position = match.end()
        if match.lastgroup == "block":
            position = _after_comment(text, position)
        elif match.lastgroup == "dollar":
            closing = text.find(match.group(), position)
            position = len(text) if closing < 0 else closing + len(match.group())
        elif match.lastgroup == "word":
            depth = _depth(match.group().upper(), text[start:position], depth)
        elif match.lastgroup == "end" and depth == 0:
            yield from _statement(text[start : match.start()])
            start = position
    yield from _statement(text[start:])


def _depth(word: str, so_far: str, depth: int) -> int:
    if depth == 0:
        return 1 if word == "ATOMIC" and _ATOMIC.search(so_far) else 0
    if word == "CASE":
        return depth + 1
    return depth - 1 if word == "END" else depth


def _after_comment(text: str, position: int) -> int:
    depth = 1
    for match in re.compile(r"/\*|\*/").finditer(text, position):
        depth += 1 if match.group() == "/*" else -1
        if depth == 0:
            return match.end()
    return len(text)


def _statement(text: str) -> Iterator[str]:
    bare = _without_leading_comments(text)
    if bare:
        yield bare


def _without_leading_comments(text: str) -> str:
    text = text.strip()
    while text.startswith(("--", "/*")):
        is_line = text.startswith("--")
        text = (text.partition("\n")[2] if is_line else text[_after_comment(text, 2) :]).strip()
    return text


def check(migration: Migration) -> list[str]:
    """The file's statements. Raises MigrationRefused, naming the file, the statement and why."""
    if _BACKSLASH.search(migration.text):
        raise _refused(migration, 1, "a psql command (a line that starts with a backslash)")
    found = list(statements(migration.text))
    for number, statement in enumerate(found, 1):
        words = " ".join(_without_inner_comments(statement).split())[:400]
        match = _REFUSED.match(words)
        if match:
            raise _refused(migration, number, match.group().upper()[:60])
    return found


def _without_inner_comments(statement: str) -> str:
    return re.sub(r"--[^\n]*|/\*.*?\*/", " ", statement, flags=re.DOTALL)


def _refused(migration: Migration, number: int, what: str) -> MigrationRefused:
    return MigrationRefused(
        f"{migration.path}: statement {number} is {what}, which cannot run inside the promote's transaction.",
        effect="Nothing was written.",
        next_step="Rewrite the migration, or run that statement by hand before promoting.",
        path=migration.path,
        statement=number,
    )


def run(session: Session, migrations: Sequence[Migration], *, role: str = "") -> list[str]:
    """Run the files in path order in the open transaction, under the role's own search path.

    `role` is taken for them alone: whoever may write rows need not own the tables. The caller pins its settings
    again afterwards. Raises MigrationRefused with the server's message.
    """
    ordered = sorted(migrations, key=lambda item: item.path)
    checked = [(migration, check(migration)) for migration in ordered]
    if not checked:
        return []
    transaction = session.text("SELECT pg_catalog.pg_current_xact_id()")
    use_default_search_path(session)
    if role:
        session.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
    for migration, found in checked:
        for number, statement in enumerate(found, 1):
            try:
                session.script(statement)
            except PASSING:
                raise
            except psycopg.Error as error:
                if is_lost(session, error):
                    raise
                raise MigrationRefused(
                    f"{migration.path}: statement {number} failed: {error.diag.message_primary or error}",
                    effect="Nothing was written.",
                    next_step="Correct the migration in the branch and submit the change again.",
                    path=migration.path,
                    statement=number,
                ) from error
        if session.text("SELECT pg_catalog.pg_current_xact_id()") != transaction:
            raise _refused(migration, len(found), "a statement that ended the transaction")
    if role:
        session.execute("SET LOCAL ROLE NONE")
    return [migration.path for migration, _ in checked]
