"""Taking, listing and pruning snapshots of production.

A snapshot is made beside everything else and published by one rename; whatever goes wrong before that leaves
the last good one in force, and the record says at which step and why.
"""

from orchestrator.flows.snapshot.flow import SnapshotBusy, Snapshots

__all__ = ["SnapshotBusy", "Snapshots"]
