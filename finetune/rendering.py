"""Text of pairs as HTML: what is marked in it, and what differs between two texts. Pure.

Pairs come from files that anybody may have written, so every character is escaped here.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from typing import NamedTuple

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from kb.citations import find_citations
from kb.reading import sentences_taken
from kb.sentences import MARKER_GROUP, split_sentences


class Mark(NamedTuple):
    """A span [start, end) of a text; `label` is said on hover."""

    start: int
    end: int
    kind: str
    label: str = ""


_CITATION = re.compile(MARKER_GROUP)
_WORD = re.compile(r"\w+|\s+|[^\w\s]")
# Longer texts are compared line by line: words would take seconds.
_MOST_WORDS = 4_000


def marked(text: str, marks: Iterable[Mark]) -> SafeString:
    """Give a text with its marks as <mark>; of two that overlap the first stays whole."""
    pieces, position = [], 0
    for mark in sorted(marks):
        start, end = max(mark.start, position), min(mark.end, len(text))
        if start >= end:
            continue
        pieces.append(format_html("{}", text[position:start]))
        pieces.append(
            format_html(
                '<mark class="{}" title="{}">{}</mark>', mark.kind, mark.label, text[start:end]
            )
        )
        position = end
    return mark_safe("".join([*pieces, format_html("{}", text[position:])]))


def supporting(output: str, marker: int, passage: str) -> list[Mark]:
    """Mark in a passage the sentences that the output took from it, by what cites its marker."""
    claims = []
    cited = find_citations(output)
    for sentence in split_sentences(output):
        named = {c.marker for c in cited if sentence.start <= c.start < sentence.end}
        if marker in named or not named:
            claims.append(_CITATION.sub("", output[sentence.start : sentence.end]))
    return [Mark(start, end, "said") for start, end in sentences_taken(claims, passage)]


class Piece(NamedTuple):
    """A part of two texts: "same", "gone" or "new"."""

    kind: str
    text: str


def differences(old: str, new: str) -> list[Piece]:
    """Compare two texts word by word: ("a b", "a c") is same "a ", gone "b", new "c"."""
    before, after = _WORD.findall(old), _WORD.findall(new)
    if len(before) + len(after) > _MOST_WORDS:
        before, after = old.splitlines(keepends=True), new.splitlines(keepends=True)
    return list(_pieces(before, after))


def _pieces(before: Sequence[str], after: Sequence[str]) -> Iterator[Piece]:
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "equal":
            yield Piece("same", "".join(before[a:b]))
            continue
        if a < b:
            yield Piece("gone", "".join(before[a:b]))
        if c < d:
            yield Piece("new", "".join(after[c:d]))


_TAGS = {"gone": "del", "new": "ins"}


def difference(old: str, new: str) -> SafeString:
    """Give the difference of two texts as HTML, with <del> and <ins>."""
    return format_html_join(
        "",
        "{}{}{}",
        (
            (mark_safe(f"<{tag}>"), piece.text, mark_safe(f"</{tag}>"))
            if (tag := _TAGS.get(piece.kind))
            else ("", piece.text, "")
            for piece in differences(old, new)
        ),
    )
