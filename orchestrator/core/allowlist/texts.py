"""Characters that mislead: what must never be in an argument, and how any text is shown to a person who decides."""

from __future__ import annotations

import re
import unicodedata

ARGUMENTS_MAX = 512
ARGUMENT_BYTES_MAX = 65_536
ARGV_BYTES_MAX = 131_072

# C0 without tab and newline, DEL, C1. Tab and newline are refused by every value type but text that may have lines.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
LINES = re.compile(r"[\t\n]")
# Direction overrides and isolates, zero-width characters, line and paragraph separators, fillers, tags, variation
# selectors: they change what a person sees, not what a program gets.
MISLEADING = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff"
    "\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
)


def problem_in(argument: str) -> str | None:
    """Why this argument can be part of no command at all, None when it can."""
    try:
        size = len(argument) if argument.isascii() else len(argument.encode())
    except UnicodeEncodeError:
        return "is not valid UTF-8"
    if size > ARGUMENT_BYTES_MAX:
        return f"has {size} bytes, the limit is {ARGUMENT_BYTES_MAX}"
    if CONTROL.search(argument):
        return "holds a control character"
    return None


def is_misleading(text: str) -> bool:
    """Whether `text` would be seen differently from what it is."""
    return not text.isascii() and MISLEADING.search(text) is not None


def mixes_scripts(text: str) -> bool:
    """Whether one word mixes Latin letters with Greek or Cyrillic ones that look like them."""
    if text.isascii():
        return False
    for word in re.findall(r"\w+", text):
        scripts = {unicodedata.name(letter, "").split(" ", 1)[0] for letter in word if letter.isalpha()}
        if "LATIN" in scripts and scripts & {"CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE"}:
            return True
    return False


def shown(text: str) -> str:
    """`text` for the eyes of a person who decides: every character that could mislead is written as its code.

    Controls, direction marks, zero-width and unassigned characters, odd blanks and letters of another script inside
    a Latin word become `\\u{202E}`; the rest stays as it is. The result holds printable characters only.
    """
    if text.isascii() and text.isprintable():
        return text.replace("\\u{", "\\u{5C}u{")
    mixed = mixes_scripts(text)
    return "".join(_shown(letter, mixed=mixed) for letter in text.replace("\\u{", "\\u{5C}u{"))


def _shown(letter: str, *, mixed: bool) -> str:
    if letter.isascii() and letter.isprintable():
        return letter
    category = unicodedata.category(letter)
    if category[0] == "C" or category in ("Zs", "Zl", "Zp") or MISLEADING.match(letter):
        return f"\\u{{{ord(letter):02X}}}"
    if mixed and not unicodedata.name(letter, "").startswith("LATIN"):
        return f"\\u{{{ord(letter):02X}}}"
    return letter


def shown_argv(argv: tuple[str, ...]) -> str:
    """An argv as one line in which every argument's ends can be seen: plain words bare, all others in quotes."""
    return " ".join(_quoted(argument) for argument in argv)


def _quoted(argument: str) -> str:
    text = shown(argument)
    if re.fullmatch(r"[A-Za-z0-9_@%+=:,./-]+", text):
        return text
    return "'" + text.replace("'", "\\u{27}") + "'"
