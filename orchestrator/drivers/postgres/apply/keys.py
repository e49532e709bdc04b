"""Keys drawn from production's own sequences before anything is written."""

from __future__ import annotations

from collections.abc import Iterable

from psycopg import sql

from orchestrator.core.changeset.rows import ProvisionalKey
from orchestrator.core.promotion.assigned import needed
from orchestrator.core.promotion.catalog import Catalog
from orchestrator.core.promotion.planning import RowWrite
from orchestrator.drivers.postgres.apply.session import Session


def draw_keys(session: Session, catalog: Catalog, writes: Iterable[RowWrite]) -> dict[ProvisionalKey, str]:
    """One value of production for each provisional key, in the changeset's order.

    An identity draws from its sequence; any other numbered column evaluates its own default, so `nextval() + 1000`
    and `'INV-' || nextval()` come out right. Values drawn stay drawn when the transaction is rolled back.
    """
    assigned: dict[ProvisionalKey, str] = {}
    for (table, column_name), keys in needed(writes).items():
        column = catalog[table].shape.column(column_name)
        if column.default is not None:
            expression: sql.Composable = sql.SQL(column.default)
        elif column.sequence is not None:
            name = sql.Identifier(column.sequence.schema, column.sequence.name).as_string(session.connection)
            expression = sql.SQL("pg_catalog.nextval({}::pg_catalog.regclass)").format(sql.Literal(name))
        else:
            raise LookupError(f"{table}.{column_name} has no sequence in production")
        query = sql.SQL("SELECT {} FROM pg_catalog.generate_series(1, $1::pg_catalog.int4)").format(expression)
        drawn = [row[0] or "" for row in session.texts(query, [str(len(keys))])]
        assigned |= dict(zip(keys, drawn, strict=True))
    return assigned
