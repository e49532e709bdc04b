"""Commands on a running installation: allowed, denied and approval-class, from CLI and API, held by the kernel."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.core.actors import Actor, ActorKind
from orchestrator.core.allowlist.request import CommandRequest
from orchestrator.core.commands import (
    ApprovalRequired,
    Command,
    CommandDenied,
    CommandState,
    NotApplicable,
    NothingToApply,
    WorkspaceMoved,
)
from orchestrator.core.ports.audit import AuditQuery, Verdict
from orchestrator.core.tenants import Tenant
from orchestrator.parts.query import QueryArguments
from orchestrator.store import commands
from tests.support.installation import Running
from tests.support.processes import eventually

pytestmark = [pytest.mark.engine, pytest.mark.trip]
AGENT = Actor(ActorKind.AGENT, "tok_trip", "manager/agent", on_behalf_of="user_manager")
REVIEWER = Actor(ActorKind.PERSON, "user_reviewer", "reviewer")


def run(installation: Running, tenant: Tenant, *argv: str, **more: object) -> tuple[Command, str]:
    ended = installation.services.commands.run(
        tenant, CommandRequest.model_validate({"argv": argv, **more}), actor=AGENT
    )
    chunks = commands.output(installation.services.store, ended.id)
    return ended, b"".join(one.data for one in chunks).decode()


def workspace(installation: Running, tenant: Tenant) -> Path:
    return installation.settings.places.workspace(tenant.id)


def test_the_gate_from_end_to_end(installation: Running, launched: Callable[..., Tenant]) -> None:
    tenant = launched()
    services = installation.services

    # Allowed: the shipped office rules work on the real image, git with its pins included.
    for argv in (
        ("ls", "-la", "/workspace"),
        ("git", "status", "--short"),
        ("git", "log", "-p", "-1"),
        ("git", "diff"),
        ("find", "/workspace", "-name", "*.py"),
        ("grep", "-rn", "import", "/workspace"),
        ("sed", "-n", "1,2p", "README.md"),
        ("true",),
    ):
        ended, output = run(installation, tenant, *argv)
        assert (ended.state, ended.exit_code) == (CommandState.FINISHED, 0), (argv, ended, output)
    ended, output = run(installation, tenant, "echo", ";", "id", "$(id)")
    assert output == "; id $(id)\n"
    ended, output = run(installation, tenant, "cat", "-", stdin="from outside\n")
    assert output == "from outside\n"

    # From the command line too, with its exit code.
    assert installation.run("command", "run", tenant.name, "--", "echo", "hello") == "hello\n"
    assert installation.run("command", "run", tenant.name, "--", "cat", "/etc/passwd", expect=3) == ""
    explained = installation.run("command", "explain", "-o", "json", tenant.name, "--", "git", "diff", "--output=x")
    assert json.loads(explained)["nearest"] == "git.diff"

    # Approval-class: waits for another person, runs once.
    (workspace(installation, tenant) / "old.txt").write_text("x")
    with pytest.raises(ApprovalRequired) as waiting:
        run(installation, tenant, "rm", "old.txt")
    services.approvals.approve(str(waiting.value.fields["approval_id"]), actor=REVIEWER)
    ended, output = run(installation, tenant, "rm", "old.txt")
    assert (ended.exit_code, output) == (0, "")
    assert not (workspace(installation, tenant) / "old.txt").exists()
    with pytest.raises(ApprovalRequired):
        run(installation, tenant, "rm", "old.txt")

    # A policy edit holds for the next command, and for the kernel: a program no rule names cannot start.
    text = services.allowlist.in_force().allowlist.text
    without = text.replace(
        "  - id: pwd\n    program: pwd\n", f"  - id: pwd\n    program: pwd\n    scope: tenant:{tenant.name}x\n"
    )
    assert without != text
    services.allowlist.save(without, actor=REVIEWER, reason="Trip.", expected=None)
    try:
        with pytest.raises(CommandDenied):
            run(installation, tenant, "pwd")
        ended, output = run(installation, tenant, "ls")
        assert ended.state is CommandState.FINISHED
    finally:
        services.allowlist.save(text, actor=REVIEWER, reason="Trip over.", expected=None)
    assert run(installation, tenant, "pwd")[1] == "/workspace\n"

    # Every step stands in an intact audit trail.
    seen = services.audit.search(AuditQuery(tenant=tenant.name, limit=200))
    assert {record.text("result") for record in seen} >= {"ok", "denied"}
    assert any(record.text("approver") == "reviewer" for record in seen)
    assert services.audit.verify().verdict is Verdict.INTACT


def test_a_query_is_the_tenants_own_and_a_dry_run_keeps_nothing(
    installation: Running, launched: Callable[..., Tenant]
) -> None:
    tenant = launched()
    services = installation.services

    def ask(statement: str, *, dry_run: bool = False) -> tuple[tuple[str | None, ...], ...]:
        _, result = services.commands.query(tenant, QueryArguments(statement, dry_run, "json", 100), actor=AGENT)
        assert result.error is None, result.error
        return result.rows

    assert ask("select current_user")[0] == (f"tenant_{tenant.name.replace('-', '_')}",)
    count = ask("select count(*) from hotel.reservations")[0][0]
    assert int(count or 0) > 0
    assert ask("create table hotel.mine (a int)") == ()
    assert ask("insert into hotel.mine values (1), (2)", dry_run=True) == ()
    assert ask("select count(*) from hotel.mine") == (("0",),)
    ended, output = run(installation, tenant, "query", "--format", "csv", "select 1 as one, null as none")
    assert (ended.exit_code, output) == (0, "one,none\n1,\n")
    ended, output = run(installation, tenant, "query", "select nothing")
    assert ended.exit_code == 1
    assert "42703" in output
    with pytest.raises(CommandDenied):
        run(installation, tenant, "query", "select 1; drop table hotel.mine")


@contextmanager
def _more_rules(installation: Running, tenant: Tenant) -> Iterator[None]:
    """For this tenant alone: copy trees and make links."""
    allowlist = installation.services.allowlist
    text = allowlist.in_force().allowlist.text
    rules = []
    for program, arguments in (("cp", "[-rP, source, made]"), ("ln", "[-s, /etc/passwd, out]")):
        switch, first, second = arguments.strip("[]").split(", ")
        rules.append(
            f"""
  - id: trip.{program}
    program: {program}
    switches: [{switch}]
    positionals:
      - {{name: first, value: {{type: enum, values: [{first}]}}}}
      - {{name: second, value: {{type: path, access: rw, root_itself: false}}}}
    scope: tenant:{tenant.name}
    decision: allow
    reason: For this trip.
    match: [{program} {switch} {first} {second}]
