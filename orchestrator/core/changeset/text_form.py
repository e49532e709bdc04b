"""The settings under which PostgreSQL prints a value, pinned so that equal values are equal text everywhere."""

from __future__ import annotations

from collections.abc import Mapping

# Whoever reads or writes cells (diff, promote, rehearsal) sets exactly these for its session.
PINNED_SETTINGS: Mapping[str, str] = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "xmloption": "content",
    "search_path": "",
    "row_security": "off",  # rows hidden by a policy are an error, never a silent gap
}
