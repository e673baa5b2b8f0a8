"""PPTX: a slide is a page, its title the page's label and heading; notes come last."""

import posixpath
from collections.abc import Iterator
from typing import BinaryIO
from xml.etree.ElementTree import Element

from kb.extraction import wire
from kb.extraction.archive import Archive, attribute, child, core_title, local
from kb.extraction.equations import linear_equation
from kb.extraction.limits import Limits
from kb.extraction.unreadable import Unreadable
from kb.extraction.writing import Cleaner, PageWriter
from kb.pages import BlockKind, Extraction, Page

TITLES = ("title", "ctrTitle")
FURNITURE = ("dt", "ftr", "sldNum", "hdr", "sldImg")  # date, footer, number: on every slide
DEEPEST_GROUP = 30
TRUE = ("1", "true")


def read(file: BinaryIO, *, limits: Limits, name: str) -> bytes:
    """Give the packed extraction of an open presentation."""
    archive = Archive(file, limits)
    main = _main_part(archive)
    targets = _relations(archive, main)
    slides = [
        targets[attribute_id]
        for item in archive.xml(main).iter()
        if local(item) == "sldId" and (attribute_id := _relation_id(item)) in targets
    ]
    if len(slides) > limits.pages:
        raise Unreadable("too_many_pages", count=len(slides), limit=limits.pages)
    clean = Cleaner()
    pages = [
        _Slide(archive, part, clean).page(number)
        for number, part in enumerate((s for s in slides if archive.has(s)), start=1)
    ]
    if not any(page.text for page in pages):
        raise Unreadable(
            "no_text",
            reason="The slides hold no text, only pictures.",
            advice="Add text, or run text recognition (OCR) on them and upload the result.",
        )
    extraction = Extraction(tuple(pages), clean(core_title(archive)), tuple(clean.warnings()))
    return wire.pack(extraction, limits)


class _Slide:
    """One slide while it is read."""

    def __init__(self, archive: Archive, part: str, clean: Cleaner) -> None:
        self.archive = archive
        self.relations = _relations(archive, part)
        self.writer = PageWriter(clean)
        self.root = archive.xml(part)

    def page(self, number: int) -> Page:
        tree = child(self.root, "cSld", "spTree")
        shapes = list(_shapes(tree, 0)) if tree is not None else []
        titles = [shape for shape in shapes if _placeholder(shape) in TITLES]
        title = " ".join(" ".join(_paragraph_texts(shape)) for shape in titles).strip()
        if title:
            self.writer.heading(title, 1)
        for shape in shapes:
            kind = _placeholder(shape)
            if kind in FURNITURE or kind in TITLES:
                continue
            self._write(shape, kind)
        for part in self.relations.values():
            if "/notesSlides/" in part and self.archive.has(part):
                self._write_notes(part)
        return self.writer.page(number, label=title)

    def _write(self, shape: Element, kind: str) -> None:
        if local(shape) == "graphicFrame":
            self._write_graphic(shape)
            return
        lines = list(_lines(shape, is_body=kind in ("body", "obj", "")))
        is_list = bool(lines) and all(line.lstrip().startswith(("- ", "1. ")) for line in lines)
        self.writer.text("\n".join(lines), BlockKind.LIST if is_list else BlockKind.TEXT)

    def _write_graphic(self, frame: Element) -> None:
        table = next((item for item in frame.iter() if local(item) == "tbl"), None)
        if table is not None:
            self.writer.table(_table_rows(table))
        for item in frame.iter():
            if local(item) == "chart":
                chart = self._part(_relation_id(item))
                self.writer.table(_chart_rows(chart) if chart is not None else [])
            elif local(item) == "relIds":
                diagram = self._part(attribute(item, "dm"))
                if diagram is not None:
                    self._write_diagram(diagram)

    def _write_diagram(self, diagram: Element) -> None:
        points = (item for item in diagram.iter() if local(item) == "pt")
        texts = [" ".join(_paragraph_texts(point)) for point in points]
        items = "\n".join(f"- {text}" for text in texts if text.strip())
        self.writer.text(items, BlockKind.LIST)

    def _part(self, relation: str) -> Element | None:
        part = self.relations.get(relation, "")
        return self.archive.xml(part) if self.archive.has(part) else None

    def _write_notes(self, part: str) -> None:
        tree = child(self.archive.xml(part), "cSld", "spTree")
        shapes = _shapes(tree, 0) if tree is not None else ()
        notes = [
            "\n".join(_paragraph_texts(shape)) for shape in shapes if _placeholder(shape) == "body"
        ]
        text = "\n".join(notes).strip()
        if text:
            self.writer.text(f"Notes: {text}")


