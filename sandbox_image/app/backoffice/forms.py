"""What a submitted form must look like, and in which words it is refused."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from urllib.parse import parse_qs

STATUSES = ("tentative", "confirmed", "checked_in", "checked_out", "cancelled", "no_show")
NOTES_LENGTH_MAX = 2000
NIGHTS_MAX = 60


@dataclass(frozen=True)
class Edit:
    """A change of one reservation, as a person typed it."""

    status: str
    arrival: date
    departure: date
    notes: str | None
    seen: str  # the version of the row the person saw


class Refused(Exception):
    """What is wrong, by field, in plain words."""

    def __init__(self, problems: dict[str, str]) -> None:
        super().__init__("; ".join(problems.values()))
        self.problems = problems


def fields(body: bytes) -> dict[str, str]:
    """The first value of every field of an urlencoded form."""
    parsed = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=50)
    return {name: values[0] for name, values in parsed.items()}


def edit_of(submitted: dict[str, str]) -> Edit:
    """Raises Refused with every problem at once."""
    problems: dict[str, str] = {}
    status = submitted.get("status", "")
    if status not in STATUSES:
        problems["status"] = "Choose one of the statuses."
    arrival = _day(submitted, "arrival", problems)
    departure = _day(submitted, "departure", problems)
    if arrival and departure:
        if departure <= arrival:
            problems["departure"] = "Departure must be after arrival."
        elif (departure - arrival).days > NIGHTS_MAX:
            problems["departure"] = f"A stay has at most {NIGHTS_MAX} nights."
    notes = submitted.get("notes", "").replace("\r\n", "\n").strip()
    if len(notes) > NOTES_LENGTH_MAX:
        problems["notes"] = f"The note has more than {NOTES_LENGTH_MAX} characters."
    if "\0" in notes:
        problems["notes"] = "The note holds a character that cannot be stored."
    if problems or arrival is None or departure is None:
        raise Refused(problems)
    return Edit(status, arrival, departure, notes or None, submitted.get("seen", ""))


def _day(submitted: dict[str, str], name: str, problems: dict[str, str]) -> date | None:
    try:
        return date.fromisoformat(submitted.get(name, ""))
    except ValueError:
        problems[name] = "Enter a date."
        return None


def whole(text: str | None, default: int, low: int, high: int) -> int:
    """A number from an address, or the default when it is none."""
    try:
        return min(high, max(low, int(text or "")))
    except ValueError:
        return default