"""
        )
    programs = "programs:\n  cp: {path: /usr/bin/cp}\n  ln: {path: /usr/bin/ln}\n"
    more = text.replace("programs:\n", programs, 1) + "".join(rules)
    allowlist.save(more, actor=REVIEWER, reason="Trip.", expected=None)
    try:
        yield
    finally:
        allowlist.save(text, actor=REVIEWER, reason="Trip over.", expected=None)


def test_a_disposable_run_touches_nothing_until_it_is_applied(
    installation: Running, launched: Callable[..., Tenant]
) -> None:
    tenant = launched()
    services, place = installation.services, workspace(installation, tenant)
    (place / "old.txt").write_text("old\n")
    request = CommandRequest(argv=("rm", "old.txt"), place="disposable")
    with pytest.raises(ApprovalRequired) as waiting:
        services.commands.run(tenant, request, actor=AGENT)
    services.approvals.approve(str(waiting.value.fields["approval_id"]), actor=REVIEWER)
    ended = services.commands.run(tenant, request, actor=AGENT)
    assert (ended.state, ended.exit_code, ended.changed_paths) == (CommandState.FINISHED, 0, ("old.txt",)), ended
    assert (place / "old.txt").exists()

    (place / "old.txt").write_text("new\n")
    with pytest.raises(WorkspaceMoved, match=r"old\.txt"):
        services.commands.apply(tenant, ended.id, actor=AGENT)
    (place / "old.txt").write_text("old\n")
    assert services.commands.apply(tenant, ended.id, actor=AGENT).applied_at is not None
    assert not (place / "old.txt").exists()
    with pytest.raises(NothingToApply):
        services.commands.apply(tenant, ended.id, actor=AGENT)

    with _more_rules(installation, tenant):
        (place / "source").mkdir()
        (place / "source" / "large.bin").write_bytes(b"x" * 3_000_000)
        (place / "source" / "link").symlink_to("large.bin")
        made, told = run(installation, tenant, "cp", "-rP", "source", "made", place="disposable")
        assert (made.exit_code, set(made.changed_paths)) == (0, {"made/large.bin", "made/link"}), told
        assert not (place / "made").exists()
        services.commands.apply(tenant, made.id, actor=AGENT)
        assert (place / "made" / "large.bin").read_bytes() == b"x" * 3_000_000
        assert (place / "made" / "link").readlink() == Path("large.bin")
        assert (place / "made" / "large.bin").stat().st_uid == tenant.uid
        led_out, told = run(installation, tenant, "ln", "-s", "/etc/passwd", "out", place="disposable")
        assert led_out.exit_code == 0, told
        with pytest.raises(NotApplicable, match="out is a link that leads out of the workspace, to /etc/passwd"):
            services.commands.apply(tenant, led_out.id, actor=AGENT)

    (place / "out").symlink_to("/etc/passwd")
    refused, _ = run(installation, tenant, "ls", place="disposable")
    assert refused.state is CommandState.FAILED
    assert "is a link that leads to /etc/passwd" in str(refused.error)
    (place / "out").unlink()
    assert not list((installation.settings.places.disk / "disposable").iterdir())
    assert not [one for one in services.installation.drivers.engine.containers() if one.role == "disposable"]


SLEEPING = """
  - id: trip.sleep
    program: sleep
    positionals:
      - {{name: seconds, value: {{type: enum, values: ["600"]}}}}
    scope: tenant:{tenant}
    decision: allow
    reason: For this trip.
    match: [sleep 600]
