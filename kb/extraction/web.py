"""HTML to blocks, for web pages and for what other formats turn into HTML.

The tree is walked without recursion: pages nested 200,000 levels deep exist.
"""

import re
from dataclasses import dataclass, field
from typing import BinaryIO

from selectolax.lexbor import LexborHTMLParser, LexborNode

from kb.extraction import wire
from kb.extraction.decoding import decode
from kb.extraction.html_tables import (
    BLOCKS,
    SKIPPED,
    SPACE,
    descendants,
    table_rows,
    visible_text,
)
from kb.extraction.limits import Limits
from kb.extraction.writing import Cleaner, PageWriter, one_page
from kb.pages import BlockKind

BOILERPLATE = frozenset(["nav", "footer", "aside"])
BOILERPLATE_ROLES = frozenset(["navigation", "banner", "contentinfo", "search", "complementary"])
BOILERPLATE_NAMES = re.compile(
    r"(?:^|[\s_-])(?:nav|navbar|navbox|navigation|menu|breadcrumbs?|cookie|consent|sidebar|footer|"
    r"share|social|sharing|advert|ads|popup|modal|skip-?link|editsection|mw-jump-link|toc|"
    r"noprint|printfooter|catlinks)(?:$|[\s_-])",
    re.I,
)
HIDDEN_STYLE = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)|opacity\s*:\s*0(?:\.0+)?\s*(?:;|$)|"
    r"font-size\s*:\s*0(?:px|pt|em|rem|%)?\s*(?:;|$|!)|mso-hide\s*:\s*all",
    re.I,
)
HEADINGS = {f"h{level}": level for level in range(1, 7)}
LAYOUT_ONLY = frozenset(("table", "h1", "h2", "h3", "pre"))
LISTS = frozenset(("ul", "ol", "menu", "dir"))
MAIN_SHARE = 0.4  # of the page's text: a <main> with less is not where the content is


def read(file: BinaryIO, *, limits: Limits, name: str) -> bytes:
    """Give the packed extraction of an open HTML page."""
    tree = LexborHTMLParser(decode(file.read(), hint=declared_encoding))
    clean = Cleaner()
    title = tree.css_first("title")
    writer = PageWriter(clean)
    walker = Walker(writer, is_web_page=True)
    walker.walk(main_node(tree))
    if not writer.blocks:  # nothing but menus: then they are what people want to find
        Walker(writer).walk(tree.body)
    title_text = title.text() if title else ""
    return wire.pack(one_page(writer, title=title_text, warnings=walker.warnings()), limits)


def declared_encoding(data: bytes) -> str:
    """Give the encoding that a page names in its first kilobytes, "" if none."""
    match = re.search(rb"""(?:charset|encoding)\s*=\s*["']?\s*([\w.:-]+)""", data[:4096], re.I)
    return match[1].decode("ascii") if match else ""


def main_node(tree: LexborHTMLParser) -> LexborNode | None:
    """Give <main> or the only <article> when most of the text is there, else the body."""
    body = tree.body
    if body is None:
        return tree.root
    for selector in ("main, [role=main]", "article"):
        found = tree.css(selector)
        if len(found) == 1:
            length = len(found[0].text())
            if length >= MAIN_SHARE * len(body.text()):
                return found[0]
    return body


def write_html(writer: PageWriter, html: str, *, shift: int = 0) -> "Walker":
    """Append a document's HTML that has no boilerplate; headings go down by `shift` levels."""
    walker = Walker(writer, shift=shift)
    walker.walk(LexborHTMLParser(html).body)
    return walker


