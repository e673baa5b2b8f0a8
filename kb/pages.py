"""What extraction reads out of a file: pages of text with their structure and, for PDF, boxes."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

PAGE_BREAK = "\n\n"


class BlockKind(StrEnum):
    HEADING = "heading"
    TEXT = "text"
    LIST = "list"
    TABLE = "table"
    CODE = "code"
    QUOTE = "quote"


@dataclass(frozen=True, slots=True)
class Block:
    """A stretch of a page's text; blocks are in order, do not overlap, and leave only white space out.

    `start`, `end`: [start, end) in the page's text. `level`: 1–6 for a heading, else 0.
    A table's text is a Markdown pipe table: header row, delimiter row, one line a row.
    """

    kind: BlockKind
    start: int
    end: int
    level: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """Where a line of text stands on a drawn page, in PDF points from the page's top left corner.

    `start`, `end`: [start, end) in the page's text. x0 < x1, y0 < y1.
    """

    start: int
    end: int
    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a PDF, a slide, a sheet, a chapter; formats without pages are one page.

    `number` starts at 1. `width` and `height` are in PDF points, 0 where nothing is drawn.
    `label` is what people call the page: a sheet's name, a slide's title, a page label such as "iv".
    """

    number: int
    text: str
    blocks: tuple[Block, ...]
    lines: tuple[Line, ...] = ()
    width: float = 0.0
    height: float = 0.0
    label: str = ""


@dataclass(frozen=True, slots=True)
class Extraction:
    """A file read: its pages, and the title and language its own metadata name ("" if none)."""

    pages: tuple[Page, ...]
    title: str = ""
    warnings: tuple[str, ...] = ()


def page_offsets(pages: Sequence[Page]) -> list[int]:
    """Give each page's start in `document_text(pages)`, in characters."""
    offsets, position = [], 0
    for page in pages:
        offsets.append(position)
        position += len(page.text) + len(PAGE_BREAK)
    return offsets


def document_text(pages: Sequence[Page]) -> str:
    """Join the pages; every span of a passage or citation counts in this text."""
    return PAGE_BREAK.join(page.text for page in pages)
