"""OpenDocument text (one page) and slides (a page each)."""

from collections.abc import Iterator
from typing import BinaryIO
from xml.etree.ElementTree import Element

from kb.extraction import wire
from kb.extraction.archive import DUBLIN_CORE, Archive, attribute, child, local
from kb.extraction.limits import Limits
from kb.extraction.unreadable import Unreadable
from kb.extraction.writing import Cleaner, PageWriter
from kb.pages import BlockKind, Extraction

WIDEST_REPEAT = 100  # columns; more empty ones are only there to fill the sheet


def read(file: BinaryIO, *, limits: Limits, name: str) -> bytes:
    """Give the packed extraction of OpenDocument text (one page) or slides (a page each)."""
    archive = Archive(file, limits)
    if archive.has("META-INF/manifest.xml") and b"encryption-data" in archive.read(
        "META-INF/manifest.xml"
    ):
        raise Unreadable("encrypted")
    body = child(archive.xml("content.xml"), "body")
    content = next(iter(body), None) if body is not None else None
    if content is None:
        raise Unreadable("damaged")
    title = ""
    if archive.has("meta.xml"):
        found = archive.xml("meta.xml").find(f".//{DUBLIN_CORE}title")
        title = (found.text or "") if found is not None else ""
    clean = Cleaner()
    pages = [item for item in content if local(item) == "page"] or [content]
    written = []
    for number, page in enumerate(pages, start=1):
        writer = PageWriter(clean)
        _write_odf(writer, page, 0)
        label = attribute(page, "name") if local(page) == "page" else ""
        written.append(writer.page(number, label=label))
    extraction = Extraction(tuple(written), clean(title), tuple(clean.warnings()))
    return wire.pack(extraction, limits)


def _write_odf(writer: PageWriter, element: Element, depth: int) -> None:
    if depth > 100:
        raise Unreadable("damaged")
    for item in element:
        match local(item):
            case "h":
                level = attribute(item, "outline-level")
                writer.heading(_odf_text(item), int(level) if level.isdecimal() else 1)
            case "p":
                writer.text(_odf_text(item))
            case "list":
                writer.text("\n".join(_odf_items(item, 0)), BlockKind.LIST)
            case "table":
                writer.table(_odf_rows(item))
            case "tracked-changes" | "forms" | "sequence-decls" | "notes" | "annotation":
                continue
            case _:
                _write_odf(writer, item, depth + 1)


def _odf_text(element: Element) -> str:
    parts = [element.text or ""]
    for item in element:
        match local(item):
            case "s":
                parts.append(" ")
            case "tab":
                parts.append("\t")
            case "line-break":
                parts.append("\n")
            case "annotation" | "note":
                pass
            case _:
                parts.append(_odf_text(item))
        parts.append(item.tail or "")
    return "".join(parts)


def _odf_items(element: Element, depth: int) -> Iterator[str]:
    for item in element:
        first = True
        for part in item:
            if local(part) == "list":
                yield from _odf_items(part, min(depth + 1, 9))
            else:
                yield "  " * depth + ("- " if first else "  ") + _odf_text(part)
            first = False


def _odf_rows(table: Element) -> list[list[str]]:
    rows = []
    for row in (item for item in table.iter() if local(item) == "table-row"):
        cells: list[str] = []
        for cell in row:
            repeated = attribute(cell, "number-columns-repeated")
            times = min(int(repeated), WIDEST_REPEAT) if repeated.isdecimal() else 1
            cells += [" ".join(_odf_text(part) for part in cell)] * times
        rows.append(cells)
    return rows
