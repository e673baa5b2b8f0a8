"""Where a text may be cut: blocks into items, rows and sentences, and at last into words. Pure."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import pairwise

from kb.pages import Block, BlockKind, Page, page_offsets
from kb.sentences import split_sentences

Span = tuple[int, int]

LONGEST_HEADING = 200  # characters; a longer one is a paragraph in bold
SENTENCE_SEARCH = 5_000  # characters in which sentences are looked for at once
WORDS, CHARACTERS = 80, 24  # characters in a piece of a text without better places to cut


class Strength(IntEnum):
    """How far neighbours are apart: atoms at the weakest boundaries are put together first."""

    WORD = 0
    CLAUSE = 1
    SENTENCE = 2
    LINE = 3
    ITEM = 4  # of a list, row of a table
    INTRODUCED = 5  # what comes before ends with a colon
    BLOCK = 6
    PAGE = 7


@dataclass(frozen=True, slots=True)
class Atom:
    """A stretch of a document's text that stays in one piece; no white space at its ends.

    `start`, `end`: [start, end) in the document. `strength`: of the boundary before it. `grain`:
    the entry of `GRAINS` that made it, -1 for a whole block. `header`: the header rows of the long
    table that it is a row of. `size`, `header_size`: in tokens, 0 until they are counted.
    """

    start: int
    end: int
    kind: BlockKind
    strength: Strength
    grain: int = -1
    header: Span | None = None
    size: int = 0
    header_size: int = 0


def block_atoms(pages: Sequence[Page], text: str) -> Iterator[tuple[int, Atom]]:
    """Yield every block that holds anything, and its level if it is a heading, else 0."""
    before: Atom | None = None
    for page, offset in zip(pages, page_offsets(pages), strict=True):
        strength = Strength.PAGE
        for block in page.blocks or (Block(BlockKind.TEXT, 0, len(page.text)),):
            content = page.text[block.start : block.end]
            if not content.strip():
                continue
            start = offset + block.start + len(content) - len(content.lstrip())
            end = start + len(content.strip())
            if before and text[before.end - 1] == ":":
                strength = Strength.INTRODUCED
            before = Atom(start, end, block.kind, strength)
            is_heading = block.kind is BlockKind.HEADING and end - start <= LONGEST_HEADING
            yield max(block.level, 1) if is_heading else 0, before
            strength = Strength.BLOCK


def divide(atom: Atom, text: str) -> list[Atom]:
    """Cut an atom of `text` in the coarsest way that gives two or more; [atom] if none does."""
    content = text[atom.start : atom.end]
    for grain, (strength, find_cuts) in enumerate(GRAINS[atom.grain + 1 :], atom.grain + 1):
        pieces = list(_pieces(content, find_cuts(content, atom.kind)))
        if len(pieces) > 1:
            return [
                replace(
                    atom,
                    start=atom.start + start,
                    end=atom.start + end,
                    strength=strength if i else atom.strength,
                    grain=grain,
                    size=0,
                )
                for i, (start, end) in enumerate(pieces)
            ]
    return [atom]


def divide_table(atom: Atom, text: str) -> list[Atom]:
    """Cut a Markdown table into rows that name its two header rows; [] where it has none."""
    content = text[atom.start : atom.end]
    lines = list(_pieces(content, _line_starts(content)))
    if len(lines) < 3 or not _DELIMITER_ROW.fullmatch(content[slice(*lines[1])]):
        return []
    header = (atom.start + lines[0][0], atom.start + lines[1][1])
    return [
        Atom(
            start=atom.start + start,
            end=atom.start + end,
            kind=atom.kind,
            strength=Strength.ITEM if i else atom.strength,
            grain=_LINES,
            header=header,
        )
        for i, (start, end) in enumerate(lines[2:])
    ]


def _pieces(content: str, cuts: Iterable[int]) -> Iterator[Span]:
    """Yield the stretches between cuts, less the white space at their ends."""
    for start, end in pairwise(sorted({0, *cuts, len(content)})):
        part = content[start:end]
        start += len(part) - len(part.lstrip())
        end = start + len(part.strip())
        if start < end:
            yield start, end


_DELIMITER_ROW = re.compile(r"\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?")
_ITEM = re.compile(r"^([ \t]*)(?:[-*+•‣◦▪●–]|\(?(?:\d{1,3}|[a-zA-Z])[.)])[ \t]", re.MULTILINE)
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_CLAUSE_END = re.compile(r"[.!?;:,|]\s+|[、，；：]")
_LAST_SPACE = re.compile(r"\s\S*\Z")


def _item_cuts(content: str, kind: BlockKind) -> Iterable[int]:
    """Find the outermost items of a list, and the stretches of code between empty lines."""
    if kind is BlockKind.CODE:
        return [match.end() for match in _BLANK_LINE.finditer(content)]
    if kind is not BlockKind.LIST:
        return []
    items = [(len(match[1].expandtabs(4)), match.start()) for match in _ITEM.finditer(content)]
    outermost = min((indent for indent, _ in items), default=0)
    return [start for indent, start in items if indent == outermost]


def _structure_cuts(content: str, kind: BlockKind) -> Iterable[int]:
    """Find the lines of what is written in lines."""
    if kind in (BlockKind.LIST, BlockKind.CODE, BlockKind.TABLE):
        return _line_starts(content)
    return []


def _sentence_cuts(content: str, kind: BlockKind) -> Iterator[int]:
    if kind in (BlockKind.CODE, BlockKind.TABLE):
        return
    for start, end in _stretches(content, SENTENCE_SEARCH):
        yield from (start + sentence.start for sentence in split_sentences(content[start:end]))


def _line_cuts(content: str, kind: BlockKind) -> Iterable[int]:
    return _line_starts(content)


def _clause_cuts(content: str, kind: BlockKind) -> Iterable[int]:
    return [match.end() for match in _CLAUSE_END.finditer(content)]


def _word_cuts(content: str, kind: BlockKind) -> Iterable[int]:
    return [start for start, _ in _stretches(content, WORDS)]


def _character_cuts(content: str, kind: BlockKind) -> Iterable[int]:
    return [_past_marks(content, cut) for cut in range(CHARACTERS, len(content), CHARACTERS)]


def _line_starts(content: str) -> list[int]:
    return [match.end() for match in re.finditer(r"\n", content)]


def _stretches(content: str, longest: int) -> Iterator[Span]:
    """Cut at white space into stretches of at most `longest` characters, inside longer words too."""
    start = 0
    while start + longest < len(content):
        space = _LAST_SPACE.search(content, start + 1, start + longest)
        end = space.start() + 1 if space else _past_marks(content, start + longest)
        yield start, end
        start = end
    yield start, len(content)


def _past_marks(content: str, cut: int) -> int:
    """Move a cut behind the accents that belong to the letter before it."""
    while cut < len(content) and unicodedata.combining(content[cut]):
        cut += 1
    return cut


GRAINS: tuple[tuple[Strength, Callable[[str, BlockKind], Iterable[int]]], ...] = (
    (Strength.ITEM, _item_cuts),
    (Strength.LINE, _structure_cuts),
    (Strength.SENTENCE, _sentence_cuts),
    (Strength.LINE, _line_cuts),
    (Strength.CLAUSE, _clause_cuts),
    (Strength.WORD, _word_cuts),
    (Strength.WORD, _character_cuts),
)
_LINES = 1
