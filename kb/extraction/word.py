"""DOCX through mammoth, with what mammoth leaves out: equations and the numbers of headings."""

import io
import re
import xml.dom.expatbuilder  # mammoth imports it late, when the disk is closed
import xml.dom.pulldom  # noqa: F401
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import mammoth

from kb.extraction import web, wire
from kb.extraction.archive import (
    Archive,
    attribute,
    child,
    core_title,
    local,
    parse_xml,
    refuse_entities,
)
from kb.extraction.equations import linear_equation
from kb.extraction.limits import Limits
from kb.extraction.unreadable import Unreadable
from kb.extraction.writing import Cleaner, PageWriter, one_page

STYLES = """
p[style-name='Title'] => h1:fresh
p[style-name='Subtitle'] => p:fresh
p[style-name='Quote'] => blockquote > p:fresh
p[style-name='Intense Quote'] => blockquote > p:fresh
p[style-name='Source Code'] => pre:separator('\\n')
p[style-name='HTML Preformatted'] => pre:separator('\\n')
p[style-name='Code'] => pre:separator('\\n')
"""
DEEPEST_STYLE = 10  # steps of "based on"
NO_NUMBER = ("bullet", "none")


def read(file: BinaryIO, *, limits: Limits, name: str) -> bytes:
    """Give the packed extraction of a Word document: one page, its pages are only known to Word."""
    archive = Archive(file, limits)
    if not any(part.startswith("word/") for part in archive.names):
        raise Unreadable("damaged")
    styles = _Styles.of(archive)
    result = mammoth.convert_to_html(
        _text_parts(archive, styles),
        style_map=STYLES + "\n".join(styles.heading_rules()),
        convert_image=mammoth.images.img_element(lambda image: {"src": ""}),
    )
    writer = PageWriter(Cleaner())
    web.write_html(writer, result.value.replace("↑", ""))  # mammoth's way back from a footnote
    return wire.pack(one_page(writer, title=core_title(archive)), limits)


def _text_parts(archive: Archive, styles: "_Styles") -> BinaryIO:
    """Copy the document without its pictures, and with what mammoth would drop as plain text."""
    numbering = _Numbering.of(archive)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as copy:
        for part in sorted(archive.names):
            if part.endswith((".xml", ".rels")):
                data = archive.read(part)
                refuse_entities(data)
                if part.startswith("word/document"):
                    data = _with_plain_text(data, styles, numbering)
                copy.writestr(part, data)
    packed.seek(0)
    return packed


def _with_plain_text(data: bytes, styles: "_Styles", numbering: "_Numbering") -> bytes:
    if b"oMath" not in data and not numbering.levels:
        return data
    root = parse_xml(data)
    namespace = root.tag[: root.tag.index("}") + 1] if "}" in root.tag else ""
    _number_headings(root, namespace, styles, numbering)
    _write_out_equations(root, namespace)
    return ElementTree.tostring(root)


def _run(namespace: str, text: str) -> Element:
    run = Element(f"{namespace}r")
    ElementTree.SubElement(run, f"{namespace}t").text = text
    return run


@dataclass(slots=True)
class _Styles:
    """The paragraph styles by id."""

    by_id: dict[str, Element] = field(default_factory=dict)

    @classmethod
    def of(cls, archive: Archive) -> "_Styles":
        if not archive.has("word/styles.xml"):
            return cls()
        return cls(
            {
                attribute(style, "styleId"): style
                for style in archive.xml("word/styles.xml")
                if local(style) == "style" and attribute(style, "type") == "paragraph"
            }
        )

    def property(self, style_id: str, name: str) -> Element | None:
        """Find a paragraph property in a style or the styles it is based on."""
        for _ in range(DEEPEST_STYLE):
            style = self.by_id.get(style_id)
            if style is None:
                return None
            found = child(style, "pPr", name)
            if found is not None:
                return found
            based_on = child(style, "basedOn")
            style_id = attribute(based_on, "val") if based_on is not None else ""
        return None

    def outline_level(self, style_id: str) -> int | None:
        """Give the level of a heading style, 0 for the highest."""
        found = self.property(style_id, "outlineLvl")
        value = attribute(found, "val") if found is not None else ""
        return int(value) if value and value in "012345" else None

    def heading_rules(self) -> Iterator[str]:
        """Tell mammoth which styles are headings, whatever they are called."""
        for style_id in self.by_id:
            level = self.outline_level(style_id)
            if level is not None and re.fullmatch(r"[\w-]+", style_id):
                yield f"p.{style_id} => h{level + 1}:fresh"


