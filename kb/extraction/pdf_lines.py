"""Lines of text on the pages of a PDF, before they have a meaning. Pure."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from kb.extraction.pdf_tables import Table

MARGIN = 0.13  # share of the page's height, at top and bottom, where running lines stand
REPEATED_PAGES = 3  # a line must stand on as many pages, and on this share of them:
REPEATED_SHARE = 0.25
NEW_PARAGRAPH = 1.3  # pitch between two lines over the usual one
BULLET = re.compile(r"[•◦▪■●○‣⁃∙▸►➢➤✓✔❖·\uf0b7\uf0a7\uf0d8]\s*(?=\S)|[-–—*]\s+(?=\S)")
DOT_LEADER = re.compile(r"\s*(?:\.\s?){4,}|\s*…[\s…]*")


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


def merge_raised(segments: list[Segment]) -> Iterator[Segment]:
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


def drop_running_lines(layouts: Sequence[PageLayout]) -> None:
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


def usual_pitches(layouts: Sequence[PageLayout]) -> dict[float, float]:
    """Give for each size the commonest distance from line to line, in points."""
    pitches: dict[float, Counter[float]] = defaultdict(Counter)
    for layout in layouts:
        for above, below in zip(layout.segments, layout.segments[1:], strict=False):
            pitch = below.base - above.base
            if above.style[0] == below.style[0] and 0.8 < pitch / max(above.size, 1) < 2.5:
                pitches[above.style[0]][round(pitch * 2) / 2] += 1
    return {size: counter.most_common(1)[0][0] for size, counter in pitches.items()}
