"""The allowlist: what is in force, its versions, and an editor that shows the consequences before it saves."""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from orchestrator.core.access import Scope
from orchestrator.core.allowlist.errors import InvalidAllowlist
from orchestrator.core.allowlist.explain import Explanation, explain
from orchestrator.core.allowlist.load import Allowlist
from orchestrator.core.allowlist.request import CommandRequest, check_argv
from orchestrator.core.allowlist.texts import shown_argv
from orchestrator.core.policies import text_diff
from orchestrator.core.tenants import Tenant
from orchestrator.errors import InvalidInput, OrchestratorError
from orchestrator.flows.allowlist import Replay
from orchestrator.store import tenants
from orchestrator.web.visit import Visit, acting, reading

router = APIRouter(prefix="/allowlist", include_in_schema=False)
Reader = Annotated[Visit, reading(Scope.ALLOWLIST_READ)]
Editor = Annotated[Visit, reading(Scope.ALLOWLIST_WRITE)]
Saver = Annotated[Visit, acting(Scope.ALLOWLIST_WRITE)]
TEXT_MAX = 1_048_576
VERSIONS = 30
REPLAYED = 500


class LineUnreadable(InvalidInput):
    """What stands in the test box cannot be split into words."""

    code = "invalid.command_line"


@dataclass
class Draft:
    """The editor as it stands: the text, and what was found out about it."""

    text: str
    expected: int
    line: str = ""
    tenant: str = ""
    reason: str = ""
    error: OrchestratorError | None = None
    checked: Allowlist | None = None
    explanation: Explanation | None = None
    replay: Replay | None = None
    diff: str = ""
    is_reviewed: bool = False

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def problems(self) -> list[str]:
        return self.error.problems if isinstance(self.error, InvalidAllowlist) else []


@router.get("")
def show(visit: Reader) -> Response:
    """The rules in force and the versions behind them."""
    flow = visit.services.allowlist
    found = flow.in_force()
    return visit.show(
        "allowlist/show.html",
        version=found.version,
        problem=found.problem,
        rules=found.allowlist.rules,
        versions=flow.history(limit=VERSIONS),
    )


@router.get("/versions/{number}")
def version(number: int, visit: Reader) -> Response:
    """What one version changed, and a way back to it."""
    flow = visit.services.allowlist
    found, text = flow.version(number)
    current = flow.in_force().version.number
    return visit.show(
        "allowlist/version.html",
        version=found,
        text=text,
        lines=flow.diff(number).splitlines(),
        current=current,
        against=flow.diff(number, against=current).splitlines() if number != current else [],
    )


@router.post("/versions/{number}/restore")
def restore(number: int, visit: Saver) -> Response:
    """Put it in force again, as a new version."""
    made = visit.services.allowlist.restore(
        number, actor=visit.who.actor, reason=visit.text("reason", length_max=1000), expected=_expected(visit)
    )
    return visit.go("/allowlist", f"Version {made.number} is in force, with the text of version {number}.")


@router.get("/edit")
def edit(visit: Editor, draft: Annotated[str, Query(max_length=40)] = "") -> Response:
    """The text in force, with the rule drafted for a denied command when one is named."""
    found = visit.services.allowlist.in_force()
    made = Draft(found.allowlist.text, found.version.number)
    if draft:
        asked = visit.services.approvals.get(draft)
        tenant = tenants.get(visit.services.store, asked.tenant_id)
        rule = visit.services.approvals.rule_draft(draft, tenant)
        made.text = made.text.rstrip("\n") + "\n\n" + "".join(f"  {line}\n" for line in rule.splitlines())
        made.line, made.tenant = json.dumps(list(asked.argv)), tenant.name
        made.reason = f"Asked for by {asked.requester.name}: {asked.reason}"[:1000]
    return _page(visit, made)


@router.post("/edit")
def work(visit: Saver) -> Response:
    """Check the text, test a command under it, look at the consequences, or save; nothing else saves."""
    made = Draft(
        text=_text(visit),
        expected=_expected(visit),
        line=visit.text("line"),
        tenant=visit.text("tenant", length_max=60),
        reason=visit.text("reason", length_max=1000),
    )
    wanted = visit.text("do", length_max=20)
    try:
        made.checked = visit.services.allowlist.check(made.text, source="the text")
        if wanted == "test":
            made.explanation = _tested(visit, made, made.checked)
        elif wanted == "save" and visit.text("reviewed", length_max=64) == made.digest:
            saved = visit.services.allowlist.save(
                made.text, actor=visit.who.actor, reason=made.reason, expected=made.expected
            )
            return visit.go("/allowlist", f"Version {saved.number} is in force. The next command obeys it.")
        elif wanted in ("review", "save"):
            _review(visit, made)
    except OrchestratorError as error:
        made.error = error
        if wanted == "save":
            made.is_reviewed = made.checked is not None
    return _page(visit, made)


def _review(visit: Visit, made: Draft) -> None:
    """What would change: line by line, and for recent commands."""
    found = visit.services.allowlist.in_force()
    made.replay = visit.services.allowlist.replay(made.text, limit=REPLAYED)
    made.diff = text_diff(
        found.allowlist.text, made.text, old_name=f"version {found.version.number}", new_name="your text"
    )
    made.is_reviewed = True


def _tested(visit: Visit, made: Draft, checked: Allowlist) -> Explanation:
    """What the text would decide about one command, and why."""
    tenant = visit.tenant(made.tenant)
    request = CommandRequest(argv=_argv(made.line))
    gate = checked.gate(profile=tenant.profile, tenant=tenant.name)
    return explain(gate, request, gate.decide(request), tenant=tenant.name)


def _argv(line: str) -> tuple[str, ...]:
    """Words as in the file's examples, or a JSON array. Raises LineUnreadable, InvalidArgv."""
    try:
        return check_argv(json.loads(line) if line.startswith("[") else shlex.split(line))
    except ValueError as error:
        raise LineUnreadable(
            "The command cannot be read.",
            effect="It was not tested.",
            next_step='Write words with balanced quotes, or a JSON array: ["ls", "-l"].',
        ) from error


def _page(visit: Visit, made: Draft) -> Response:
    seen: list[Tenant] = visit.tenants()
    values: dict[str, Any] = {
        "draft": made,
        "diff": made.diff.splitlines(),
        "changes": [(one, shown_argv(one.command.argv)) for one in made.replay.changes[:200]] if made.replay else [],
        "seen": seen[:500],
        "in_force": visit.services.allowlist.in_force().version.number,
    }
    return visit.show("allowlist/edit.html", status=422 if made.error else 200, **values)


def _text(visit: Visit) -> str:
    """The textarea's content with the line ends of a file; browsers send CR LF."""
    value = visit.form.get("text", "")
    text = value[:TEXT_MAX] if isinstance(value, str) else ""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _expected(visit: Visit) -> int:
    value = visit.text("expected", length_max=12)
    return int(value) if value.isascii() and value.isdigit() else 0