@dataclass(slots=True)
class Walker:
    """Goes through a tree in document order and writes blocks.

    `text` is the running text not yet written; `items` the lines of the list not yet written.
    """

    writer: PageWriter
    is_web_page: bool = False
    shift: int = 0
    text: list[str] = field(default_factory=list)
    items: list[str] = field(default_factory=list)
    lists: list[int] = field(
        default_factory=list
    )  # the next number of each open list, 0 for bullets
    marker: str = ""
    quotes: int = 0
    hidden: int = 0  # characters of text that people would not see

    def walk(self, root: LexborNode | None) -> None:
        if root is None:
            return
        node: LexborNode | None = root
        while node is not None:
            entered = self._enter(node)
            if entered and node.child is not None:
                node = node.child
                continue
            if entered:
                self._leave(node)
            while node is not None and node.mem_id != root.mem_id and node.next is None:
                node = node.parent
                if node is not None:
                    self._leave(node)
            if node is None or node.mem_id == root.mem_id:
                break
            node = node.next
        self._end_block()
        self._end_list()

    def warnings(self) -> list[str]:
        if self.hidden < 20:
            return []
        return [f"{self.hidden:,} characters of hidden text on the page were left out."]

    def _enter(self, node: LexborNode) -> bool:
        """Handle a node; True when its children are wanted too."""
        tag = node.tag
        if tag == "-text":
            self._add_text(node.text_content or "")
            return False
        if tag == "input" and not self.is_web_page:
            self._checkbox(node)
        if tag in SKIPPED or tag is None:
            return False
        if self._is_hidden(node):
            self.hidden += len(node.text().strip())
            return False
        if self.is_web_page and _is_boilerplate(node):
            return False
        if tag == "br":
            self.text.append("\n")
            return False
        if tag == "img":
            return False
        if tag == "table" and not _is_layout(node):
            self._end_block()
            self._end_list()
            self._table(node)
            return False
        if tag in ("pre", "listing", "xmp"):
            self._end_block()
            self._end_list()
            self.writer.add(BlockKind.CODE, self.writer.clean(node.text()))
            return False
        if tag in HEADINGS:
            self._heading(node, HEADINGS[tag])
            return False
        self._open(node, tag)
        return True

    def _open(self, node: LexborNode, tag: str) -> None:
        if tag in BLOCKS or tag in LISTS:
            self._end_block()
        if tag in LISTS:
            self.lists.append(_first_number(node) if tag == "ol" else 0)
        elif tag in ("li", "dd"):
            self._open_item(tag)
        elif tag == "blockquote":
            self._end_list()
            self.quotes += 1

    def _open_item(self, tag: str) -> None:
        if not self.lists or tag == "dd":
            self.marker = "- "
            return
        number = self.lists[-1]
        self.marker = f"{number}. " if number else "- "
        if number:
            self.lists[-1] += 1

    def _leave(self, node: LexborNode) -> None:
        tag = node.tag or ""
        if tag in BLOCKS or tag in LISTS:
            self._end_block()
        if tag in LISTS and self.lists:
            self.lists.pop()
            if not self.lists:
                self._end_list()
        elif tag == "li":
            self.marker = ""
        elif tag == "dl":
            self._end_list()
        elif tag == "blockquote":
            self.quotes -= 1

    def _add_text(self, text: str) -> None:
        self.text.append(SPACE.sub(" ", text))

    def _checkbox(self, node: LexborNode) -> None:
        attributes = node.attributes
        if attributes.get("type") == "checkbox":
            self.text.append("[x] " if "checked" in attributes else "[ ] ")

    def _end_block(self) -> None:
        """Write the running text: as the next lines of an open list, or as a block."""
        text = _tidy("".join(self.text))
        self.text = []
        if not text:
            return
        if self.lists or self.marker:
            indent = "  " * max(len(self.lists) - 1, 0)
            lines = text.split("\n")
            first = self.marker or ("  " if self.items else "")
            self.items.append(indent + first + lines[0])
            self.items.extend(f"{indent}  {line}" for line in lines[1:])
            self.marker = ""
            return
        self._end_list()
        self.writer.text(text, BlockKind.QUOTE if self.quotes else BlockKind.TEXT)

    def _end_list(self) -> None:
        if self.items:
            self.writer.text("\n".join(self.items), BlockKind.LIST)
        self.items, self.marker = [], ""

    def _heading(self, node: LexborNode, level: int) -> None:
        self._end_block()
        self._end_list()
        text = visible_text(node)
        if text:
            self.writer.heading(text, level + self.shift)

    def _table(self, node: LexborNode) -> None:
        caption = node.css_first("caption")
        if caption is not None:
            self.writer.text(visible_text(caption))
        self.writer.table(table_rows(node))

    def _is_hidden(self, node: LexborNode) -> bool:
        attributes = node.attributes
        if not attributes:
            return False
        style = attributes.get("style")
        return (
            "hidden" in attributes
            or attributes.get("aria-hidden") == "true"
            or (style is not None and HIDDEN_STYLE.search(style) is not None)
        )


def _is_boilerplate(node: LexborNode) -> bool:
    tag = node.tag
    if tag in BOILERPLATE or (tag == "header" and not _holds_heading(node)):
        return True
    attributes = node.attributes
    if not attributes:
        return False
    if attributes.get("role") in BOILERPLATE_ROLES:
        return True
    if tag in ("body", "main", "article", "html") or tag in HEADINGS:
        return False
    names = f"{attributes.get('id') or ''} {attributes.get('class') or ''}"
    return BOILERPLATE_NAMES.search(names) is not None


def _holds_heading(node: LexborNode) -> bool:
    """Say whether a header is an article's, with its title; a site's holds its logo and menu."""
    return any(child.tag in HEADINGS for child in descendants(node))


def _is_layout(table: LexborNode) -> bool:
    """Say whether a table only places things: it holds tables, headings or lists, or says so."""
    if (table.attributes or {}).get("role") == "presentation":
        return True
    holds_blocks = any(node.tag in LAYOUT_ONLY for node in descendants(table))
    return holds_blocks and not _is_data(table)


def _is_data(table: LexborNode) -> bool:
    """Say whether a table that holds others has header cells and several columns itself."""
    return table.css_first("th") is not None and len(table_rows(table)[0]) > 1


def _first_number(node: LexborNode) -> int:
    start = (node.attributes or {}).get("start") or ""
    return int(start) if start.isdecimal() and len(start) < 9 else 1


def _tidy(text: str) -> str:
    return re.sub(r" *\n *", "\n", re.sub(r" +", " ", text)).strip()


def visible_length(html: str) -> int:
    """Count the characters of text that a page shows, roughly."""
    body = LexborHTMLParser(html).body
    return len(visible_text(body)) if body is not None else 0
