"""Pure: times, sizes and states in words people use. Filters of the page templates."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime

GOOD = frozenset(
    {
        "running",
        "live",
        "ok",
        "approved",
        "promoted",
        "succeeded",
        "finished",
        "allow",
        "published",
        "in_force",
        "enforced",
        "merged",
        "done",
        "committed",
        "ready",
    }
)
WARN = frozenset(
    {
        "launching",
        "candidate",
        "draft",
        "submitted",
        "waiting",
        "queued",
        "approval",
        "stopped",
        "stale",
        "postponed",
        "claimed",
        "conventional",
        "pending",
        "skipped",
    }
)
BAD = frozenset(
    {
        "failed",
        "denied",
        "deny",
        "rejected",
        "conflicted",
        "removing",
        "dead",
        "broken",
        "expired",
        "error",
        "refused",
        "timed_out",
    }
)
# What browsers and machines call themselves; most browsers name others too, so the first that fits counts.
BROWSERS = (
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("CriOS/", "Chrome"),
    ("Safari/", "Safari"),
)
SYSTEMS = (
    ("iPhone", "an iPhone"),
    ("iPad", "an iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("Mac OS X", "a Mac"),
    ("CrOS", "ChromeOS"),
    ("Linux", "Linux"),
)
HIDDEN = {"Cf", "Cc", "Co", "Cn", "Zl", "Zp"}


def relative(at: datetime, now: datetime | None = None) -> str:
    """`3 min ago`, `in 1 h 20 min` or `in 5 h`: to the minute as long as somebody might wait for it."""
    seconds = ((now or datetime.now(UTC)) - at).total_seconds()
    amount = abs(seconds)
    if amount < 2:
        return "just now"
    if 45 * 60 <= amount < 3 * 3600:
        shown = duration(round(amount / 60) * 60)
    else:
        units = ((45, 1, "s"), (45 * 60, 60, "min"), (36 * 3600, 3600, "h"), (float("inf"), 86400, "d"))
        unit_s, unit = next((size_s, unit) for limit_s, size_s, unit in units if amount < limit_s)
        shown = f"{round(amount / unit_s)} {unit}"
    return f"in {shown}" if seconds < 0 else f"{shown} ago"


def absolute(at: datetime) -> str:
    """UTC to the second, as it stands in logs and the audit trail."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def size(count_bytes: float | None) -> str:
    """Binary multiples with at most one decimal: `1.5 GiB`."""
    if count_bytes is None:
        return "unknown"
    amount = float(count_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(amount) < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def duration(seconds: float | None) -> str:
    """`45 ms`, `2.3 s`, `4 min 10 s`, `4 h`."""
    if seconds is None:
        return "unknown"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    hours, minutes, left = int(seconds // 3600), int(seconds % 3600 // 60), int(seconds % 60)
    parts = ((hours, "h"), (minutes, "min")) if hours else ((minutes, "min"), (left, "s"))
    return " ".join(f"{amount} {unit}" for amount, unit in parts if amount)


def browser(agent: str) -> str:
    """`Firefox on Windows`, from what a browser says about itself; as it stands when it names neither."""
    names = [name for sign, name in BROWSERS if sign in agent]
    systems = [name for sign, name in SYSTEMS if sign in agent]
    return f"{names[0]} on {systems[0]}" if names and systems else agent


def tone(state: object) -> str:
    """The colour family of a state: good, warn, bad or none. Never the only carrier of the meaning."""
    word = str(state)
    return "good" if word in GOOD else "warn" if word in WARN else "bad" if word in BAD else ""


def visible(text: object, limit: int = 2000) -> str:
    """Hostile text made harmless to the eye: invisible and direction-changing characters become escapes."""
    text = str(text).replace("\r\n", "\n")
    shown = "".join(
        character
        if character in "\n\t" or unicodedata.category(character) not in HIDDEN
        else f"\\u{ord(character):04x}"
        for character in text[:limit]
    )
    return shown + (f"… ({len(text):,} characters)" if len(text) > limit else "")


def number(count: float | None) -> str:
    """`12,345`."""
    return "unknown" if count is None else f"{count:,}"


def many(count: int, word: str, plural: str = "") -> str:
    """`1 row`, `2 rows`, `3 entries`."""
    return f"{count:,} {word if count == 1 else plural or word + 's'}"


def words(name: object) -> str:
    """A name of ours as people read it: `over_limit` is `over limit`."""
    return str(name).replace("_", " ")
