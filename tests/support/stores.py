"""A control database with every table, without containers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from orchestrator.store import tables
from orchestrator.store.metadata import METADATA
from orchestrator.store.session import connect
from tests.support.cluster import Cluster

assert tables  # importing it registers them


@contextmanager
def control_store(cluster: Cluster) -> Iterator[Engine]:
    """Dropped afterwards."""
    with cluster.database() as name:
        engine = connect(cluster.url(name))
        METADATA.create_all(engine)
        try:
            yield engine
        finally:
            engine.dispose()
