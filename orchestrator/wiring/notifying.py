"""Webhooks of an installation: who is told, and what signs it."""

from __future__ import annotations

import os

from sqlalchemy import Engine

from orchestrator import config
from orchestrator.config import InvalidConfiguration, Settings
from orchestrator.core import webhooks
from orchestrator.drivers.webhook.sender import HttpSender
from orchestrator.flows.notify import NotifyFlow
from orchestrator.setup.steps import CheckResult
from orchestrator.wiring.drivers import Drivers


def make_notify(drivers: Drivers, store: Engine) -> NotifyFlow:
    """No secret is read before something is signed."""
    settings = drivers.settings
    return NotifyFlow(
        store=store,
        audit=drivers.audit,
        sender=HttpSender(),
        targets=settings.webhooks.receivers(),
        secret=lambda name: secret(settings, name),
        instance=settings.instance,
        timeout_s=settings.webhooks.timeout,
        attempts_max=settings.webhooks.attempts_max,
    )


def secret(settings: Settings, name: str) -> str:
    """What a target's notices are signed with. Raises InvalidConfiguration, without the secret in it."""
    target = settings.webhooks.targets[name]
    if target.secret_file is not None:
        return config.secret(target.secret_file)
    found = os.environ.get(target.secret_env, "").strip()
    if not found:
        raise InvalidConfiguration(
            f"The environment variable {target.secret_env} holds no secret for the webhook {name}.",
            effect="Nothing was sent.",
            next_step="Set it where the control plane is started.",
        )
    return found


def webhook_results(settings: Settings) -> list[CheckResult]:
    """What `doctor` says: whether every receiver's secret can be read and is long enough."""
    found = []
    for name in sorted(settings.webhooks.targets):
        try:
            webhooks.key(secret(settings, name))
            found.append(CheckResult(f"webhook {name}", True))
        except (InvalidConfiguration, webhooks.WeakSecret) as error:
            found.append(CheckResult(f"webhook {name}", False, error.message, error.next_step))
    return found
