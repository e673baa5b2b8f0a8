"""Cut text into sentences and sentences into words that can be compared. Pure, no model."""

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, lru_cache
from typing import Any

import snowballstemmer

from kb import wordlists


class SentenceKind(StrEnum):
    TEXT = "text"
    HEADING = "heading"
    LIST = "list"
    TABLE = "table"
    CODE = "code"


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence, heading, table row or code block; `start`, `end`: [start, end) in the text given.

    List markers, table pipes and the citation markers behind the full stop belong to it;
    surrounding white space does not.
    """

    start: int
    end: int
    kind: SentenceKind = SentenceKind.TEXT


_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})")
_HEADING = re.compile(r"[ \t]*#{1,6}[ \t]+\S")
_LIST_ITEM = re.compile(r"[ \t>]*(?:[-*+•‣◦▪●–]|\(?(?:\d{1,3}|[a-zA-Z])[.)])[ \t]+\S")
_TABLE_ROW = re.compile(r"[ \t]*\|.*\|[ \t]*$")
_RULE = re.compile(
    r"[ \t]*(?:[-=*_][ \t]*){3,}$|[ \t]*\|?[ \t]*:?-{2,}:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$"
)

MARKER_GROUP = r"(?:\[\^?(?:[Ss]ources?[ \t]*)?\d{1,2}(?:[ \t]*[-–,;][ \t]*\d{1,2})*\](?!\()|【\d{1,2}[^】]{0,20}】)"
# The end of a sentence: its stop, closing quotes and brackets, and markers that follow them.
_STOP = re.compile(
    r"(?P<cjk>[。！？｡]+[」』”’）】]*(?!\d))"
    r"|(?P<stop>[.!?…؟।۔։]+)(?P<close>[\"'”’»)\]*_`]*)"
    rf"(?P<marks>(?:[ \t]*{MARKER_GROUP})*)(?=\s|$)"
)
_LAST_WORD = re.compile(r"[^\s(\[\"'“„«*_]+$")
_NEXT_WORD = re.compile(r"\s*[\"'“„«‘(\[*_`]*(\S+)")


def split_sentences(text: str) -> list[Sentence]:
    """Give the sentences of plain or Markdown text in order; they never overlap.

    "Dr. Ho came. She left at 3.5 a.m. [1]\\n- one" has three.
    """
    return [
        sentence
        for kind, start, end in _blocks(text)
        for sentence in _block_sentences(text, kind, start, end)
    ]


def starts_item(text: str, sentence: Sentence) -> bool:
    """Tell whether a sentence opens its list item, rather than going on with it."""
    return bool(_LIST_ITEM.match(text, sentence.start, sentence.end))


def _blocks(text: str) -> Iterator[tuple[SentenceKind, int, int]]:
    """Yield paragraphs, list items, headings, table rows and code blocks; rules are left out."""
    open_kind, start, end, fence = SentenceKind.TEXT, -1, -1, ""
    position = 0
    for line in text.splitlines(keepends=True):
        line_start, position = position, position + len(line)
        bare = line.rstrip()
        line_end = line_start + len(bare)
        if fence:
            end = line_end
            if bare.strip().startswith(fence):
                yield SentenceKind.CODE, start, end
                start, fence = -1, ""
            continue
        kind = _line_kind(bare)
        if start >= 0 and kind != SentenceKind.TEXT or not bare or _RULE.match(bare):
            if start >= 0:
                yield open_kind, start, end
            start = -1
        if not bare or _RULE.match(bare):
            continue
        if kind == SentenceKind.CODE:
            found = _FENCE.match(bare)
            fence = found.group(1) if found else "```"
        if kind in (SentenceKind.HEADING, SentenceKind.TABLE):
            yield kind, line_start, line_end
            continue
        if start < 0:
            open_kind, start = kind, line_start
        end = line_end
    if start >= 0:
        yield (SentenceKind.CODE if fence else open_kind), start, end


def _line_kind(line: str) -> SentenceKind:
    if _FENCE.match(line):
        return SentenceKind.CODE
    if _HEADING.match(line):
        return SentenceKind.HEADING
    if _TABLE_ROW.match(line):
        return SentenceKind.TABLE
    if _LIST_ITEM.match(line):
        return SentenceKind.LIST
    return SentenceKind.TEXT


def _block_sentences(text: str, kind: SentenceKind, start: int, end: int) -> Iterator[Sentence]:
    if kind in (SentenceKind.TEXT, SentenceKind.LIST):
        for stop in _STOP.finditer(text, start, end):
            if stop["cjk"] or _ends_sentence(text, start, stop, end):
                yield from _trimmed(text, kind, start, stop.end())
                start = stop.end()
    yield from _trimmed(text, kind, start, end)


def _trimmed(text: str, kind: SentenceKind, start: int, end: int) -> Iterator[Sentence]:
    part = text[start:end]
    start += len(part) - len(part.lstrip())
    end = start + len(part.strip())
    if start < end:
        yield Sentence(start, end, kind)


def _ends_sentence(text: str, start: int, stop: re.Match[str], end: int) -> bool:
    """Tell a full stop from one inside an abbreviation, initial, ordinal or list number."""
    following = _NEXT_WORD.match(text, stop.end(), end)
    if not following:
        return True
    next_word = following.group(1)
    if next_word[0].islower():
        # Tokenized text writes " . " between sentences and may be in lower case throughout.
        return stop["stop"] == "." and text[stop.start() - 1 : stop.start()] == " "
    if stop["stop"] != "." or stop["close"] or stop["marks"]:
        return True
    # A word longer than 60 characters is no abbreviation; looking further back is quadratic.
    before = _LAST_WORD.search(text, max(start, stop.start() - 60), stop.start())
    if not before:
        return bool(text[start : stop.start()].strip())
    word = before.group().casefold()
    if word.isdigit() and len(word) <= 3:
        month = next_word.casefold().strip(".,;") in wordlists.MONTHS
        return not month and bool(text[start : before.start()].strip())
    if (
        word in wordlists.ABBREVIATIONS
        or (len(word) == 1 and word.isalpha())
        or _DOTTED.match(word)
    ):
        return (
            next_word.strip(",'’").casefold() in wordlists.SENTENCE_OPENERS
            and word not in wordlists.TITLES
        )
    return True


_DOTTED = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]{1,2}$")

_NUMBER = r"\d+(?:[.,]\d+)*"
_WORD = re.compile(rf"{_NUMBER}|[^\W_]+(?:['’][^\W\d_]+)*|[%€$£¥]")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\u0e00-\u0e7f]")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")


def content_words(text: str, language: str = "english") -> list[str]:
    """Give the words that carry meaning, stemmed and without stop words, in order.

    Numbers lose their thousands commas; scripts without spaces become pairs of characters.
    `language` is one that `languages.detect` names. "The cats were running" gives ["cat", "run"].
    """
    stop_words = wordlists.STOP_WORDS.get(language, frozenset())
    return [
        _stem(word, language)
        for word in words(text)
        if word not in stop_words and (len(word) > 1 or word.isdigit() or _CJK.match(word))
    ]


def words(text: str) -> list[str]:
    """Give every word in lower case; see `content_words` for numbers and scripts without spaces."""
    found: list[str] = []
    for match in _WORD.finditer(text):
        word = match.group().casefold().replace("’", "'")
        if word[0].isdigit():
            found.append(_THOUSANDS.sub("", word))
        elif _CJK.match(word):
            found.extend(word[i : i + 2] for i in range(max(1, len(word) - 1)))
        else:
            found.append(word.removesuffix("'s"))
    return found


_STEMMED = frozenset(snowballstemmer.algorithms())
_stemming = threading.Lock()  # a stemmer keeps the word it works on in itself


@lru_cache(maxsize=100_000)
def _stem(word: str, language: str) -> str:
    """Strip endings, so that the forms of a word meet; 60 µs for a new word, hence the cache."""
    if word[0].isdigit() or language not in _STEMMED:
        return word
    with _stemming:
        return str(_stemmer(language).stemWord(word))


@cache
def _stemmer(language: str) -> Any:
    return snowballstemmer.stemmer(language)
