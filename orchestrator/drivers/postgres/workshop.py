"""The Workshop port: reading, building, masking and sealing put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from orchestrator.core.masking.plan import ColumnFact, MaskingPlan
from orchestrator.core.ports.engine import Engine, NetworkSpec
from orchestrator.core.ports.servers import Servers, ServerSpec
from orchestrator.core.ports.snapshots import Dumped, Masked, Offer, Progress, Sealed, Source, SourceFacts
from orchestrator.drivers.postgres.snapshot_builder import Builder
from orchestrator.drivers.postgres.snapshot_masking import Masker
from orchestrator.drivers.postgres.snapshot_seal import Sealer, search
from orchestrator.drivers.postgres.snapshot_source import SourceReader
from orchestrator.drivers.postgres.tools import Binaries


class PostgresWorkshop:
    """`network` is joined at `network_address` to reach a mirror over TCP; `jobs` tables are copied at once."""

    def __init__(
        self,
        engine: Engine,
        servers: Servers,
        binaries: Binaries,
        *,
        network: NetworkSpec | None = None,
        network_address: str = "",
        jobs: int = 2,
    ) -> None:
        self.reader = SourceReader(engine, binaries, network=network, network_address=network_address, jobs=jobs)
        self.builder = Builder(engine, servers, binaries, jobs=jobs)
        self.masker = Masker(self.builder)
        self.sealer = Sealer(engine, servers, binaries, self.builder)

    def inspect(self, spec: ServerSpec, source: Source) -> SourceFacts:
        return self.reader.inspect(spec, source)

    def open(self, spec: ServerSpec) -> Offer:
        return self.builder.open(spec)

    def dump(self, spec: ServerSpec, source: Source, facts: SourceFacts, progress: Progress) -> Dumped:
        return self.reader.dump(spec, source, facts, progress)

    def restore(self, spec: ServerSpec, dumped: Dumped, facts: SourceFacts, progress: Progress) -> None:
        self.builder.restore(spec, dumped, facts, progress)

    def columns(self, spec: ServerSpec) -> tuple[ColumnFact, ...]:
        return self.builder.columns(spec)

    def row_counts(self, spec: ServerSpec) -> Mapping[str, int]:
        return self.builder.row_counts(spec)

    def mask(self, spec: ServerSpec, plan: MaskingPlan, key: bytes, progress: Progress) -> Masked:
        return self.masker.mask(spec, plan, key, progress)

    def rewrite(self, spec: ServerSpec, tables: Sequence[str], progress: Progress) -> None:
        self.masker.rewrite(spec, tables, progress)

    def seal(self, spec: ServerSpec, *, snapshot_id: str, taken_at: datetime) -> Sealed:
        return self.sealer.seal(spec, snapshot_id=snapshot_id, taken_at=taken_at)

    def search(self, data: Path, samples: Sequence[bytes]) -> list[str]:
        return search(data, samples)

    def close(self, spec: ServerSpec) -> None:
        self.sealer.close(spec)
