"""Boundaries, and what came of trying to cross them. Pure.

Enforced: the kernel, the engine or PostgreSQL holds it, and a probe tries it on the running tenant. Conventional: it
holds as long as people keep to it; no probe can prove it, and it says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from orchestrator.errors import NotFound


class NotProbed(NotFound):
    code = "not_found.probe"


class Kind(StrEnum):
    ENFORCED = "enforced"
    CONVENTIONAL = "conventional"


class Outcome(StrEnum):
    HOLDS = "holds"
    BROKEN = "broken"
    NOT_TRIED = "not_tried"


@dataclass(frozen=True)
class Boundary:
    """`promise` in words for people; `by` is who holds it."""

    id: str
    promise: str
    kind: Kind
    by: str


BOUNDARIES: tuple[Boundary, ...] = (
    Boundary("other_sandbox", "Another tenant's container cannot be reached.", Kind.ENFORCED, "network"),
    Boundary("host", "This machine cannot be reached.", Kind.ENFORCED, "network"),
    Boundary("proxy", "The proxy serves nothing on the tenant's own network.", Kind.ENFORCED, "network"),
    Boundary("outside", "Nothing outside can be reached, names do not resolve.", Kind.ENFORCED, "network"),
    Boundary("production", "The production database cannot be reached.", Kind.ENFORCED, "network and mounts"),
    Boundary("control", "The control database cannot be reached.", Kind.ENFORCED, "network and mounts"),
    Boundary("other_database", "Another tenant's database cannot be reached.", Kind.ENFORCED, "mounts and the pool"),
    Boundary("engine", "The container engine cannot be reached.", Kind.ENFORCED, "mounts"),
    Boundary("unlisted_program", "A program that is not listed cannot start.", Kind.ENFORCED, "kernel (Landlock)"),
    Boundary("own_program", "A program brought along cannot start.", Kind.ENFORCED, "kernel (noexec, Landlock)"),
    Boundary("read_only", "The container's own files cannot be changed.", Kind.ENFORCED, "kernel (mounts)"),
    Boundary("privileges", "No capability, and none can be gained.", Kind.ENFORCED, "kernel (capabilities, seccomp)"),
    Boundary("memory", "Memory and processes are bounded.", Kind.ENFORCED, "kernel (cgroups)"),
    Boundary("database_memory", "The database's memory and processes are bounded.", Kind.ENFORCED, "kernel (cgroups)"),
    Boundary("database_role", "The database role has no rights beyond its data.", Kind.ENFORCED, "PostgreSQL"),
    Boundary("sign_in", "The hostname lets nobody in who is not signed in.", Kind.ENFORCED, "proxy and sign-in"),
    Boundary("review", "What is merged into production is what a reviewer meant.", Kind.CONVENTIONAL, "a human"),
    Boundary("carrying", "People do not carry data they may see elsewhere.", Kind.CONVENTIONAL, "a human"),
    Boundary(
        "credentials", "Nobody pastes a secret into the workspace.", Kind.CONVENTIONAL, "a human; publishes are scanned"
    ),
)


@dataclass(frozen=True)
class Probe:
    """One attempt to cross a boundary: what was tried, and what answered."""

    boundary: str
    outcome: Outcome
    tried: str
    evidence: str


@dataclass(frozen=True)
class ProbeReport:
    """Every boundary of one tenant, as tried at one moment."""

    id: str
    tenant_id: str
    at: datetime
    probes: tuple[Probe, ...]

    @property
    def is_sound(self) -> bool:
        """Nothing was crossed (what could not be tried is not crossed, and not proven either)."""
        return all(probe.outcome is not Outcome.BROKEN for probe in self.probes)

    def rows(self) -> list[dict[str, str]]:
        """Every boundary with its outcome, enforced ones first."""
        found = {probe.boundary: probe for probe in self.probes}
        rows = []
        for boundary in BOUNDARIES:
            probe = found.get(boundary.id)
            is_tried = boundary.kind is Kind.ENFORCED
            rows.append(
                {
                    "boundary": boundary.id,
                    "promise": boundary.promise,
                    "kind": boundary.kind.value,
                    "by": boundary.by,
                    "outcome": probe.outcome.value if probe else Outcome.NOT_TRIED.value,
                    "tried": probe.tried if probe else ("" if is_tried else "nothing a machine could try"),
                    "evidence": probe.evidence if probe else "",
                }
            )
        return rows


def worst(boundary: str, probes: list[Probe]) -> Probe:
    """Several attempts on one boundary as one: it holds only when every attempt was held off."""
    order = (Outcome.BROKEN, Outcome.NOT_TRIED, Outcome.HOLDS)
    outcome = min((probe.outcome for probe in probes), key=order.index, default=Outcome.NOT_TRIED)
    return Probe(
        boundary,
        outcome,
        "; ".join(dict.fromkeys(probe.tried for probe in probes)) or "nothing to try",
        "; ".join(dict.fromkeys(probe.evidence for probe in probes)),
    )