@dataclass(slots=True)
class _Numbering:
    """Counters of a document's lists. `levels[list id][level]`: start, format, text."""

    levels: dict[str, dict[int, tuple[int, str, str]]] = field(default_factory=dict)
    shared: dict[str, str] = field(default_factory=dict)  # list id: what its counters belong to
    counters: dict[str, dict[int, int]] = field(default_factory=dict)

    @classmethod
    def of(cls, archive: Archive) -> "_Numbering":
        numbering = cls()
        if not archive.has("word/numbering.xml"):
            return numbering
        root = archive.xml("word/numbering.xml")
        abstract = {
            attribute(item, "abstractNumId"): _levels(item)
            for item in root
            if local(item) == "abstractNum"
        }
        for item in root:
            base = child(item, "abstractNumId")
            if local(item) == "num" and base is not None:
                list_id = attribute(item, "numId")
                numbering.levels[list_id] = abstract.get(attribute(base, "val"), {})
                numbering.shared[list_id] = attribute(base, "val")
        return numbering

    def next(self, list_id: str, level: int) -> str:
        """Count on and give the number as it is printed, "" for bullets."""
        levels = self.levels.get(list_id, {})
        if level not in levels:
            return ""
        counter = self.counters.setdefault(self.shared[list_id], {})
        counter[level] = counter.get(level, levels[level][0] - 1) + 1
        for deeper in [other for other in counter if other > level]:
            del counter[deeper]
        if levels[level][1] in NO_NUMBER:
            return ""
        return re.sub(
            r"%([1-9])",
            lambda match: self._printed(levels, counter, int(match[1]) - 1),
            levels[level][2],
        )

    def _printed(
        self, levels: dict[int, tuple[int, str, str]], counter: dict[int, int], level: int
    ) -> str:
        start, format_, _ = levels.get(level, (1, "decimal", ""))
        return _in_format(counter.get(level, start), format_)


def _levels(abstract: Element) -> dict[int, tuple[int, str, str]]:
    levels = {}
    for item in abstract:
        number = attribute(item, "ilvl")
        if local(item) == "lvl" and number.isdecimal():
            parts = {local(part): attribute(part, "val") for part in item}
            start = parts.get("start", "1")
            levels[int(number)] = (
                int(start) if start.isdecimal() else 1,
                parts.get("numFmt", "decimal"),
                parts.get("lvlText", ""),
            )
    return levels


def _in_format(number: int, format_: str) -> str:
    """Write 4 as "4", "d", "D", "iv" or "IV"."""
    if "Letter" in format_:
        letter = chr(ord("a") + (number - 1) % 26)
        return letter if format_.startswith("lower") else letter.upper()
    if "Roman" in format_ and 0 < number < 100:
        tens = ("", "x", "xx", "xxx", "xl", "l", "lx", "lxx", "lxxx", "xc")[number // 10]
        roman = tens + ("", "i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix")[number % 10]
        return roman if format_.startswith("lower") else roman.upper()
    return str(number)


def _number_headings(root: Element, namespace: str, styles: _Styles, numbering: _Numbering) -> None:
    """Write the numbers that Word shows before headings into their text."""
    for paragraph in root.iter(f"{namespace}p"):
        style = child(paragraph, "pPr", "pStyle")
        style_id = attribute(style, "val") if style is not None else ""
        place = child(paragraph, "pPr", "numPr")
        inherited = styles.property(style_id, "numPr")
        list_id = _value(place, "numId") or _value(inherited, "numId")
        level = _value(place, "ilvl") or _value(inherited, "ilvl") or "0"
        if not list_id or not level.isdecimal():
            continue
        number = numbering.next(list_id, int(level))
        if number and styles.outline_level(style_id) is not None:
            position = 1 if child(paragraph, "pPr") is not None else 0
            paragraph.insert(position, _run(namespace, f"{number} "))


def _value(place: Element | None, name: str) -> str:
    found = child(place, name)
    return attribute(found, "val") if found is not None else ""


def _write_out_equations(root: Element, namespace: str) -> None:
    for parent in list(root.iter()):
        for position, element in enumerate(list(parent)):
            if local(element) == "oMath":
                parent[position] = _run(namespace, f" {linear_equation(element)} ")
    for parent in list(root.iter()):
        for position, element in reversed(list(enumerate(list(parent)))):
            if local(element) == "oMathPara":
                parent[position : position + 1] = [run for run in element if local(run) == "r"]
