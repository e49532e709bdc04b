"""What production uses and the image lacks is named at once, before anything is copied."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.ports.snapshots import Offer, SourceFacts, SourceUnfit
from orchestrator.core.preflight import check, lacks

FACTS = SourceFacts(
    version="16.4",
    major=16,
    encoding="UTF8",
    collate="C.utf8",
    ctype="C.UTF-8",
    provider="c",
    locale=None,
    extensions={},
    collations=frozenset(),
    columns=(),
    roles=(),
    left_out=(),
    size_bytes=0,
    taken_at=None,
)
OFFER = Offer(18, frozenset({"plpgsql"}), frozenset({"C", "POSIX"}), frozenset({"C.utf8", "C"}))


def test_one_spelling_of_a_locale_is_as_good_as_another() -> None:
    assert lacks(FACTS, OFFER) == []


def test_every_lack_is_named_at_once() -> None:
    needy = replace(
        FACTS,
        major=19,
        collate="de_DE.UTF-8",
        extensions={"postgis": "3.5", "citext": "1.6"},
        collations=frozenset({"en-x-icu"}),
    )
    with pytest.raises(SourceUnfit) as caught:
        check(needy, OFFER)
    assert caught.value.fields["lacks"] == [
        "production is PostgreSQL 19, the image has 18",
        "the extension citext",
        "the extension postgis",
        "the collation en-x-icu",
        "the database's locale de_DE.UTF-8",
    ]


def test_icu_and_builtin_locales_need_an_image_that_has_them() -> None:
    assert lacks(replace(FACTS, provider="i", locale="de"), OFFER) == ["ICU, for the database's locale de"]
    assert lacks(replace(FACTS, provider="i", locale="de"), replace(OFFER, collations=frozenset({"de-x-icu"}))) == []
    old = replace(OFFER, major=16)
    assert lacks(replace(FACTS, provider="b", locale="C.UTF-8"), old) == ["the built-in locale C.UTF-8"]
