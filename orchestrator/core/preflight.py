"""Whether the tenants' PostgreSQL image can hold what production has. Pure."""

from __future__ import annotations

from orchestrator.core.ports.snapshots import Offer, SourceFacts, SourceUnfit

ALWAYS_THERE = frozenset({"c", "posix"})


def normal_locale(name: str) -> str:
    """One spelling of a C library locale: `C.UTF-8` and `c.utf8` are the same."""
    return name.lower().replace("-", "").replace("_", "")


def lacks(facts: SourceFacts, offer: Offer) -> list[str]:
    """Everything production uses that the image does not have, in words; empty when it fits."""
    found = []
    if facts.major > offer.major:
        found.append(f"production is PostgreSQL {facts.major}, the image has {offer.major}")
    found += [f"the extension {name}" for name in sorted(set(facts.extensions) - offer.extensions)]
    found += [f"the collation {name}" for name in sorted(facts.collations - offer.collations)]
    known = {normal_locale(name) for name in offer.locales} | ALWAYS_THERE
    if facts.provider == "c":
        wanted = sorted({facts.collate, facts.ctype})
        found += [f"the database's locale {name}" for name in wanted if normal_locale(name) not in known]
    elif facts.provider == "i" and not any(name.endswith("-x-icu") for name in offer.collations):
        found.append(f"ICU, for the database's locale {facts.locale}")
    elif facts.provider == "b" and offer.major < 17:
        found.append(f"the built-in locale {facts.locale}")
    return found


def check(facts: SourceFacts, offer: Offer) -> None:
    """Raises SourceUnfit naming every lack at once."""
    found = lacks(facts, offer)
    if found:
        raise SourceUnfit(
            f"The tenants' PostgreSQL image lacks {len(found)} thing(s) production uses: {'; '.join(found)}.",
            effect="No snapshot was made; the last good one stays in force.",
            next_step="Name an image that has them as the tenants' PostgreSQL image in configs/orchestrator.yaml.",
            lacks=found,
        )
