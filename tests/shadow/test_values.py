"""Python values go into both sandboxes of a PostgreSQL and come out of production as they went in."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.engine import Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from orchestrator.shadow import InvalidShadow, ScratchServer, ShadowDB
from orchestrator.shadow.values import read_array, read_span, stored
from tests.support.cluster import Cluster


class Grade(enum.Enum):
    low = "l"
    high = "h"


class Base(DeclarativeBase):
    pass


class Thing(Base):
    __tablename__ = "things"
    id: Mapped[int] = mapped_column(primary_key=True)
    price: Mapped[Decimal] = mapped_column(sa.Numeric(30, 10))
    at: Mapped[datetime] = mapped_column(sa.DateTime(timezone=True))
    plain: Mapped[datetime] = mapped_column(sa.DateTime())
    day: Mapped[date]
    clock: Mapped[time]
    content: Mapped[bytes]
    document: Mapped[dict[str, Any]] = mapped_column(pg.JSONB().with_variant(sa.JSON(), "sqlite"))
    uid: Mapped[uuid.UUID]
    grade: Mapped[Grade] = mapped_column(sa.Enum(Grade, name="grade"))
    tags: Mapped[list[str | None]] = mapped_column(pg.ARRAY(sa.Text))
    numbers: Mapped[list[int]] = mapped_column(pg.ARRAY(sa.Integer))
    span: Mapped[timedelta] = mapped_column(sa.Interval)
    is_open: Mapped[bool]
    ratio: Mapped[float]


FIRST: dict[str, Any] = {
    "price": Decimal("12345678901234567890.0123456789"),
    "at": datetime(2026, 1, 1, 12, tzinfo=UTC),
    "plain": datetime(2026, 1, 1, 1, 1, 1, 5),
    "day": date(2026, 1, 1),
    "clock": time(9, 30),
    "content": b"\0\xff",
    "document": {"a": 1.5, "é": None},
    "uid": uuid.UUID(int=7),
    "grade": Grade.high,
    "tags": ["a", None, "b,c", 'quo"te', "back\\slash", "null", ""],
    "numbers": [1, -2],
    "span": timedelta(days=1, hours=2),
    "is_open": True,
    "ratio": 0.1,
}
SECOND: dict[str, Any] = {
    "price": Decimal("0.0000000001"),
    "at": datetime(2027, 1, 1, 12, 0, 0, 250_000, tzinfo=timezone(timedelta(hours=2))),
    "plain": datetime(2027, 1, 1),
    "day": date(2027, 2, 3),
    "clock": time(23, 59, 59, 1),
    "content": b"x",
    "document": {"b": [1, {"c": "ü"}]},
    "uid": uuid.UUID(int=8),
    "grade": Grade.low,
    "tags": ["{z}"],
    "numbers": [],
    "span": timedelta(days=-1, hours=5, microseconds=7),
    "is_open": False,
    "ratio": 1e300,
}


@pytest.fixture(scope="module")
def production(cluster: Cluster) -> Iterator[Engine]:
    with cluster.database() as name:
        engine = sa.create_engine(cluster.url(name))
        Base.metadata.create_all(engine)
        yield engine
        engine.dispose()


@pytest.fixture(scope="module")
def scratch() -> Iterator[ScratchServer]:
    with ScratchServer() as server:
        yield server


@pytest.fixture(params=["memory", "postgres"])
def shadow(request: pytest.FixtureRequest, production: Engine, scratch: ScratchServer) -> Iterator[ShadowDB]:
    with Session(production) as session, session.begin():
        session.execute(sa.delete(Thing))
        session.add(Thing(id=1, **FIRST))
    with ShadowDB(production, tables=[Thing], sandbox=request.param, scratch=scratch) as sandbox:
        yield sandbox


def held(session: Session) -> dict[str, Any]:
    thing = session.get_one(Thing, 1)
    return {name: getattr(thing, name) for name in FIRST}


def test_a_mapped_class_reads_and_writes_every_type(shadow: ShadowDB, production: Engine) -> None:
    with shadow.session() as session:
        assert held(session) == FIRST
        thing = session.get_one(Thing, 1)
        for name, value in FIRST.items():
            setattr(thing, name, value)
    assert shadow.diff().is_empty
    with shadow.session() as session:
        assert session.scalars(sa.select(Thing.id).where(Thing.uid == FIRST["uid"], Thing.at == FIRST["at"])).all() == [
            1
        ]
        for name, value in SECOND.items():
            setattr(session.get_one(Thing, 1), name, value)
    (row,) = shadow.diff()
    assert row.validate() == () and set(row.changed_columns) == set(SECOND)
    shadow.commit_to_production()
    with Session(production) as session:
        assert held(session) == SECOND


@pytest.mark.parametrize("name", [name for name in SECOND if name not in ("document", "grade")])
def test_plain_parameters_are_stored_as_exactly(name: str, shadow: ShadowDB, production: Engine) -> None:
    assert shadow.execute(f"UPDATE things SET {name} = :value WHERE id = 1", {"value": SECOND[name]}) == 1
    assert [row.changed_columns for row in shadow.diff()] == [(name,)]
    shadow.commit_to_production()
    with Session(production) as session:
        assert held(session) == {**FIRST, name: SECOND[name]}


def test_spans_and_arrays_are_written_as_postgres_prints_them() -> None:
    assert stored(timedelta(days=-1, hours=22)) == "-02:00:00"
    assert stored(timedelta(days=-2, hours=1)) == "-1 days -23:00:00"
    for text in ("1 day 02:00:00", "-1 days +02:00:00", "2 days", "00:00:00.000007", "-02:00:00"):
        assert stored(read_span(text)) in (text, "-22:00:00")
    assert read_span("1 year 2 mons -3 days 04:05:06.5") == timedelta(
        days=365 + 60 - 3, hours=4, minutes=5, seconds=6.5
    )
    assert read_array("[2:3]={{1,NULL},{3,4}}", int) == [[1, None], [3, 4]]
    assert read_array("{}", int) == []
    with pytest.raises(ValueError):
        read_span("soon")
    with pytest.raises(InvalidShadow):
        stored(object())
