"""From lines on pages to headings, paragraphs and lists. Pure: knows boxes and sizes, not PDF.

Headings come from the document's outline where its titles are found on their pages; otherwise
from size, weight, numbering and the gap above. Lines that repeat on many pages at one height
(running headers, footers, page numbers) are left out.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from kb.extraction.pdf_tables import Table
from kb.extraction.writing import Cleaner, PageWriter
from kb.pages import BlockKind, Line, Page

MOST_OUTLINE_ITEMS = 20_000
MARGIN = 0.13  # share of the page's height, at top and bottom, where running lines stand
REPEATED_PAGES = 3  # a line must stand on as many pages, and on this share of them:
REPEATED_SHARE = 0.25
OUTLINE_FOUND = 0.5  # share of the outline's titles found on their pages, to trust it
LARGER = 1.12  # a heading's size over the text's
NEW_PARAGRAPH = 1.3  # pitch between two lines over the usual one
LONGEST_HEADING = 200  # characters

BULLET = re.compile(r"[•◦▪■●○‣⁃∙▸►➢➤✓✔❖·\uf0b7\uf0a7\uf0d8]\s*(?=\S)|[-–—*]\s+(?=\S)")
NUMBERED = re.compile(r"\(?(?:\d{1,3}|[a-zA-Z]|[ivx]{1,5})[.)]\s+\S")
SECTION = re.compile(
    r"((?:\d{1,3}|[A-Z])(?:\.\d{1,3})*)\.?\s+\S|(?:chapter|part|appendix)\s+\w", re.I
)
DOT_LEADER = re.compile(r"\s*(?:\.\s?){4,}|\s*…[\s…]*")
SENTENCE_END = re.compile(r"[.!?:。！？]['\"”’)\]]*$")


@dataclass(slots=True)
class Segment:
    """A line of text as it stands on the page. `base`: the baseline; `size`: of its letters."""

    text: str
    x0: float
    y0: float
    x1: float
    y1: float
    base: float
    size: float
    is_bold: bool = False
    is_mono: bool = False
    ends_in_hyphen: bool = False
    level: int = 0  # of a heading

    def is_within(self, width: float, height: float) -> bool:
        """Say whether any of it is on a page of this size."""
        return self.x1 > 0 and self.x0 < width and self.y1 > 0 and self.y0 < height

    def clip(self, width: float, height: float) -> None:
        """Cut off what hangs over the page's edge."""
        self.x0, self.y0 = max(self.x0, 0.0), max(self.y0, 0.0)
        self.x1, self.y1 = min(self.x1, width), min(self.y1, height)

    @property
    def style(self) -> tuple[float, bool]:
        return round(self.size * 2) / 2, self.is_bold


@dataclass(slots=True)
class PageLayout:
    number: int
    width: float = 0.0
    height: float = 0.0
    label: str = ""
    segments: list[Segment] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    is_scan: bool = False


@dataclass(frozen=True, slots=True)
class OutlineItem:
    title: str
    level: int
    page_index: int


def build(
    layouts: Sequence[PageLayout], outline: Sequence[OutlineItem], clean: Cleaner
) -> list[Page]:
    """Turn the lines of all pages into pages of blocks."""
    for layout in layouts:
        layout.segments = list(_merge_raised(layout.segments))
    _drop_running_lines(layouts)
    body = _body_style(layouts)
    pitches = _usual_pitches(layouts)
    if not _mark_outline(layouts, outline):
        _mark_by_style(layouts, body, pitches)
    words = _hyphenated_words(layouts)
    return [_PageBuilder(layout, clean, pitches, words).build() for layout in layouts]


