"""Tables of an HTML page as rows of text, and the text of any part of it."""

import re
from collections.abc import Iterator

from selectolax.lexbor import LexborNode

SKIPPED = frozenset(
    [
        "script",
        "style",
        "noscript",
        "template",
        "svg",
        "canvas",
        "iframe",
        "object",
        "embed",
        "video",
        "audio",
        "map",
        "head",
        "meta",
        "link",
        "title",
        "button",
        "input",
        "select",
        "textarea",
        "datalist",
        "dialog",
        "progress",
        "math",
        "-comment",
    ]
)
BLOCKS = frozenset(
    [
        "address",
        "article",
        "blockquote",
        "body",
        "caption",
        "center",
        "dd",
        "details",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "header",
        "hgroup",
        "hr",
        "html",
        "legend",
        "li",
        "main",
        "nav",
        "ol",
        "p",
        "section",
        "summary",
        "ul",
        "tr",
        "td",
        "th",
        "table",
        "tbody",
        "thead",
        "tfoot",
    ]
)
SPACE = re.compile(r"[ \t\n\r\f]+")
WIDEST_SPAN = 100  # columns; larger colspans are mistakes
LONGEST_REPEATED = 200  # characters of a merged cell; longer text is not repeated


def visible_text(node: LexborNode) -> str:
    """Give the text of a node on one line, blocks inside parted by spaces."""
    parts: list[str] = []
    for child in descendants(node):
        if child.tag == "-text":
            parts.append(SPACE.sub(" ", child.text_content or ""))
        elif child.tag == "br" or child.tag in BLOCKS:
            parts.append(" ")
    return " ".join("".join(parts).split())


def descendants(root: LexborNode) -> Iterator[LexborNode]:
    """Walk below a node in document order, past what is never shown."""
    node = root.child
    while node is not None:
        yield node
        if node.child is not None and node.tag not in SKIPPED:
            node = node.child
            continue
        while node is not None and node.next is None:
            node = node.parent
            if node is None or node.mem_id == root.mem_id:
                return
        node = node.next if node is not None else None


def table_rows(table: LexborNode) -> list[list[str]]:
    """Read a table's cells; one over several columns or rows is repeated in each it covers."""
    rows: list[list[str]] = []
    below: dict[int, tuple[int, str]] = {}  # column: rows still covered from above, with what
    for row in table.css("tr"):
        if not _belongs_to(row, table):
            continue
        cells: list[str] = []
        for cell in _cells(row):
            _take_covered(cells, below)
            attributes = cell.attributes or {}
            width = min(_number(attributes.get("colspan")), WIDEST_SPAN)
            height = _number(attributes.get("rowspan"))
            text = visible_text(cell)
            repeated = text if len(text) <= LONGEST_REPEATED else ""
            if height > 1:
                below.update((len(cells) + i, (height - 1, repeated)) for i in range(width))
            cells += [text] + [repeated] * (width - 1)
        _take_covered(cells, below)
        rows.append(cells)
    return rows or [[]]


def _take_covered(cells: list[str], below: dict[int, tuple[int, str]]) -> None:
    """Append the cells at this place that cells further up cover."""
    while below.get(len(cells), (0, ""))[0] > 0:
        left, text = below[len(cells)]
        below[len(cells)] = left - 1, text
        cells.append(text)


def _belongs_to(row: LexborNode, table: LexborNode) -> bool:
    node = row.parent
    while node is not None and node.tag != "table":
        node = node.parent
    return node is not None and node.mem_id == table.mem_id


def _cells(row: LexborNode) -> Iterator[LexborNode]:
    node = row.child
    while node is not None:
        if node.tag in ("td", "th"):
            yield node
        node = node.next


def _number(value: str | None) -> int:
    return int(value) if value and value.isdecimal() and value != "0" and len(value) < 6 else 1
