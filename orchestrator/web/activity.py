"""What was done in a workspace, by the agent or by people, in sentences."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response

from orchestrator.core.access import Scope
from orchestrator.core.allowlist.texts import shown_argv
from orchestrator.core.commands import Command, CommandState
from orchestrator.errors import InvalidInput
from orchestrator.store import commands
from orchestrator.web.visit import Visit, reading
from orchestrator.web.wording import duration, many

router = APIRouter(prefix="/workspaces/{name}/activity", include_in_schema=False)
LISTED = 50
ASKS = ("select", "with", "values", "table", "show", "explain")
VERBS = {
    "query": "asked the database",
    "git": "worked with git",
    "cat": "read files",
    "head": "read files",
    "tail": "read files",
    "ls": "looked at a directory",
    "find": "searched for files",
    "grep": "searched in files",
    "rm": "deleted files",
    "sed": "edited text",
    "python3": "ran Python",
}
ENDS = {
    CommandState.RUNNING: "it runs now",
    CommandState.DENIED: "it was not allowed",
    CommandState.FAILED: "it could not be run",
    CommandState.CANCELLED: "somebody stopped it",
    CommandState.TIMED_OUT: "it took too long and was stopped",
    CommandState.STOPPED: "it went over a limit and was stopped",
    CommandState.INTERRUPTED: "it was cut off",
}


@router.get("")
def show(
    name: str,
    visit: Annotated[Visit, reading(Scope.COMMANDS_READ)],
    before: Annotated[str, Query(max_length=40)] = "",
    state: Annotated[str, Query(max_length=20)] = "",
) -> Response:
    """The newest first; output is fetched when somebody wants to see it."""
    tenant = visit.tenant(name)
    found = commands.listed(
        visit.services.store,
        tenant_ids=[tenant.id],
        state=CommandState(state) if state in set(CommandState) else None,
        before=_moment(before),
        limit=LISTED + 1,
    )
    return visit.show(
        "activity/list.html",
        tenant=tenant,
        entries=[(one, sentence(one), what(one)) for one in found[:LISTED]],
        older=found[LISTED - 1].created_at.isoformat() if len(found) > LISTED else "",
        state=state,
    )


def _moment(text: str) -> datetime | None:
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError:
        raise InvalidInput("This is no moment in time.", effect="Nothing was looked up.") from None
    if found.tzinfo is None:
        raise InvalidInput("This moment lacks its time zone.", effect="Nothing was looked up.")
    return found


def what(command: Command) -> str:
    """What was asked for as people read it: a question to the database is its SQL, the rest the command itself."""
    if command.argv[:1] == ("query",) and len(command.argv) > 1:
        return command.argv[-1]
    return shown_argv(command.argv)


def _is_query(command: Command) -> bool:
    return len(command.argv) > 1 and command.argv[0].rsplit("/", 1)[-1] == "query"


def _verb(command: Command) -> str:
    program = command.argv[0].rsplit("/", 1)[-1] if command.argv else ""
    if _is_query(command) and not command.argv[-1].lstrip(" (\n").lower().startswith(ASKS):
        return "worked on the database"
    return VERBS.get(program, "ran a command")


def sentence(command: Command) -> str:
    """`The agent pricing asked the database; it worked (12 ms).`"""
    who = f"The agent {command.actor.name}" if command.actor.is_agent else command.actor.name
    verb = _verb(command)
    if command.state is CommandState.DENIED:
        return f"{who} wanted to run a command; {ENDS[command.state]}."
    if command.state is CommandState.FINISHED:
        refused = "the database refused it" if _is_query(command) else f"it ended with code {command.exit_code}"
        end = "it worked" if command.exit_code == 0 else refused
    else:
        end = ENDS.get(command.state, command.state.value)
    spent = f" ({duration(command.duration_ms / 1000)})" if command.duration_ms is not None else ""
    changed = f", {many(len(command.changed_paths), 'file')} changed" if command.changed_paths else ""
    return f"{who} {verb}; {end}{spent}{changed}."