"""


def test_what_one_process_started_another_can_stop_and_a_program_no_image_has_is_named(
    installation: Running, launched: Callable[..., Tenant], tmp_path: Path
) -> None:
    tenant, browser = launched(), installation.browser("admin")
    allowlist, store = installation.services.allowlist, installation.services.store
    text = allowlist.in_force().allowlist.text
    more = text.replace("programs:\n", "programs:\n  sleep: {path: /usr/bin/sleep}\n", 1)
    more += SLEEPING.format(tenant=tenant.name)
    allowlist.save(more, actor=REVIEWER, reason="Trip.", expected=None)
    try:
        # The process that serves starts it, the command line stops it.
        asked = {"tenant": tenant.name, "argv": ["sleep", "600"], "timeout_s": 600}
        answer = browser.send("POST", f"{installation.console}/api/v1/commands?wait=false", asked)
        assert answer.status == 201, answer.text
        started = answer.json()["id"]
        assert commands.get(store, started).state is CommandState.RUNNING
        assert installation.json("command", "cancel", started)["id"] == started
        assert eventually(lambda: commands.get(store, started).state is CommandState.CANCELLED)
    finally:
        allowlist.save(text, actor=REVIEWER, reason="Trip over.", expected=None)

    absent = more.replace("path: /usr/bin/sleep", "path: /usr/bin/absent")
    file = tmp_path / "allowlist.yaml"
    file.write_text(absent)
    said = installation.remarks("allowlist", "check", str(file))
    assert f"warning: /usr/bin/absent cannot start in the image {tenant.image}: " in said
    assert "No such file" in said