def _merge_raised(segments: list[Segment]) -> Iterator[Segment]:
    """Join what stands on one line: superscripts, and parts between which PDFium saw a break."""
    last: Segment | None = None
    for segment in segments:
        if last is not None and _continues_line(last, segment):
            gap = segment.x0 - last.x1
            last.text += ("" if gap < 0.12 * last.size else " ") + segment.text
            if len(segment.text) > len(last.text) / 2:
                last.base, last.size = segment.base, max(segment.size, last.size)
            last.y0, last.y1 = min(last.y0, segment.y0), max(last.y1, segment.y1)
            last.x1 = max(last.x1, segment.x1)
            last.is_bold = last.is_bold and segment.is_bold
            last.is_mono = last.is_mono and segment.is_mono
            last.ends_in_hyphen = segment.ends_in_hyphen
        else:
            if last is not None:
                yield last
            last = segment
    if last is not None:
        yield last


def _continues_line(last: Segment, segment: Segment) -> bool:
    overlap = min(last.y1, segment.y1) - max(last.y0, segment.y0)
    lower = min(last.y1 - last.y0, segment.y1 - segment.y0)
    gap = segment.x0 - last.x1
    near = -0.3 * last.size <= gap <= 1.0 * max(last.size, segment.size)
    return near and overlap >= 0.4 * lower and not last.ends_in_hyphen


def _drop_running_lines(layouts: Sequence[PageLayout]) -> None:
    """Remove headers, footers and page numbers.

    They stand at one height on several pages, and there they either have the same words (digits
    aside) or count with the pages, as "7 2.1. NAMING" and "9 2.2. PARSING" on pages 8 and 10 do.
    """
    places: dict[tuple[str | int, int], dict[int, Segment]] = defaultdict(dict)
    for layout in layouts:
        for segment in _margin_segments(layout):
            height = round(segment.base / 4)
            words = re.sub(r"\d+|\b[ivxlc]+\b", "#", segment.text.casefold())
            numbers = re.findall(r"^\d{1,4}\b|\b\d{1,4}$", segment.text)
            offsets = {int(number) - layout.number for number in numbers}
            keys: list[str | int] = [words, *offsets]
            for nearby in (height - 1, height, height + 1):  # 4 points of play each way
                for key in keys:
                    places[key, nearby][layout.number] = segment
    least = max(REPEATED_PAGES, REPEATED_SHARE * len(layouts))
    running: dict[int, set[int]] = defaultdict(set)
    for (key, _), found in places.items():
        if len(found) >= (REPEATED_PAGES if isinstance(key, int) or "#" in key else least):
            for number, segment in found.items():
                running[number].add(id(segment))
    for layout in layouts:
        kept = [s for s in layout.segments if id(s) not in running[layout.number]]
        if kept or layout.tables:
            layout.segments = kept


def _margin_segments(layout: PageLayout) -> list[Segment]:
    """Give up to three lines at the top and at the bottom edge."""
    top = sorted((s for s in layout.segments if s.y1 < MARGIN * layout.height), key=lambda s: s.y0)
    bottom = sorted(
        (s for s in layout.segments if s.y0 > (1 - MARGIN) * layout.height), key=lambda s: -s.y1
    )
    return top[:3] + bottom[:3]


def _body_style(layouts: Sequence[PageLayout]) -> float:
    """Give the size most letters have, in points."""
    letters: Counter[float] = Counter()
    for layout in layouts:
        for segment in layout.segments:
            if not segment.is_mono:
                letters[segment.style[0]] += len(segment.text)
    return letters.most_common(1)[0][0] if letters else 0.0


def _usual_pitches(layouts: Sequence[PageLayout]) -> dict[float, float]:
    """Give for each size the commonest distance from line to line, in points."""
    pitches: dict[float, Counter[float]] = defaultdict(Counter)
    for layout in layouts:
        for above, below in zip(layout.segments, layout.segments[1:], strict=False):
            pitch = below.base - above.base
            if above.style[0] == below.style[0] and 0.8 < pitch / max(above.size, 1) < 2.5:
                pitches[above.style[0]][round(pitch * 2) / 2] += 1
    return {size: counter.most_common(1)[0][0] for size, counter in pitches.items()}


