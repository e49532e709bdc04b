"""The tenant record, and the states it may pass through."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from ipaddress import IPv4Network

from orchestrator.errors import Conflict, LimitReached, NotFound

UID_FIRST = 20_000
POOL_UID_FIRST = 30_000
DATABASE_UID_FIRST = 40_000


class TenantMissing(NotFound):
    code = "not_found.tenant"


class TenantExists(Conflict):
    code = "conflict.tenant_exists"


class WrongTenantState(Conflict):
    code = "conflict.tenant_state"


class TenantsMax(LimitReached):
    code = "limit_reached.tenants"


class TenantState(StrEnum):
    LAUNCHING = "launching"
    RUNNING = "running"
    STOPPED = "stopped"
    FAILED = "failed"
    REMOVING = "removing"
    REMOVED = "removed"


class StepState(StrEnum):
    """Of one journaled step: written as `begun` before it is taken."""

    BEGUN = "begun"
    DONE = "done"
    FAILED = "failed"
    UNDONE = "undone"


class RefreshPolicy(StrEnum):
    """What happens to unproposed changes at a refresh."""

    DISCARD = "discard"
    SAVE = "save"
    CARRY = "carry"


class PoolMode(StrEnum):
    TRANSACTION = "transaction"
    SESSION = "session"


@dataclass(frozen=True)
class Tenant:
    """One manager, team or agent. `id` is opaque and never reused; `number` is its slot for uid and subnet."""

    id: str
    name: str
    number: int
    profile: str
    image: str
    state: TenantState
    scope: str | None  # the tenant column's value in promotion.yaml; None promotes nothing guarded
    snapshot_profile: str
    refresh_policy: RefreshPolicy
    pool_mode: PoolMode
    created_at: datetime
    reason: str = ""  # why it is in this state, when something went wrong

    @property
    def uid(self) -> int:
        """The uid inside this tenant's containers; unique on the host, where RLIMIT_NPROC counts."""
        return UID_FIRST + self.number

    @property
    def pool_uid(self) -> int:
        """The uid of this tenant's pool; the database maps it to the tenant's role (peer)."""
        return POOL_UID_FIRST + self.number

    @property
    def database_uid(self) -> int:
        """The uid of this tenant's PostgreSQL, owner of its data directories."""
        return DATABASE_UID_FIRST + self.number


@dataclass(frozen=True)
class TenantAddresses:
    """The tenant's /28 out of the installation's plan: static addresses, no host address."""

    subnet: IPv4Network

    @property
    def proxy(self) -> str:
        return str(self.subnet[2])

    @property
    def sandbox(self) -> str:
        return str(self.subnet[3])

    @property
    def egress(self) -> str:
        return str(self.subnet[4])


def room_for(plan: IPv4Network) -> int:
    """How many tenants the plan has addresses for: a /28 each, less the first /24 and the last sixteenth."""
    own = (plan.num_addresses * 15 // 16 - 256) // 16
    outward = plan.num_addresses // 16 - 18
    return max(0, min(own, outward))


def addresses(plan: IPv4Network, number: int) -> TenantAddresses:
    """The /28 for slot `number`; slot 0 of the plan is the edge network's. Raises ValueError past the plan's end."""
    first = int(plan.network_address) + 256 + 16 * number
    subnet = IPv4Network((first, 28))
    if not subnet.subnet_of(plan):
        raise ValueError(f"slot {number} lies outside {plan}")
    return TenantAddresses(subnet)
