"""Which lines of a PDF are headings. Pure.

They come from the document's outline where its titles are found on their pages; otherwise from
size, weight, numbering and the gap above.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from kb.extraction.pdf_lines import (
    BULLET,
    DOT_LEADER,
    NEW_PARAGRAPH,
    OutlineItem,
    PageLayout,
    Segment,
)

OUTLINE_FOUND = 0.5  # share of the outline's titles found on their pages, to trust it
LARGER = 1.12  # a heading's size over the text's
LONGEST_HEADING = 200  # characters
SECTION = re.compile(
    r"((?:\d{1,3}|[A-Z])(?:\.\d{1,3})*)\.?\s+\S|(?:chapter|part|appendix)\s+\w", re.I
)


def mark_headings(
    layouts: Sequence[PageLayout], outline: Sequence[OutlineItem], pitches: dict[float, float]
) -> None:
    """Set the level of the lines that are headings."""
    if not _mark_outline(layouts, outline):
        _mark_by_style(layouts, _body_size(layouts), pitches)


def _body_size(layouts: Sequence[PageLayout]) -> float:
    """Give the size most letters have, in points."""
    letters: Counter[float] = Counter()
    for layout in layouts:
        for segment in layout.segments:
            if not segment.is_mono:
                letters[segment.style[0]] += len(segment.text)
    return letters.most_common(1)[0][0] if letters else 0.0


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
        if group and segment is not None and same_heading(group[-1], segment):
            group.append(segment)
            continue
        if group and _looks_like_heading(group, above, body, pitches):
            yield group
        above = group[-1] if group else None
        group = [segment] if segment is not None else []


def same_heading(last: Segment, segment: Segment) -> bool:
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
