"""Who leads the schedule and when it last ticked: written by the leader, for people to see."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, case, func, select
from sqlalchemy.dialects.postgresql import insert as upsert

from orchestrator.store.tables.samples import LEADERS

NOW = func.clock_timestamp()


@dataclass(frozen=True)
class Leader:
    """`holder` is HOST:PID; `error` is what kept the last tick from deciding, if anything did."""

    name: str
    holder: str
    since: datetime
    ticked_at: datetime
    ticks: int
    error: str


def ticked(engine: Engine, holder: str, *, name: str = "scheduler", error: str = "") -> None:
    """The leader has looked at what is due."""
    row = upsert(LEADERS).values(name=name, holder=holder, ticks=1, error=error[:500])
    is_same = LEADERS.c.holder == row.excluded.holder
    statement = row.on_conflict_do_update(
        index_elements=["name"],
        set_={
            "holder": row.excluded.holder,
            "since": case((is_same, LEADERS.c.since), else_=NOW),
            "ticked_at": NOW,
            "ticks": case((is_same, LEADERS.c.ticks + 1), else_=1),
            "error": row.excluded.error,
        },
    )
    with engine.begin() as connection:
        connection.execute(statement)


def current(engine: Engine, name: str = "scheduler") -> Leader | None:
    """The last one to tick, whether or not it still lives."""
    with engine.connect() as connection:
        row = connection.execute(select(LEADERS).where(LEADERS.c.name == name)).one_or_none()
    return None if row is None else Leader(**row._mapping)
