"""Draw a stretch of a document's text as HTML: its blocks as they were read, passages marked.

Everything comes from a file that anybody may have written, so every character is escaped here.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

from kb import languages
from kb.pages import BlockKind
from kb.sentences import content_words, split_sentences

Span = tuple[int, int]  # [start, end) in the version's text


class Tint(NamedTuple):
    """A span of the version's text that is a passage; neighbours by `number` differ in colour."""

    start: int
    end: int
    number: int


class Said(NamedTuple):
    """A span of the version's text that an answer took."""

    start: int
    end: int


Mark = Span | Tint | Said
_CELL_END = re.compile(r"(?<!\\)\|")
_DELIMITER_ROW = re.compile(r"\|(?: *:?-+:? *\|)+")
_ITEM = re.compile(r"( *)([-*+•] |\d{1,4}[.)] )?")
_MARKER_KEPT = re.compile(r"\d")
# The share of a claim's content words that a sentence must hold to be where the claim was taken.
_TAKEN_SHARE = 0.6


@dataclass(frozen=True, slots=True)
class Stretch:
    """Part of a version's text: `text` starts at `start` of it. `blocks`: kind, start, end, level."""

    text: str
    start: int
    blocks: tuple[tuple[str, int, int, int], ...]

    def piece(self, start: int, end: int) -> str:
        return self.text[start - self.start : end - self.start]


def sentences_taken(claims: Iterable[str], passage: str) -> list[Span]:
    """Find where in a passage the claims of an answer stand: for each claim its best sentence.

    A claim whose words are spread over the passage, or are not there, has none.
    """
    language = languages.detect(passage)
    sentences = [(s.start, s.end) for s in split_sentences(passage)]
    words = [set(content_words(passage[start:end], language)) for start, end in sentences]
    taken: set[Span] = set()
    for claim in claims:
        wanted = set(content_words(claim, language))
        shares = [len(wanted & held) / len(wanted) if wanted else 0.0 for held in words]
        best = max(shares, default=0.0)
        if best >= _TAKEN_SHARE:
            taken.add(sentences[shares.index(best)])
    return sorted(taken)


def marks_of(passage: Span, taken: Sequence[Span]) -> list[Mark]:
    """Mark a passage, and in it the sentences taken: (0, 9) and [(2, 4)] give three marks."""
    marks: list[Mark] = []
    position = passage[0]
    for start, end in taken:
        marks += [(position, start), Said(start, end)]
        position = end
    return [*marks, (position, passage[1])]


def draw(stretch: Stretch, marks: Sequence[Mark] = ()) -> SafeString:
    """Give the blocks of a stretch as HTML, with the spans of `marks` highlighted or tinted."""
    return mark_safe(
        "\n".join(_block(stretch, block, marks) for block in _without_gaps(stretch.blocks))
    )


def _without_gaps(
    blocks: Iterable[tuple[str, int, int, int]],
) -> Iterator[tuple[str, int, int, int]]:
    """Number headings by their depth: files leave levels out, which loses those who only hear them."""
    above: list[int] = []
    for kind, start, end, level in blocks:
        if kind == BlockKind.HEADING:
            while above and above[-1] >= level:
                above.pop()
            above.append(level)
            level = len(above)
        yield kind, start, end, level


def _block(stretch: Stretch, block: tuple[str, int, int, int], marks: Sequence[Mark]) -> str:
    kind, start, end, level = block
    text = stretch.piece(start, end)
    if kind == BlockKind.TABLE:
        return _table(text, start, marks)
    if kind == BlockKind.LIST:
        return _list(text, start, marks)
    inner = _marked(text, start, marks)
    if kind == BlockKind.HEADING:
        # The page's own headings end at level 2.
        tag = f"h{min(6, level + 2)}"
        return f"<{tag}>{inner}</{tag}>"
    if kind == BlockKind.CODE:
        return f'<pre tabindex="0"><code>{inner}</code></pre>'
    if kind == BlockKind.QUOTE:
        return f"<blockquote><p>{inner}</p></blockquote>"
    return f"<p>{inner}</p>"


