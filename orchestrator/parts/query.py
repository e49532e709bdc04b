"""A query on a tenant's live database, and its result as the text a command prints."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator import logs
from orchestrator.core.allowlist.texts import shown
from orchestrator.core.names import TenantNames
from orchestrator.core.places import Places
from orchestrator.core.ports.queries import Cancelling, Queries, QueryFailed, QueryLimits, QueryResult, QueryTarget
from orchestrator.core.ports.servers import APP_DATABASE, WATCHDOG_ROLE, Servers
from orchestrator.core.tenants import Tenant

LOG = logs.get("query")
PORT = 5432
ASKED_EVERY_S = 0.5
CELL_SHOWN_MAX = 80


@dataclass(frozen=True)
class QueryArguments:
    """What the `query` command was asked for."""

    statement: str
    dry_run: bool = False
    format: str = "table"
    rows: int = 1_000


@dataclass
class QueryPart:
    """Runs statements by way of the tenant's pool; `password` is the tenant's own there.

    `is_to_cancel` says whether any process has left word that a command is to be stopped.
    """

    queries: Queries
    servers: Servers
    places: Places
    instance: str
    password: Callable[[Tenant], str]
    live_id: Callable[[str], str | None]
    is_to_cancel: Callable[[str], bool]
    _running: dict[str, Cancelling] = field(default_factory=dict)
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    def run(self, tenant: Tenant, command_id: str, arguments: QueryArguments, *, limits: QueryLimits) -> QueryResult:
        """Raises QueryFailed when the database cannot be reached."""
        names = TenantNames(self.instance, tenant.id, tenant.name)
        target = QueryTarget(
            sockets=self.places.pool_sockets(tenant.id),
            port=PORT,
            role=names.role,
            database=APP_DATABASE,
            password=self.password(tenant),
            watchdog_dsn=lambda: self._watchdog_dsn(tenant.id),
        )
        ended = threading.Event()
        try:
            return self.queries.run(
                target,
                arguments.statement,
                dry_run=arguments.dry_run,
                limits=limits,
                started=lambda cancel: self._remember(command_id, cancel, ended),
            )
        finally:
            ended.set()
            with self._mutex:
                self._running.pop(command_id, None)

    def cancel(self, command_id: str) -> bool:
        """Stop a query of this process; False when it does not run here."""
        with self._mutex:
            cancel = self._running.get(command_id)
        if cancel is None:
            return False
        cancel()
        return True

    def _remember(self, command_id: str, cancel: Cancelling, ended: threading.Event) -> None:
        with self._mutex:
            self._running[command_id] = cancel
        # A short statement is over before anybody looks; the watchdog bounds how long this goes on.
        watching = (command_id, cancel, ended)
        threading.Thread(target=self._listen, args=watching, daemon=True, name=f"cancel-{command_id}").start()

    def _listen(self, command_id: str, cancel: Cancelling, ended: threading.Event) -> None:
        """Stop it when another process was asked to."""
        while not ended.wait(ASKED_EVERY_S):
            try:
                if self.is_to_cancel(command_id):
                    return cancel()
            except Exception as problem:  # the control database may be away for a moment; the time limit stays
                LOG.warning("query.cannot_listen", command=command_id, problem=type(problem).__name__)

    def _watchdog_dsn(self, tenant_id: str) -> str:
        live = self.live_id(tenant_id)
        if live is None:
            raise QueryFailed("The tenant has no live database.")
        sockets = self.places.database_sockets(tenant_id, live)
        return self.servers.dsn(sockets, user=WATCHDOG_ROLE, database=APP_DATABASE)


def parse(argv: tuple[str, ...]) -> QueryArguments:
    """The arguments of an argv that the allowlist has let through."""
    values: dict[str, str] = {}
    dry_run, statement, position = False, "", 1
    while position < len(argv):
        token = argv[position]
        if token == "--":  # noqa: S105
            statement = " ".join(argv[position + 1 :])
            break
        if token == "--dry-run":  # noqa: S105
            dry_run = True
        elif token in ("--format", "--rows") and position + 1 < len(argv):
            position += 1
            values[token] = argv[position]
        else:
            statement = token
        position += 1
    rows = int(values.get("--rows", "1000"))
    return QueryArguments(statement, dry_run, values.get("--format", "table"), rows)


def argv_of(arguments: QueryArguments) -> tuple[str, ...]:
    """The argv that asks for this: what the gate decides on when a query comes over the API."""
    flags = ["--dry-run"] if arguments.dry_run else []
    return ("query", *flags, "--format", arguments.format, "--rows", str(arguments.rows), "--", arguments.statement)


def printed(result: QueryResult, style: str) -> str:
    """The rows as the command's standard output."""
    if not result.columns:
        return f"{result.tag}\n" if result.tag else ""
    if style == "csv":
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(result.columns)
        writer.writerows(["" if cell is None else cell for cell in row] for row in result.rows)
        return out.getvalue()
    if style == "json":
        rows = [dict(zip(result.columns, row, strict=True)) for row in result.rows]
        return json.dumps(rows, ensure_ascii=False) + "\n"
    return _table(result)


def remarks(result: QueryResult) -> str:
    """What the command says on standard error: the error, or what a person has to know about the rows."""
    lines = []
    if result.error is not None:
        where = f" at character {result.error.position}" if result.error.position else ""
        lines.append(f"error {result.error.sqlstate}{where}: {result.error.message}")
        lines += [text for text in (result.error.detail, result.error.hint) if text]
    if result.stopped_by:
        lines.append(f"stopped by its limit: {result.stopped_by}; nothing was kept")
    if result.truncated:
        lines.append(f"{len(result.rows)} of {result.row_count} rows shown")
    if result.dry_run and result.error is None:
        lines.append(f"dry run: {result.tag}, rolled back, nothing was kept")
    return "".join(f"{line}\n" for line in lines)


def _table(result: QueryResult) -> str:
    head = [shown(name) for name in result.columns]
    body = [["NULL" if cell is None else _short(cell) for cell in row] for row in result.rows]
    widths = [max(len(row[column]) for row in [head, *body]) for column in range(len(head))]
    lines = [" | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in [head, *body]]
    lines.insert(1, "-+-".join("-" * width for width in widths))
    return "".join(f"{line.rstrip()}\n" for line in lines) + f"({result.row_count} rows)\n"


def _short(cell: str) -> str:
    text = shown(cell)
    return text if len(text) <= CELL_SHOWN_MAX else text[: CELL_SHOWN_MAX - 1] + "…"
