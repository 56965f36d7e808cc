"""Titles as people read them: entities of HTML undone, white space collapsed, what stands for a missing one is missing."""

from __future__ import annotations

import html
import re

NO_TITLE = "The title is missing."
MISSING = frozenset(
    {"", "nan", "NaN", "-nan", "None", "<NA>", "NaT", "null", NO_TITLE}
)  # as programs write a missing value
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_UNSEEN = re.compile("[\x00-\x08\x0e-\x1b\x7f\ufeff]")
_HALF = re.compile("[\ud800-\udfff]")


def undo_entities(text: str) -> str:
    """`&amp;`, `&#39;` and their like to the characters that they stand for, also where they were made twice.

    Only entities that end with `;` are undone, so that `R&D` and `a&b=1` stay what they are.
    """
    while True:
        undone = _ENTITY.sub(lambda match: html.unescape(match[0]), text)
        if undone == text:
            return text
        text = undone


def clean_title(text: str) -> str:
    """A title of one line, or an empty text for a missing one.

    Half surrogate pairs (titles cut in the middle of a character) become U+FFFD; characters without a width that no
    table can hold are left out. Cleaning twice changes nothing.
    """
    if text.isascii() and "&" not in text and text.isprintable():
        plain = text
    else:
        plain = _UNSEEN.sub("", _HALF.sub("\ufffd", undo_entities(text)))
    plain = " ".join(plain.split())
    return "" if plain in MISSING else plain
