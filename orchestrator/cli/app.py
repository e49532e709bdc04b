"""`orchestrator NOUN VERB`: every noun in its own file, each added with one line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from orchestrator import logs
from orchestrator.cli import (
    allowlist,
    approval,
    audit,
    branches,
    changes,
    command,
    config,
    files,
    installation,
    jobs,
    refresh,
    snapshots,
    tenants,
    tokens,
    users,
    webhooks,
)
from orchestrator.cli.exits import LEGEND, Reporting

# One line per noun.
NOUNS: dict[str, typer.Typer] = {
    "tenant": tenants.app,
    "change": changes.app,
    "branch": branches.app,
    "file": files.app,
    "snapshot": snapshots.app,
    "refresh": refresh.app,
    "command": command.app,
    "approval": approval.app,
    "allowlist": allowlist.app,
    "audit": audit.app,
    "job": jobs.app,
    "user": users.app,
    "token": tokens.app,
    "webhook": webhooks.app,
    "config": config.app,
}


def create() -> typer.Typer:
    """The command line. Results go to stdout, everything else to stderr."""
    app = typer.Typer(
        name="orchestrator",
        cls=Reporting,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        help="One hardened sandbox per tenant: private data rebuilt from production, a reviewed way back.",
        epilog=LEGEND,
    )
    app.callback()(options)
    installation.add_to(app)
    for noun, commands in NOUNS.items():
        app.add_typer(commands, name=noun)
    return app


def options(
    configs: Annotated[
        Path | None, typer.Option(help="the directory with orchestrator.yaml", envvar="ORCHESTRATOR_CONFIGS")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="log what is done to stderr")] = False,
) -> None:
    if configs is not None:
        os.environ["ORCHESTRATOR_CONFIGS"] = str(configs.resolve())
    logs.configure(level="DEBUG" if verbose else "WARNING")
