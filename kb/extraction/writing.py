"""Build pages: clean text, blocks with their spans, Markdown tables."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from kb.pages import Block, BlockKind, Extraction, Line, Page

BLOCK_BREAK = "\n\n"

# Seen by a model and not by a person: tag characters spell hidden ASCII (U+E0000), variation
# selectors hide bytes, bidirectional overrides show text in another order than it has.
_HIDDEN = {
    "tag characters": re.compile("[\U000e0000-\U000e007f]+"),
    "variation selectors in a row": re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{2,}"),
    "text direction overrides": re.compile("[\u202d\u202e]"),
}
_FLAG = re.compile("\U0001f3f4[\U000e0020-\U000e007e]{1,6}\U000e007f")  # Scotland, Wales, England
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u180e\u200b\u2060-\u2064\u202a-\u202e"
    "\u2066-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff\ud800-\udfff]"
)
_ZERO_WIDTH = re.compile("[\u200b\u2060\ufeff]")
_LINE_ENDS = re.compile("\r\n?|\u0085|\u2028|\u2029")
_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_LIGATURES = str.maketrans(
    {"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"}
)
ZERO_WIDTH_SHARE = 0.01  # of all characters; below it they are leftovers of word processors


class Cleaner:
    """Turn any text into what PostgreSQL, a person and a model read alike; counts what it hides.

    NFC, "\\n" line ends, plain spaces, ligatures as letters. Control characters, NUL, lone
    surrogates, zero-width and tag characters go; joiners stay, Persian and emoji need them.
    """

    def __init__(self) -> None:
        self.removed: Counter[str] = Counter()
        self.characters = 0

    def __call__(self, text: str) -> str:
        self.characters += len(text)
        if text.isascii() and text.isprintable():
            return text
        text = _LINE_ENDS.sub("\n", text)
        if not text.isascii():
            text = self._unhide(text)
            text = _SPACES.sub(" ", text).translate(_LIGATURES)
        text = _INVISIBLE.sub("", text.replace("\x0c", "\n"))
        return text if text.isascii() else unicodedata.normalize("NFC", text)

    def _unhide(self, text: str) -> str:
        flags = _FLAG.findall(text)
        for name, pattern in _HIDDEN.items():
            if pattern.search(text):
                self.removed[name] += len(pattern.findall(_FLAG.sub("", text)))
                text = pattern.sub("", text) if not flags else _FLAG.sub("\U0001f3f4", text)
                text = pattern.sub("", text)
        self.removed["zero-width characters"] += len(_ZERO_WIDTH.findall(text))
        return text

    def warnings(self) -> list[str]:
        """Say what was left out and looked like somebody hid it."""
        few = self.removed["zero-width characters"] < max(20, ZERO_WIDTH_SHARE * self.characters)
        found = [
            name
            for name, count in self.removed.items()
            if count and not (few and name == "zero-width characters")
        ]
        if not found:
            return []
        return [
            f"Invisible characters were removed ({', '.join(found)}); text may have been hidden."
        ]


class PageWriter:
    """Collect one page's blocks in order; `page` gives the page."""

    def __init__(self, clean: Cleaner) -> None:
        self.clean = clean
        self.parts: list[str] = []
        self.blocks: list[Block] = []
        self.length = 0

    def add(self, kind: BlockKind, text: str, level: int = 0) -> int | None:
        """Append a block of clean text; gives its start in the page, None when it is blank."""
        text = text.strip() if kind is not BlockKind.CODE else text.strip("\n").rstrip()
        if not text:
            return None
        if self.parts:
            self.parts.append(BLOCK_BREAK)
            self.length += len(BLOCK_BREAK)
        start = self.length
        self.parts.append(text)
        self.length += len(text)
        self.blocks.append(Block(kind, start, self.length, level))
        return start

    def heading(self, text: str, level: int) -> None:
        self.add(BlockKind.HEADING, " ".join(self.clean(text).split()), min(max(level, 1), 6))

    def text(self, text: str, kind: BlockKind = BlockKind.TEXT) -> None:
        self.add(kind, self.clean(text))

    def table(self, rows: Iterable[Sequence[str]]) -> None:
        """Append rows as a Markdown table; a single cell becomes a paragraph."""
        cleaned = trim([[" ".join(self.clean(cell).split()) for cell in row] for row in rows])
        if len(cleaned) == 1 and len(cleaned[0]) == 1:
            self.add(BlockKind.TEXT, cleaned[0][0])
        elif cleaned:
            self.add(BlockKind.TABLE, markdown_table(cleaned))

    def page(
        self,
        number: int,
        *,
        label: str = "",
        lines: Sequence[Line] = (),
        width: float = 0.0,
        height: float = 0.0,
    ) -> Page:
        label = " ".join(self.clean(label).split())[:200]
        text = "".join(self.parts)
        return Page(number, text, tuple(self.blocks), tuple(lines), width, height, label)


def trim(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Drop empty rows and empty columns; all rows come out equally wide."""
    full = [list(row) for row in rows if any(row)]
    width = max(map(len, full), default=0)
    for row in full:
        row.extend([""] * (width - len(row)))
    used = [column for column in range(width) if any(row[column] for row in full)]
    return full if len(used) == width else [[row[column] for column in used] for row in full]


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Write a pipe table; the first row is its header. Rows must be equally wide.

    [["a", "b"], ["1", "2"]] gives "| a | b |\\n| --- | --- |\\n| 1 | 2 |".
    """
    lines = [table_row(row) for row in rows]
    lines.insert(1, table_row(["---"] * len(rows[0])))
    return "\n".join(lines)


def table_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(escape_cell(cell) for cell in cells)} |"


def escape_cell(cell: str) -> str:
    return cell.replace("|", "\\|")


def one_page(writer: PageWriter, *, title: str = "", warnings: Sequence[str] = ()) -> Extraction:
    """Give an extraction of the single page that `writer` holds."""
    title = " ".join(writer.clean(title).split())
    return Extraction((writer.page(1),), title, (*warnings, *writer.clean.warnings()))