def _main_part(archive: Archive) -> str:
    found = _relations(archive, "")
    return next(
        (p for p in found.values() if p.endswith("presentation.xml")), "ppt/presentation.xml"
    )


def _relations(archive: Archive, part: str) -> dict[str, str]:
    """Map relation ids to the parts they lead to; links out of the file are left out."""
    folder, name = posixpath.split(part)
    path = posixpath.join(folder, "_rels", f"{name}.rels")
    if not archive.has(path):
        return {}
    return {
        attribute(item, "Id"): posixpath.normpath(
            posixpath.join("/", folder, attribute(item, "Target"))
        ).lstrip("/")
        for item in archive.xml(path)
        if attribute(item, "TargetMode") != "External"
    }


def _relation_id(item: Element) -> str:
    """Give r:id; a plain "id" attribute beside it means something else."""
    return next((v for k, v in item.attrib.items() if k.endswith("}id")), "")


def _shapes(tree: Element, depth: int) -> Iterator[Element]:
    if depth > DEEPEST_GROUP:
        return
    for item in tree:
        match local(item):
            case "grpSp":
                yield from _shapes(item, depth + 1)
            case "AlternateContent":
                choice = child(item, "Choice")
                yield from _shapes(choice if choice is not None else item, depth + 1)
            case "sp" | "graphicFrame" | "cxnSp":
                yield item


def _placeholder(shape: Element) -> str:
    """Give the kind of placeholder, "" for one without a kind, "none" for a free shape."""
    for name in ("nvSpPr", "nvGraphicFramePr", "nvPicPr"):
        mark = child(shape, name, "nvPr", "ph")
        if mark is not None:
            return attribute(mark, "type")
    return "none"


def _paragraph_texts(shape: Element) -> Iterator[str]:
    for paragraph in (item for item in shape.iter() if local(item) == "p"):
        text = _paragraph_text(paragraph)
        if text:
            yield text


def _paragraph_text(paragraph: Element) -> str:
    parts = []
    for item in paragraph.iter():
        name = local(item)
        if name == "t" and not item.tag.endswith("/math}t"):
            parts.append(item.text or "")
        elif name == "br":
            parts.append("\n")
        elif name == "tab":
            parts.append(" ")
        elif name == "oMath":
            parts.append(linear_equation(item))
    return "".join(parts).strip()


def _lines(shape: Element, *, is_body: bool) -> Iterator[str]:
    """Give a shape's paragraphs; those of a content placeholder are bullets unless they say no."""
    paragraphs = [p for p in shape.iter() if local(p) == "p" and _paragraph_text(p)]
    for paragraph in paragraphs:
        properties = child(paragraph, "pPr")
        marks = {local(item) for item in properties} if properties is not None else set()
        level = attribute(properties, "lvl") if properties is not None else ""
        indent = "  " * (int(level) if level.isdecimal() and len(level) < 2 else 0)
        text = _paragraph_text(paragraph).replace("\n", f"\n{indent}  ")
        if "buAutoNum" in marks:
            yield f"{indent}1. {text}"
        elif "buChar" in marks or (is_body and "buNone" not in marks and len(paragraphs) > 1):
            yield f"{indent}- {text}"
        else:
            yield text


def _table_rows(table: Element) -> list[list[str]]:
    """Read cells; those a merged cell covers are in the file, marked, and get its text."""
    rows: list[list[str]] = []
    for row in (item for item in table if local(item) == "tr"):
        cells: list[str] = []
        for cell in (item for item in row if local(item) == "tc"):
            text = " ".join(_paragraph_texts(cell))
            if attribute(cell, "hMerge") in TRUE and cells:
                text = cells[-1]
            elif attribute(cell, "vMerge") in TRUE and rows and len(cells) < len(rows[-1]):
                text = rows[-1][len(cells)]
            cells.append(text)
        rows.append(cells)
    return rows


def _chart_rows(chart: Element) -> list[list[str]]:
    """Read the values a chart shows: a row a category, a column a series."""
    header = [""]
    columns: list[list[str]] = []
    categories: list[str] = []
    for series in (item for item in chart.iter() if local(item) == "ser"):
        title = child(series, "tx")
        header.append(" ".join(_values(title)) if title is not None else "")
        names = child(series, "cat")
        if names is not None and not categories:
            categories = _values(names)
        numbers = child(series, "val")
        columns.append(_values(numbers) if numbers is not None else [])
    height = max([len(categories), *map(len, columns)], default=0)
    rows = [
        [column[row] if row < len(column) else "" for column in (categories, *columns)]
        for row in range(height)
    ]
    return [header, *rows] if rows else []


def _values(element: Element) -> list[str]:
    return [item.text or "" for item in element.iter() if local(item) in ("v", "t")]
