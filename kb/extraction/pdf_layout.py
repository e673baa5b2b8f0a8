"""From lines on pages to headings, paragraphs, lists, code and tables. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from kb.extraction.pdf_headings import mark_headings, same_heading
from kb.extraction.pdf_lines import (
    BULLET,
    DOT_LEADER,
    NEW_PARAGRAPH,
    OutlineItem,
    PageLayout,
    Segment,
    drop_running_lines,
    merge_raised,
    usual_pitches,
)
from kb.extraction.pdf_tables import Table
from kb.extraction.writing import Cleaner, PageWriter
from kb.pages import BlockKind, Line, Page

NUMBERED = re.compile(r"\(?(?:\d{1,3}|[a-zA-Z]|[ivx]{1,5})[.)]\s+\S")
SENTENCE_END = re.compile(r"[.!?:。！？]['\"”’)\]]*$")


def build(
    layouts: Sequence[PageLayout], outline: Sequence[OutlineItem], clean: Cleaner
) -> list[Page]:
    """Turn the lines of all pages into pages of blocks."""
    for layout in layouts:
        layout.segments = list(merge_raised(layout.segments))
    drop_running_lines(layouts)
    pitches = usual_pitches(layouts)
    mark_headings(layouts, outline, pitches)
    words = _hyphenated_words(layouts)
    return [_PageBuilder(layout, clean, pitches, words).build() for layout in layouts]


def _hyphenated_words(layouts: Sequence[PageLayout]) -> set[str]:
    """Collect words written with a hyphen inside a line, such as "state-of-the-art"."""
    words: set[str] = set()
    for layout in layouts:
        for segment in layout.segments:
            if "-" in segment.text:
                words.update(re.findall(r"\w+(?:-\w+)+", segment.text.casefold()))
    return words


@dataclass(slots=True)
class _PageBuilder:
    """Writes one page; `open` holds the lines of the block that may still grow."""

    layout: PageLayout
    clean: Cleaner
    pitches: dict[float, float]
    hyphenated: set[str]
    writer: PageWriter = field(init=False)
    lines: list[Line] = field(default_factory=list)
    open: list[Segment] = field(default_factory=list)
    kind: BlockKind = BlockKind.TEXT

    def build(self) -> Page:
        self.writer = PageWriter(self.clean)
        waiting = list(self.layout.tables)
        for segment in self.layout.segments:
            table = next((t for t in self.layout.tables if _is_inside(segment, t)), None)
            if table is not None:
                if table in waiting:
                    self._write_table(table)
                    waiting.remove(table)
                continue
            if not self._fits(segment):
                self._flush()
                self.kind = _kind(segment)
            self.open.append(segment)
        for table in waiting:
            self._write_table(table)
        self._flush()
        layout = self.layout
        return self.writer.page(
            layout.number,
            label=layout.label,
            lines=self.lines,
            width=layout.width,
            height=layout.height,
        )

    def _fits(self, segment: Segment) -> bool:
        """Say whether the line goes on with the open block."""
        if not self.open:
            return False
        last, kind = self.open[-1], _kind(segment)
        if self.kind is BlockKind.HEADING or kind is BlockKind.HEADING:
            return self.kind is kind and segment.level == last.level and same_heading(last, segment)
        if BlockKind.CODE in (self.kind, kind):
            return self.kind is kind and segment.base - last.base < 4 * last.size
        if kind is BlockKind.LIST:
            return self.kind is BlockKind.LIST and self._pitch(last, segment) < 2.2
        if abs(segment.base - last.base) < 0.3 * last.size and segment.x0 > last.x0:
            return True
        return self._continues_paragraph(last, segment)

    def _continues_paragraph(self, last: Segment, segment: Segment) -> bool:
        if not 0.85 < segment.size / max(last.size, 0.1) < 1.18:
            return False
        pitch = self._pitch(last, segment)
        if pitch < 0.3:  # the next column, or back to the top
            unfinished = last.ends_in_hyphen or not SENTENCE_END.search(last.text)
            return unfinished and segment.text[:1].islower()
        if pitch > NEW_PARAGRAPH:
            return False
        if last.is_bold != segment.is_bold and len(self.open) == 1:
            return False
        right = max(line.x1 for line in self.open)
        is_short = last.x1 < right - 0.15 * (right - last.x0) or len(self.open) == 1
        is_indented = 0.6 * segment.size < segment.x0 - self.open[-1].x0 < 5 * segment.size
        ended = SENTENCE_END.search(last.text) is not None
        if self.kind is BlockKind.LIST:
            return segment.x0 > self.open[0].x0 + 0.3 * segment.size
        return not (
            ended and (is_indented and len(self.open) > 1 or is_short and len(self.open) > 1)
        )

    def _pitch(self, last: Segment, segment: Segment) -> float:
        """Give the step down to the next line as a multiple of the usual one."""
        usual = self.pitches.get(last.style[0], 1.2 * max(last.size, 1))
        return (segment.base - last.base) / min(usual, 1.8 * max(last.size, 1))

    def _flush(self) -> None:
        if not self.open:
            return
        text, spans = self._joined()
        level = self.open[0].level
        start = self.writer.add(self.kind, text, level)
        if start is not None:
            for segment, (begin, end) in zip(self.open, spans, strict=True):
                box = segment.x0, segment.y0, segment.x1, segment.y1
                self.lines.append(Line(start + begin, start + end, *box))
        self.open = []

    def _joined(self) -> tuple[str, list[tuple[int, int]]]:
        """Join the open lines; gives each one's span in the result."""
        text, spans = "", []
        left = min(segment.x0 for segment in self.open)
        for position, segment in enumerate(self.open):
            glue = self._glue(self.open[position - 1], segment) if position else ""
            if self.kind is BlockKind.CODE and position:
                glue += " " * min(int((segment.x0 - left) / (0.55 * max(segment.size, 1))), 40)
            text += glue
            spans.append((len(text), len(text) + len(segment.text)))
            text += segment.text
        return text, spans

    def _glue(self, last: Segment, segment: Segment) -> str:
        """Give what stands between two lines: nothing after a broken word, else space or line end."""
        if self.kind is BlockKind.CODE or _kind(segment) is BlockKind.LIST:
            return "\n"
        if DOT_LEADER.search(last.text):
            return "\n"  # an entry of a table of contents
        if last.ends_in_hyphen:
            head, tail = re.search(r"[\w-]*$", last.text), re.match(r"[\w-]+", segment.text)
            if head and tail and f"{head[0]}-{tail[0]}".casefold() in self.hyphenated:
                return "-"
            return "" if segment.text[:1].islower() else "-"
        return " "

    def _write_table(self, table: Table) -> None:
        self._flush()
        start = self.writer.add(BlockKind.TABLE, table.text)
        if start is not None:
            self.lines.extend(Line(start + a, start + b, *box) for a, b, box in table.lines)


def _kind(segment: Segment) -> BlockKind:
    if segment.level:
        return BlockKind.HEADING
    if segment.is_mono:
        return BlockKind.CODE
    if BULLET.match(segment.text) or NUMBERED.match(segment.text):
        return BlockKind.LIST
    return BlockKind.TEXT


def _is_inside(segment: Segment, table: Table) -> bool:
    x, y = (segment.x0 + segment.x1) / 2, (segment.y0 + segment.y1) / 2
    return table.box[0] <= x <= table.box[2] and table.box[1] <= y <= table.box[3]
