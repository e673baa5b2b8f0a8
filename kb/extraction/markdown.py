"""Markdown as people read it: markup gone, structure kept."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from markdown_it import MarkdownIt
from markdown_it.token import Token

from kb.extraction import web, wire
from kb.extraction.decoding import decode
from kb.extraction.limits import Limits
from kb.extraction.writing import Cleaner, PageWriter, one_page
from kb.pages import BlockKind

FRONT_MATTER = re.compile(
    r"\A\ufeff?(---|\+\+\+)[ \t]*\n(.*?\n)?(?:\1|\.\.\.)[ \t]*(?:\n|\Z)", re.S
)
FRONT_TITLE = re.compile(
    r"""^title\s*[:=]\s*(?:"([^"\n]*)"|'([^'\n]*)'|([^\n]*?))\s*$""", re.M | re.I
)
# What site generators put in: {% tags %}, {{ values }} as link targets, {: .class }, {#anchor}
TEMPLATE_LINK = re.compile(r"\]\(\s*\{[%{].*?[%}]\}[^)\n]*\)", re.S)
TEMPLATE_RAW = re.compile(r"\{%-?\s*(?:end)?raw\s*-?%\}")
TEMPLATE_TAG = re.compile(r"\{%-?.*?-?%\}", re.S)
ATTRIBUTES = re.compile(r"\s*\{:?\s*[#.][^}\n]*\}\s*$")
ADMONITION = re.compile(r"^(?:///+|:::+)\s*(?:details\s*)?(?:\w+)?\s*(?:\|\s*)?(.*)$")
LINE_ENDS = (" ", "\n")
HTML_LINE_BREAK = re.compile(r"<br\s*/?>", re.I)


def read(file: BinaryIO, *, limits: Limits, name: str) -> bytes:
    """Give the packed extraction of Markdown. Its title: the front matter's, else the heading's."""
    clean = Cleaner()
    text = TEMPLATE_RAW.sub("", clean(decode(file.read())))
    title = ""
    if front := FRONT_MATTER.match(text):
        title = _front_title(front[2] or "")
        text = text[front.end() :]
    writer = PageWriter(clean)
    tokens = (
        MarkdownIt("commonmark")
        .enable(["table", "strikethrough"])
        .parse(TEMPLATE_LINK.sub("](#)", text))
    )
    _Renderer(writer, tokens).render()
    return wire.pack(one_page(writer, title=title or _first_heading(writer)), limits)


def _front_title(front: str) -> str:
    match = FRONT_TITLE.search(front)
    return next((group for group in match.groups() if group), "") if match else ""


def _first_heading(writer: PageWriter) -> str:
    """Give the first heading when nothing larger follows."""
    headings = [block for block in writer.blocks if block.kind is BlockKind.HEADING]
    if not headings or headings[0].level > min(block.level for block in headings):
        return ""
    return "".join(writer.parts)[headings[0].start : headings[0].end]


@dataclass(slots=True)
class _Renderer:
    """Goes through the flat list of tokens; `lists` holds the next number of each open list."""

    writer: PageWriter
    tokens: Sequence[Token]
    lists: list[int] = field(default_factory=list)
    items: list[str] = field(default_factory=list)
    marker: str = ""
    quotes: int = 0
    rows: list[list[str]] | None = None

    def render(self) -> None:
        for position, token in enumerate(self.tokens):
            match token.type:
                case "inline":
                    self._inline(token, self.tokens[position - 1])
                case "fence" | "code_block":
                    self._code(token.content)
                case "html_block":
                    self._html(token.content)
                case "bullet_list_open" | "ordered_list_open":
                    start = token.attrGet("start")
                    number = int(start) if start is not None else 1
                    self.lists.append(number if token.type.startswith("ordered") else -1)
                case "bullet_list_close" | "ordered_list_close":
                    self.lists.pop()
                    if not self.lists:
                        self._end_list()
                case "list_item_open":
                    self._open_item()
                case "blockquote_open":
                    self.quotes += 1
                case "blockquote_close":
                    self.quotes -= 1
                case "table_open":
                    self.rows = []
                case "tr_open" if self.rows is not None:
                    self.rows.append([])
                case "table_close":
                    self._end_list()
                    self.writer.table(self.rows or [])
                    self.rows = None
        self._end_list()

    def _inline(self, token: Token, opening: Token) -> None:
        text = inline_text(token.children or [])
        if opening.type == "heading_open":
            self._end_list()
            self.writer.heading(ATTRIBUTES.sub("", text), int(opening.tag[1]))
        elif self.rows is not None:
            self.rows[-1].append(" ".join(text.split()))
        elif self.lists:
            self._add_to_item(text)
        else:
            self.writer.text(text, BlockKind.QUOTE if self.quotes else BlockKind.TEXT)

    def _open_item(self) -> None:
        number = self.lists[-1]
        self.marker = "- " if number < 0 else f"{number}. "
        if number >= 0:
            self.lists[-1] += 1

    def _add_to_item(self, text: str) -> None:
        indent = "  " * (len(self.lists) - 1)
        for line in (line for line in text.split("\n") if line.strip()):
            self.items.append(f"{indent}{self.marker or '  '}{line}")
            self.marker = ""

    def _end_list(self) -> None:
        self.writer.text("\n".join(self.items), BlockKind.LIST)
        self.items, self.marker = [], ""

    def _code(self, content: str) -> None:
        """Write code; in a list it ends the list's block, which goes on after it."""
        self._end_list()
        self.writer.add(BlockKind.CODE, content)

    def _html(self, content: str) -> None:
        self._end_list()
        web.write_html(self.writer, TEMPLATE_TAG.sub("", content))


def inline_text(children: Sequence[Token]) -> str:
    """Give what is read: a link's words, code as it is, an image's description."""
    parts: list[str] = []
    words: list[str] = []  # since the last code: template tags may reach over several tokens
    for token in children:
        match token.type:
            case "text" if not words or words[-1] in LINE_ENDS:
                words.append(_plain_line(token.content))
            case "text":
                words.append(token.content)
            case "softbreak":
                words.append(" ")
            case "hardbreak":
                words.append("\n")
            case "image":
                words.append(inline_text(token.children or []))
            case "html_inline" if HTML_LINE_BREAK.fullmatch(token.content):
                words.append("\n")
            case "code_inline":
                parts += [TEMPLATE_TAG.sub("", "".join(words)), token.content]
                words = []
    parts.append(TEMPLATE_TAG.sub("", "".join(words)))
    return re.sub(r" *\n *", "\n", re.sub(r" {2,}", " ", "".join(parts))).strip()


def _plain_line(line: str) -> str:
    """Drop the fences of admonitions but keep their title; drop attribute lists."""
    if match := ADMONITION.match(line.strip()):
        return match[1] + "\n"
    return "" if ATTRIBUTES.fullmatch(line) else line