def _mark_outline(layouts: Sequence[PageLayout], outline: Sequence[OutlineItem]) -> bool:
    """Mark the lines that the outline names; False when too few are found to trust it."""
    marks: list[tuple[list[Segment], int]] = []
    taken: set[int] = set()
    for item in outline:
        found = _find_title(layouts[item.page_index].segments, item.title, taken)
        if found:
            taken.update(id(segment) for segment in found)
            marks.append((found, item.level))
    if len(marks) < max(1, OUTLINE_FOUND * len(outline)):
        return False
    for found, level in marks:
        for segment in found:
            segment.level = min(level, 6)
    return True


def _find_title(segments: list[Segment], title: str, taken: set[int]) -> list[Segment]:
    """Find the one to three lines that spell the title, its number aside."""
    wanted = _letters(title)
    bare = _letters(re.sub(r"^[\dA-Z]{1,3}(?:\.\d+)*\.?\s+", "", title))
    if not wanted:
        return []
    for start, segment in enumerate(segments):
        if id(segment) in taken or DOT_LEADER.search(segment.text):
            continue
        spelled = ""
        for end in range(start, min(start + 3, len(segments))):
            spelled += _letters(segments[end].text)
            if spelled == wanted or (bare and _is_numbered(spelled, bare)):
                return segments[start : end + 1]
            if len(spelled) > len(wanted) + 12:
                break
    return []


def _is_numbered(spelled: str, bare: str) -> bool:
    """Say whether `spelled` is the title behind a short number such as "chapter3" or "12a"."""
    number = spelled[: -len(bare)] if spelled.endswith(bare) else None
    if number is None:
        return False
    return (
        re.fullmatch(r"(?:chapter|section|appendix|part|kapitel)?[\da-z]{0,6}", number) is not None
    )


def _letters(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())


def _mark_by_style(layouts: Sequence[PageLayout], body: float, pitches: dict[float, float]) -> None:
    """Mark headings by their look; the largest style becomes level 1."""
    candidates = [group for layout in layouts for group in _candidate_groups(layout, body, pitches)]
    numbered = [group for group in candidates if _depth(group[0].text)]
    by_number = len(numbered) > 0.6 * len(candidates)
    styles = sorted({group[0].style for group in candidates}, reverse=True)
    rank = {style: min(position, 6) for position, style in enumerate(styles, start=1)}
    for group in candidates:
        depth = _depth(group[0].text)
        for segment in group:
            segment.level = min(depth, 6) if by_number and depth else rank[group[0].style]


def _candidate_groups(
    layout: PageLayout, body: float, pitches: dict[float, float]
) -> Iterator[list[Segment]]:
    """Give runs of lines in one style that look like a heading."""
    group: list[Segment] = []
    above: Segment | None = None
    for segment in [*layout.segments, None]:
        if group and segment is not None and _same_heading(group[-1], segment):
            group.append(segment)
            continue
        if group and _looks_like_heading(group, above, body, pitches):
            yield group
        above = group[-1] if group else None
        group = [segment] if segment is not None else []


def _same_heading(last: Segment, segment: Segment) -> bool:
    pitch = segment.base - last.base
    return last.style == segment.style and 0 < pitch < 1.6 * segment.size


def _looks_like_heading(
    group: list[Segment], above: Segment | None, body: float, pitches: dict[float, float]
) -> bool:
    first, text = group[0], " ".join(segment.text for segment in group)
    letters = sum(c.isalpha() for c in text)
    if first.is_mono or letters < 2 or letters < 0.4 * len(text) or len(text) > LONGEST_HEADING:
        return False
    if BULLET.match(text) or DOT_LEADER.search(text) or text.endswith((",", ";", "…")):
        return False
    if first.size >= LARGER * body:
        return len(group) <= 4
    if not first.is_bold or first.size < 0.95 * body or len(group) > 2 or text.endswith("."):
        return False
    pitch = first.base - above.base if above else None
    usual = pitches.get(first.style[0], 1.2 * first.size)
    gap_above = pitch is None or pitch < 0 or pitch > NEW_PARAGRAPH * usual
    return gap_above or SECTION.match(text) is not None


def _depth(text: str) -> int:
    match = SECTION.match(text)
    return match[1].count(".") + 1 if match and match[1] else 0


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
            return (
                self.kind is kind and segment.level == last.level and _same_heading(last, segment)
            )
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
