"""Jobs that people ask for by a button or the API: each may be run again after a crash without doing it twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.core.changes import Change, ChangeState
from orchestrator.core.jobs import Handler, JobContext, actor_of
from orchestrator.core.promotions import Promotion
from orchestrator.core.tenants import Tenant, TenantMissing, TenantState
from orchestrator.flows.rehearse import Stage
from orchestrator.store import changes, tenants, users
from orchestrator.wiring.services import Services

# What a flow's steps are called while they are taken.
STEPS: Mapping[str, Mapping[str, str]] = {
    "launch": {
        "database": "making its database from the newest snapshot",
        "workspace": "fetching the code into its workspace",
        "network": "making its network",
        "pool": "starting the pool in front of its database",
        "sandbox": "starting its container",
        "app": "starting its app",
        "route": "giving it its address",
        "answer": "waiting for its address to answer",
    },
    "start": {
        "database": "starting its database",
        "workspace": "looking after its workspace",
        "network": "joining its network",
        "pool": "starting the pool in front of its database",
        "sandbox": "starting its container",
        "app": "starting its app",
        "route": "giving it its address",
        "answer": "waiting for its address to answer",
    },
    "stop": {
        "route": "taking its address away",
        "sandbox": "stopping its container",
        "pool": "stopping the pool",
        "database": "stopping its database",
    },
    "remove": {
        "route": "taking its address away",
        "sandbox": "deleting its container",
        "pool": "deleting the pool",
        "database": "deleting its databases",
        "network": "deleting its network",
        "workspace": "deleting its workspace",
    },
}
DONE_ALREADY = {"stop": TenantState.STOPPED, "start": TenantState.RUNNING}


def asked_handlers(services: Services) -> dict[str, Handler]:
    """By kind of job."""
    return {
        "launch": lambda context: _launch(services, context),
        "start": lambda context: _moved(services, context, "start"),
        "stop": lambda context: _moved(services, context, "stop"),
        "remove": lambda context: _remove(services, context),
        "probe": lambda context: _probe(services, context),
        "merge": lambda context: _merge(services, context),
        "submit": lambda context: _submit(services, context),
        "check": lambda context: _check(services, context),
        "rebase": lambda context: _rebase(services, context),
        "rehearse": lambda context: _rehearse(services, context),
        "promote": lambda context: _promote(services, context),
        "revert": lambda context: _revert(services, context),
    }


def told(context: JobContext, kind: str) -> Callable[[str], None]:
    """Turns the steps of a flow into progress and lines. Nothing here stops half-way."""
    words = STEPS[kind]
    seen: set[str] = set()

    def on_step(step: str) -> None:
        seen.add(step)
        said = words.get(step, step)
        context.say(min(len(seen) / (len(words) + 1), 0.99), said)
        context.line(said)

    return on_step


def tenant_of(services: Services, context: JobContext) -> Tenant:
    """Raises TenantMissing."""
    if context.job.tenant_id is None:
        raise TenantMissing(f"A job of the kind {context.job.kind} needs its tenant.")
    return tenants.get(services.store, context.job.tenant_id)


def _launch(services: Services, context: JobContext) -> Mapping[str, Any]:
    actor = actor_of(context.job)
    tenant = services.launch.make(tenant_of(services, context), actor=actor, progress=told(context, "launch"))
    manager = str(context.job.arguments.get("manager") or "")
    if manager:
        context.line(f"giving it to {manager}")
        services.access.change_user(actor, users.named(services.store, manager), join=[tenant.id])
    return {"tenant": tenant.name, "manager": manager}


def _moved(services: Services, context: JobContext, verb: str) -> Mapping[str, Any]:
    tenant, flow = tenant_of(services, context), services.tenants
    if context.job.attempts > 1 and tenant.state is DONE_ALREADY[verb]:
        context.line("it was done before this try")  # what a crash left, reconcile completes
        return {"tenant": tenant.name}
    act = flow.stop if verb == "stop" else flow.start
    act(tenant.name, actor=actor_of(context.job), progress=told(context, verb))
    return {"tenant": tenant.name}


def _remove(services: Services, context: JobContext) -> Mapping[str, Any]:
    try:
        tenant = tenant_of(services, context)
    except TenantMissing:
        if context.job.attempts > 1:
            return {}  # removed by an earlier try, or by reconcile, which finishes what was begun
        raise
    services.tenants.remove(tenant.name, actor=actor_of(context.job), progress=told(context, "remove"))
    return {"tenant": tenant.name}


def _probe(services: Services, context: JobContext) -> Mapping[str, Any]:
    tenant = tenant_of(services, context)
    context.say(0.1, "trying to cross every boundary from inside")
    rows = services.probe.run(tenant, actor=actor_of(context.job)).rows()
    for row in rows:
        context.line(f"{row['boundary']}: {row['outcome']}")
    return {"broken": sum(row["outcome"] == "broken" for row in rows), "tried": len(rows)}


def _merge(services: Services, context: JobContext) -> Mapping[str, Any]:
    tenant = tenant_of(services, context)
    context.say(0.1, "saving the files, then merging production's newest code into them")
    branch = services.publish.bring_up_to_date(tenant, actor=actor_of(context.job))
    return {"head": branch.head, "behind": branch.behind}


def _change(services: Services, context: JobContext) -> Change:
    with services.store.connect() as connection:
        return changes.get(connection, str(context.job.arguments["change_id"]))


def _submit(services: Services, context: JobContext) -> Mapping[str, Any]:
    change, tenant = _change(services, context), tenant_of(services, context)
    context.say(0.1, "checking it: the rules, production now, a rehearsal on a throw-away copy")
    if context.job.attempts > 1 and change.state is not ChangeState.DRAFT:
        return {"state": change.state.value}
    done = services.changes.changes.submit(change.id, tenant, actor=actor_of(context.job))
    return {"state": done.state.value}


def _check(services: Services, context: JobContext) -> Mapping[str, Any]:
    change, tenant = _change(services, context), tenant_of(services, context)
    context.say(0.1, "making every check again")
    return {"blocking": services.changes.changes.check(change.id, tenant, actor=actor_of(context.job)).blocking}


def _rebase(services: Services, context: JobContext) -> Mapping[str, Any]:
    change, tenant = _change(services, context), tenant_of(services, context)
    context.say(0.1, "moving it onto the newest snapshot")
    moved = services.changes.changes.rebase(change.id, tenant, actor=actor_of(context.job))
    return {"conflicts": len(moved.conflicts)}


def _rehearse(services: Services, context: JobContext) -> Mapping[str, Any]:
    change, tenant = _change(services, context), tenant_of(services, context)
    stage = Stage(str(context.job.arguments.get("stage", Stage.COPY)))
    where = "on production, to be rolled back" if stage is Stage.PRODUCTION else "on a throw-away copy"
    context.say(0.1, f"writing the exact rows {where}")
    document = services.changes.rehearse.run(change.id, tenant, actor=actor_of(context.job), stage=stage)
    return {"stage": stage.value, "blocking": int(document.get("blocking") or 0)}


def _promote(services: Services, context: JobContext) -> Mapping[str, Any]:
    tenant = tenant_of(services, context)
    if context.job.attempts > 1:
        services.changes.promote.recover()
        change = _change(services, context)
        if change.state is ChangeState.PROMOTED:
            context.line("it had been written before this try")
            return {"written": change.counts.total}
    context.say(0.1, "locking the rows in production, reading them again, and writing all of them or none")
    digest = context.job.arguments.get("digest")
    change_id = str(context.job.arguments["change_id"])
    done = services.changes.promote.run(change_id, tenant, actor=actor_of(context.job), digest=digest)
    return _written(done)


def _revert(services: Services, context: JobContext) -> Mapping[str, Any]:
    tenant = tenant_of(services, context)
    if context.job.attempts > 1:
        services.changes.revert.recover()
        change = _change(services, context)
        if change.reverted_at is not None:
            context.line("it had been reverted before this try")
            return {"written": change.counts.total}
    context.say(0.1, "writing production's rows back as they were")
    done = services.changes.revert.run(
        str(context.job.arguments["change_id"]), tenant, actor=actor_of(context.job), reason=context.job.reason
    )
    return _written(done)


def _written(done: Promotion) -> Mapping[str, Any]:
    return {"promotion_id": done.id, "written": done.inserted + done.updated + done.deleted}
