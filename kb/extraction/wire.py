"""Extractions as bytes, for the pipe between the child process and us."""

import json
from typing import Any

from kb.extraction.limits import Limits
from kb.extraction.unreadable import Unreadable
from kb.pages import Block, BlockKind, Extraction, Line, Page


def pack(extraction: Extraction, limits: Limits) -> bytes:
    """Write JSON. Raises Unreadable when there is no text or too much."""
    characters = sum(len(page.text) for page in extraction.pages)
    if characters > limits.characters:
        raise Unreadable(
            "too_large",
            size=f"it holds {characters:,} characters of text",
            limit=f"{limits.characters:,}",
            advice="Split it into smaller files and upload those",
        )
    pages = [
        [
            page.number,
            page.text,
            [[block.kind, block.start, block.end, block.level] for block in page.blocks],
            [[line.start, line.end, *_box(line)] for line in page.lines],
            round(page.width, 2),
            round(page.height, 2),
            page.label,
        ]
        for page in extraction.pages
    ]
    document = {"pages": pages, "title": extraction.title, "warnings": extraction.warnings}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def unpack(data: bytes) -> Extraction:
    """Read JSON that an untrusted process wrote; ValueError, KeyError or TypeError when it lies."""
    document = json.loads(data)
    pages = tuple(_page(index, row) for index, row in enumerate(document["pages"], start=1))
    warnings = tuple(_text(warning)[:500] for warning in document["warnings"][:20])
    return Extraction(pages, _text(document["title"])[:500], warnings)


def _box(line: Line) -> tuple[float, float, float, float]:
    return round(line.x0, 2), round(line.y0, 2), round(line.x1, 2), round(line.y1, 2)


def _page(index: int, row: list[Any]) -> Page:
    number, text, blocks, lines, width, height, label = row
    _text(text)
    if number != index:
        raise ValueError(f"page {number} where {index} was due")
    page = Page(
        number,
        text,
        tuple(Block(BlockKind(kind), start, end, level) for kind, start, end, level in blocks),
        tuple(Line(*line) for line in lines),
        float(width),
        float(height),
        _text(label)[:200],
    )
    _check_spans(page)
    return page


def _check_spans(page: Page) -> None:
    position = 0
    for block in page.blocks:
        if not (position <= block.start < block.end <= len(page.text) and 0 <= block.level <= 6):
            raise ValueError(f"block {block} does not fit its page")
        position = block.end
    for line in page.lines:
        if not (0 <= line.start < line.end <= len(page.text)):
            raise ValueError(f"line {line} does not fit its page")
        if not (line.x0 < line.x1 and line.y0 < line.y1):
            raise ValueError(f"line {line} has no area")


def _text(value: Any) -> str:
    """Pass a string that can be stored: no NUL, no lone surrogate."""
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("not a clean string")
    value.encode()  # UnicodeEncodeError is a ValueError
    return value
