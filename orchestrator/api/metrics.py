"""/metrics: the measures in Prometheus' text format, for a bearer token that may read the system."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Annotated

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from orchestrator.api.deps import ServicesDep, require
from orchestrator.core.access import Principal, Scope
from orchestrator.core.metrics import Family, FamilyKind
from orchestrator.store import measures
from orchestrator.wiring.schedule import load

router = APIRouter(tags=["metrics"])
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Families(Collector):
    def __init__(self, families: Iterable[Family]) -> None:
        self._families = tuple(families)

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            made: GaugeMetricFamily | CounterMetricFamily
            if family.kind is FamilyKind.COUNTER:
                made = CounterMetricFamily(family.name, family.text, labels=family.labels)
            else:
                made = GaugeMetricFamily(family.name, family.text, labels=family.labels)
            for sample in family.samples:
                made.add_metric([sample.labels[name] for name in family.labels], sample.value)
            yield made


def exposition(collect: Callable[[], Iterable[Family]]) -> bytes:
    """Read the measures once and print them; nothing is kept between two scrapes."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(collect()))
    return generate_latest(registry)


@router.get("/metrics", include_in_schema=False)
def metrics(services: ServicesDep, who: Annotated[Principal, require(Scope.SYSTEM_READ)]) -> Response:
    """Everything measured, as of now."""
    del who
    schedule = load(services.settings)
    return Response(exposition(lambda: measures.collect(services.store, schedule)), media_type=CONTENT_TYPE)
