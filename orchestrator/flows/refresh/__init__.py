"""Refresh: build a generation beside the live one, swap it in, keep the old one for an undo."""

from orchestrator.flows.refresh.flow import RefreshFlow as RefreshFlow
from orchestrator.flows.refresh.recovery import RefreshRecovery as RefreshRecovery
