"""Every table, one file per noun. Importing this package registers them all on the metadata."""

from orchestrator.store.tables import approvals as approvals
from orchestrator.store.tables import changes as changes
from orchestrator.store.tables import commands as commands
from orchestrator.store.tables import generations as generations
from orchestrator.store.tables import idempotency as idempotency
from orchestrator.store.tables import jobs as jobs
from orchestrator.store.tables import outbox as outbox
from orchestrator.store.tables import policies as policies
from orchestrator.store.tables import probes as probes
from orchestrator.store.tables import promotions as promotions
from orchestrator.store.tables import publishes as publishes
from orchestrator.store.tables import refreshes as refreshes
from orchestrator.store.tables import samples as samples
from orchestrator.store.tables import sessions as sessions
from orchestrator.store.tables import snapshots as snapshots
from orchestrator.store.tables import tenants as tenants
from orchestrator.store.tables import tokens as tokens
from orchestrator.store.tables import users as users
