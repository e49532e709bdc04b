"""The questions this app asks its database, one function each."""

from __future__ import annotations

from typing import Any

import psycopg

from backoffice.database import Connection
from backoffice.forms import Edit

PAGE_ROWS = 25


class Moved(Exception):
    """Somebody else changed the reservation in the meantime."""


class Taken(Exception):
    """The room is taken in one of these nights."""


def data_age(connection: Connection) -> Any:
    """When the snapshot behind this copy was taken; None outside a private copy."""
    found = connection.execute("SELECT to_regclass('orchestrator_snapshot.info') IS NOT NULL AS present").fetchone()
    if not found or not found.present:
        return None
    try:
        with connection.transaction():
            return connection.execute(
                "SELECT taken_at, snapshot_id, now() - taken_at AS age FROM orchestrator_snapshot.info LIMIT 1"
            ).fetchone()
    except psycopg.Error:
        return None


def properties(connection: Connection) -> list[Any]:
    return connection.execute("SELECT id, name, city, stars FROM hotel.properties ORDER BY stars DESC, name").fetchall()


def house_day(connection: Connection) -> Any:
    """The day the houses are living in: that of the latest arrival who has checked in."""
    row = connection.execute(
        "SELECT coalesce(max(arrival), current_date) AS day FROM hotel.reservations WHERE status = 'checked_in'"
    ).fetchone()
    return row.day if row else None


def houses(connection: Connection, day: Any) -> list[Any]:
    """Each property's day: who comes, who goes, who is there, how full it is."""
    return connection.execute(
        """
        SELECT p.id, p.name, p.city, p.stars, rooms.total AS rooms,
               count(r.id) FILTER (WHERE r.arrival = %(day)s AND r.status IN ('confirmed', 'checked_in')) AS arrivals,
               count(r.id) FILTER (WHERE r.departure = %(day)s AND r.status IN ('checked_in', 'checked_out'))
                   AS departures,
               count(r.id) FILTER (WHERE r.departure > %(day)s AND r.status IN ('confirmed', 'checked_in')) AS in_house
        FROM hotel.properties p
        JOIN LATERAL (SELECT count(*) AS total FROM hotel.rooms o WHERE o.property_id = p.id AND NOT o.out_of_order)
            AS rooms ON true
        LEFT JOIN hotel.reservations r
            ON r.property_id = p.id AND r.arrival BETWEEN %(day)s::date - 30 AND %(day)s AND r.departure >= %(day)s
        GROUP BY p.id, p.name, p.city, p.stars, rooms.total ORDER BY p.stars DESC, p.name
        """,
        {"day": day},
    ).fetchall()


def arriving(connection: Connection, day: Any, limit: int = 8) -> list[Any]:
    return connection.execute(
        """
        SELECT r.id, r.status, r.arrival, r.departure, r.nights, r.notes, g.full_name AS guest, g.vip,
               p.name AS property, o.number AS room
        FROM hotel.reservations r
        JOIN hotel.guests g ON g.id = r.guest_id
        JOIN hotel.rooms o ON o.id = r.room_id
        JOIN hotel.properties p ON p.id = r.property_id
        WHERE r.arrival > %s AND r.arrival <= %s::date + 2 AND r.status IN ('confirmed', 'tentative')
        ORDER BY r.arrival, g.vip DESC, r.id LIMIT %s
        """,
        (day, day, limit),
    ).fetchall()


def search(connection: Connection, *, words: str, property_id: str, status: str, page: int) -> tuple[list[Any], bool]:
    """One page of reservations, newest arrival first, and whether there are more."""
    conditions = ["true"]
    values: dict[str, Any] = {"limit": PAGE_ROWS + 1, "offset": (page - 1) * PAGE_ROWS}
    if property_id:
        conditions.append("r.property_id = %(property)s")
        values["property"] = property_id
    if status:
        conditions.append("r.status::text = %(status)s")
        values["status"] = status
    if words.isdigit() and len(words) < 18:
        conditions.append("(r.id = %(number)s OR o.number = %(words)s)")
        values |= {"number": int(words), "words": words}
    elif words:
        conditions.append("(g.full_name ILIKE %(like)s OR r.notes ILIKE %(like)s)")
        values["like"] = "%" + words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    rows = connection.execute(
        f"""
        SELECT r.id, r.status, r.arrival, r.departure, r.nights, r.total_amount, r.currency, r.notes,
               g.full_name AS guest, g.vip, p.name AS property, o.number AS room
        FROM hotel.reservations r
        JOIN hotel.guests g ON g.id = r.guest_id
        JOIN hotel.rooms o ON o.id = r.room_id
        JOIN hotel.properties p ON p.id = r.property_id
        WHERE {" AND ".join(conditions)}
        ORDER BY r.arrival DESC, r.id DESC LIMIT %(limit)s OFFSET %(offset)s
        """,
        values,
    ).fetchall()
    return rows[:PAGE_ROWS], len(rows) > PAGE_ROWS


def reservation(connection: Connection, number: int) -> Any:
    """Everything about one; None when there is none. `seen` is its version, for save()."""
    return connection.execute(
        """
        SELECT r.id, r.status::text AS status, r.arrival, r.departure, r.nights, r.adults, r.total_amount, r.currency,
               r.channel, r.notes, r.updated_at, md5(r::text) AS seen, g.full_name AS guest, g.email, g.phone, g.vip,
               p.name AS property, p.city, o.number AS room, t.name AS room_type,
               coalesce((SELECT sum(m.amount) FROM hotel.payments m WHERE m.reservation_id = r.id), 0) AS paid
        FROM hotel.reservations r
        JOIN hotel.guests g ON g.id = r.guest_id
        JOIN hotel.rooms o ON o.id = r.room_id
        JOIN hotel.room_types t ON t.property_id = o.property_id AND t.code = o.type_code
        JOIN hotel.properties p ON p.id = r.property_id
        WHERE r.id = %s
        """,
        (number,),
    ).fetchone()


def history(connection: Connection, number: int) -> list[Any]:
    return connection.execute(
        """
        SELECT old_status, new_status, changed_by, changed_at FROM hotel.reservation_history
        WHERE reservation_id = %s ORDER BY changed_at DESC, id DESC LIMIT 20
        """,
        (number,),
    ).fetchall()


def save(connection: Connection, number: int, edit: Edit) -> None:
    """Raises Moved when the row is not what the person saw, Taken on a double booking."""
    try:
        changed = connection.execute(
            """
            UPDATE hotel.reservations AS r
            SET status = %(status)s::hotel.reservation_status, arrival = %(arrival)s, departure = %(departure)s,
                notes = %(notes)s
            WHERE r.id = %(id)s AND md5(r::text) = %(seen)s
            """,
            {
                "status": edit.status,
                "arrival": edit.arrival,
                "departure": edit.departure,
                "notes": edit.notes,
                "id": number,
                "seen": edit.seen,
            },
        )
    except psycopg.errors.ExclusionViolation as failure:
        raise Taken from failure
    if changed.rowcount == 0:
        raise Moved