def _marked(text: str, start: int, marks: Sequence[Mark]) -> str:
    """Escape text that begins at `start`, with its marked parts in <mark> or a tinted <span>."""
    parts, position = [], 0
    for mark in sorted(marks):
        first, last = max(position, mark[0] - start), min(len(text), mark[1] - start)
        if first < last and text[first:last].strip():
            parts += [escape(text[position:first]), _wrapped(mark, escape(text[first:last]))]
            position = last
    return "".join([*parts, escape(text[position:])])


def _wrapped(mark: Mark, html: str) -> str:
    if isinstance(mark, Said):
        return f'<mark class="said">{html}</mark>'
    if not isinstance(mark, Tint):
        return f"<mark>{html}</mark>"
    side = "odd" if mark.number % 2 else "even"
    return f'<span class="tint {side}" data-passage="{mark.number}">{html}</span>'


def _table(text: str, start: int, marks: Sequence[Mark]) -> str:
    """Draw a Markdown pipe table; the line above the delimiter row is its header."""
    lines = list(_lines(text, start))
    has_header = len(lines) > 1 and bool(_DELIMITER_ROW.fullmatch(lines[1][0].strip()))
    head = _row(*lines[0], "th", marks) if has_header else ""
    rows = lines[2:] if has_header else lines
    body = "".join(_row(line, at, "td", marks) for line, at in rows)
    thead = f"<thead>{head}</thead>" if has_header else ""
    return f'<div class="table-wrap" tabindex="0"><table>{thead}<tbody>{body}</tbody></table></div>'


def _row(line: str, start: int, tag: str, marks: Sequence[Mark]) -> str:
    cells = "".join(
        f"<{tag}>{_marked(cell, at, marks)}</{tag}>" for cell, at in _cells(line, start)
    )
    return f"<tr>{cells}</tr>".replace("\\|", "|")


def _cells(line: str, start: int) -> Iterator[tuple[str, int]]:
    """Cut a row at its pipes: each cell without the blanks around it, and where it starts."""
    position = 1 if line.startswith("|") else 0
    for pipe in _CELL_END.finditer(line, position):
        yield _stripped(line[position : pipe.start()], start + position)
        position = pipe.end()
    if line[position:].strip():
        yield _stripped(line[position:], start + position)


def _stripped(text: str, start: int) -> tuple[str, int]:
    return text.strip(), start + len(text) - len(text.lstrip())


def _list(text: str, start: int, marks: Sequence[Mark]) -> str:
    items: list[str] = []
    for line, at in _lines(text, start):
        opening = _ITEM.match(line)
        indent, marker = opening.groups() if opening else ("", "")
        skipped = len(indent) + (0 if _MARKER_KEPT.match(marker or "") else len(marker or ""))
        inner = _marked(line[skipped:], at + skipped, marks)
        if marker is None and items:
            items[-1] += f"<br>{inner}"
            continue
        numbered = " numbered" if _MARKER_KEPT.match(marker or "") else ""
        items.append(f'<li class="level-{min(4, len(indent) // 2)}{numbered}">{inner}')
    return f'<ul class="items">{"</li>".join(items)}</li></ul>'


def _lines(text: str, start: int) -> Iterator[tuple[str, int]]:
    """Give each line that is not blank, with where it starts."""
    for line in text.split("\n"):
        if line.strip():
            yield line, start
        start += len(line) + 1


def cut(
    blocks: Iterable[tuple[str, int, int, int]], start: int, end: int, text: str, offset: int
) -> tuple[tuple[str, int, int, int], ...]:
    """Keep the blocks that [start, end) touches; long ones only by the lines within.

    `text` begins at `offset` and covers every block that is touched or at least [start, end).
    """
    kept = []
    for kind, block_start, block_end, level in blocks:
        if block_start < end and start < block_end:
            first = _line_start(text, offset, max(block_start, start), block_start)
            last = _line_end(text, offset, min(block_end, end), block_end)
            kept.append((kind, first, last, level))
    return tuple(kept)


def _line_start(text: str, offset: int, position: int, least: int) -> int:
    found = text.rfind("\n", 0, max(0, position - offset))
    return max(least, offset + found + 1, offset)


def _line_end(text: str, offset: int, position: int, most: int) -> int:
    found = text.find("\n", max(0, position - offset))
    return min(most, offset + (found if found >= 0 else len(text)))
