"""Who asks: a person, an agent or the product itself. Every audit record and every approval names one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ActorKind(StrEnum):
    PERSON = "person"
    AGENT = "agent"
    SYSTEM = "system"


@dataclass(frozen=True)
class Actor:
    """`id` is stable (a user's or token's id, `scheduler`, `reconcile`); `name` is what people read.

    An agent acts for a person: `on_behalf_of` is that person's id, who may not approve what the agent asked for.
    """

    kind: ActorKind
    id: str
    name: str
    on_behalf_of: str = ""

    @property
    def is_agent(self) -> bool:
        return self.kind is ActorKind.AGENT

    def principals(self) -> frozenset[str]:
        """Every id that stands behind this actor."""
        return frozenset(part for part in (self.id, self.on_behalf_of) if part)


def system(name: str) -> Actor:
    """The product acting by itself: `system("scheduler")`."""
    return Actor(ActorKind.SYSTEM, f"system:{name}", name)
