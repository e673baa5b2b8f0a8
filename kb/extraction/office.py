"""Word documents, spreadsheets and OpenDocument files. Slides are in slides.py."""

import datetime
import io
import re
import xml.dom.expatbuilder  # mammoth imports it late, when the disk is closed
import xml.dom.pulldom  # noqa: F401
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import mammoth
import python_calamine
from python_calamine import CalamineWorkbook, SheetTypeEnum, SheetVisibleEnum

from kb.extraction import web, wire
from kb.extraction.archive import Archive, parse_xml, refuse_entities
from kb.extraction.limits import Limits
from kb.extraction.unreadable import Unreadable
from kb.extraction.writing import Cleaner, PageWriter, one_page, trim
from kb.pages import BlockKind, Extraction, Page

DUBLIN_CORE = "{http://purl.org/dc/elements/1.1/}"
STYLES = """
p[style-name='Title'] => h1:fresh
p[style-name='Subtitle'] => p:fresh
p[style-name='Quote'] => blockquote > p:fresh
p[style-name='Intense Quote'] => blockquote > p:fresh
p[style-name='Source Code'] => pre:separator('\\n')
p[style-name='HTML Preformatted'] => pre:separator('\\n')
p[style-name='Code'] => pre:separator('\\n')
p[style-name='List Bullet'] => ul > li:fresh
p[style-name='List Number'] => ol > li:fresh
p[style-name='List Paragraph'] => p:fresh
"""
DEEPEST_STYLE = 10  # steps of "based on"
MADE_UP_SHEETS = re.compile(r"(?:sheet|tabelle|feuil|hoja|foglio|planilha|arkusz|лист|工作表)\s*\d*", re.I)
EMPTY_ROWS = 1  # of a sheet; after more a new table begins
LONGEST_ROW = 16_384


def read_docx(file: BinaryIO, *, limits: Limits, name: str) -> bytes:
    """Give the packed extraction of a Word document: one page, its pages are only known to Word."""
    archive = Archive(file, limits)
    if not any(part.startswith("word/") for part in archive.names):
        raise Unreadable("damaged")
    for part in archive.names:
        if part.endswith((".xml", ".rels")):
            refuse_entities(archive.read(part))
    styles = STYLES + "\n".join(_heading_styles(archive))
    result = mammoth.convert_to_html(
        _with_plain_equations(archive),
        style_map=styles,
        convert_image=mammoth.images.img_element(lambda image: {"src": ""}),
    )
    writer = PageWriter(Cleaner())
    web.write_html(writer, result.value.replace("↑", ""))
    return wire.pack(one_page(writer, title=core_title(archive)), limits)


def core_title(archive: Archive) -> str:
    """Give the title in the file's own properties, "" if none."""
    if not archive.has("docProps/core.xml"):
        return ""
    title = archive.xml("docProps/core.xml").find(f"{DUBLIN_CORE}title")
    return (title.text or "").strip() if title is not None else ""


def local(element: Element) -> str:
    """Give a tag without its namespace; strict and transitional files use two of each."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def attribute(element: Element, name: str) -> str:
    """Look up an attribute in whatever namespace."""
    for key, value in element.attrib.items():
        if key.rpartition("}")[2] == name:
            return value
    return ""


def child(element: Element | None, *path: str) -> Element | None:
    """Follow local names down."""
    for name in path:
        if element is None:
            return None
        element = next((item for item in element if local(item) == name), None)
    return element


def _heading_styles(archive: Archive) -> Iterator[str]:
    """Map the styles that have an outline level of their own, or inherit one, to headings."""
    if not archive.has("word/styles.xml"):
        return
    styles = {
        attribute(style, "styleId"): style
        for style in archive.xml("word/styles.xml")
        if local(style) == "style" and attribute(style, "type") == "paragraph"
    }
    for identifier in styles:
        if not re.fullmatch(r"[\w-]+", identifier):
            continue
        current: str | None = identifier
        for _ in range(DEEPEST_STYLE):
            style = styles.get(current or "")
            if style is None:
                break
            level = child(style, "pPr", "outlineLvl")
            if level is not None:
                value = attribute(level, "val")
                if value in "012345":
                    yield f"p.{identifier} => h{int(value) + 1}:fresh"
                break
            based_on = child(style, "basedOn")
            current = attribute(based_on, "val") if based_on is not None else None


def _with_plain_equations(archive: Archive) -> BinaryIO:
    """Give the document with its equations as plain runs of text, which mammoth would drop."""
    main = next((n for n in ("word/document.xml", "word/document2.xml") if archive.has(n)), "")
    packed = io.BytesIO()
    replaced = None
    if main and b"oMath" in archive.read(main):
        replaced = _plain_equations(archive.read(main))
    if replaced is None:
        archive.zip.fp.seek(0)
        return archive.zip.fp
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as copy:
        for part in archive.names:
            if part.endswith((".xml", ".rels")):
                copy.writestr(part, replaced if part == main else archive.read(part))
    packed.seek(0)
    return packed


def _plain_equations(document: bytes) -> bytes:
    root = parse_xml(document)
    namespace = root.tag[: root.tag.index("}") + 1] if "}" in root.tag else ""
    for parent in list(root.iter()):
        for position, element in enumerate(list(parent)):
            if local(element) == "oMath":
                run = Element(f"{namespace}r")
                text = ElementTree.SubElement(run, f"{namespace}t")
                text.text = f" {linear_equation(element)} "
                parent[position] = run
            elif local(element) == "oMathPara" and local(parent) != "p":
                element.tag = f"{namespace}p"
    for parent in list(root.iter()):
        for position, element in reversed(list(enumerate(list(parent)))):
            if local(element) == "oMathPara":
                parent[position : position + 1] = [run for run in element if local(run) == "r"]
    return ElementTree.tostring(root)


def linear_equation(element: Element) -> str:
    """Write an equation on one line: a/b, x^2, a_i, √(x)."""
    name, parts = local(element), [item for item in element]
    if name == "t":
        return element.text or ""
    inside = {local(item): linear_equation(item) for item in parts}
    match name:
        case "f":
            return f"{_bracketed(inside.get('num', ''))}/{_bracketed(inside.get('den', ''))}"
        case "sSup":
            return f"{inside.get('e', '')}^{_bracketed(inside.get('sup', ''))}"
        case "sSub":
            return f"{inside.get('e', '')}_{_bracketed(inside.get('sub', ''))}"
        case "sSubSup":
            lower, upper = _bracketed(inside.get("sub", "")), _bracketed(inside.get("sup", ""))
            return f"{inside.get('e', '')}_{lower}^{upper}"
        case "rad":
            return f"{inside.get('deg', '')}√{_bracketed(inside.get('e', ''))}"
        case "d":
            body = ", ".join(linear_equation(item) for item in parts if local(item) == "e")
            return f"({body})"
        case "nary":
            sign = child(element, "naryPr", "chr")
            symbol = attribute(sign, "val") if sign is not None else "∫"
            lower, upper = inside.get("sub", ""), inside.get("sup", "")
            limits = (f"_{_bracketed(lower)}" if lower else "") + (f"^{_bracketed(upper)}" if upper else "")
            return f"{symbol}{limits} {inside.get('e', '')}"
        case "mr":
            return " ".join(linear_equation(item) for item in parts) + ";"
    return "".join(linear_equation(item) for item in parts if not local(item).endswith("Pr"))


def _bracketed(text: str) -> str:
    text = text.strip()
    return text if len(text) <= 1 or text.isalnum() else f"({text})"


def read_sheets(file: BinaryIO, *, limits: Limits, name: str) -> bytes:
    """Give the packed extraction of XLSX, XLS, XLSB or ODS: one sheet is one page."""
    head = file.read(4)
    file.seek(0)
    if head == b"PK\x03\x04":
        archive = Archive(file, limits)
        for part in archive.names:
            if part.endswith((".xml", ".rels")):
                refuse_entities(archive.zip.open(part).read(64 * 1024))
        file.seek(0)
    try:
        workbook = CalamineWorkbook.from_filelike(file)
    except python_calamine.PasswordError as error:
        raise Unreadable("encrypted") from error
    except (python_calamine.CalamineError, OSError) as error:
        raise Unreadable("damaged") from error
    return wire.pack(_sheets(workbook, limits), limits)


def _sheets(workbook: CalamineWorkbook, limits: Limits) -> Extraction:
    pages: list[Page] = []
    clean = Cleaner()
    hidden = []
    for sheet in workbook.sheets_metadata:
        if sheet.typ != SheetTypeEnum.WorkSheet:
            continue
        if sheet.visible != SheetVisibleEnum.Visible:
            hidden.append(sheet.name)
            continue
        writer = PageWriter(clean)
        if not MADE_UP_SHEETS.fullmatch(sheet.name.strip()):
            writer.heading(sheet.name, 1)
        try:
            rows = workbook.get_sheet_by_name(sheet.name).iter_rows()
            for table in _tables(rows, limits):
                _write_cells(writer, table)
        except python_calamine.CalamineError as error:
            raise Unreadable("damaged") from error
        pages.append(writer.page(len(pages) + 1, label=sheet.name))
    if not any(page.text for page in pages):
        raise Unreadable(
            "no_text",
            reason="The spreadsheet has no cell with text or a number in it.",
            advice="Check the file and upload it again.",
        )
    names = ", ".join(clean(name) for name in hidden)
    warnings = [f"Hidden sheets were left out: {names}."] if hidden else []
    return Extraction(tuple(pages), "", (*warnings, *clean.warnings()))


def _tables(rows: Iterable[list[Any]], limits: Limits) -> Iterator[list[list[str]]]:
    """Cut a sheet into tables where rows are empty."""
    table: list[list[str]] = []
    empty = size = 0
    for row in rows:
        cells = [_cell(value) for value in row[:LONGEST_ROW]]
        size += sum(map(len, cells))
        if size > limits.characters:
            raise Unreadable(
                "too_large",
                size=f"one sheet holds more than {limits.characters:,} characters",
                limit="one sheet of that size",
                advice="Split it into smaller files and upload those",
            )
        if any(cells):
            if empty > EMPTY_ROWS and table:
                yield table
                table = []
            table.append(cells)
            empty = 0
        else:
            empty += 1
    if table:
        yield table


def _write_cells(writer: PageWriter, table: list[list[str]]) -> None:
    """Write rows of one cell above a table as its title, the rest as the table."""
    while table and sum(map(bool, table[0])) == 1 and max(sum(map(bool, r)) for r in table) > 1:
        writer.text("".join(table[0]))
        table = table[1:]
    rows = trim(table)
    if rows and len(rows[0]) == 1:
        writer.text("\n".join(row[0] for row in rows))
    else:
        writer.table(rows)


def _cell(value: Any) -> str:
    """Write a value as people do: 3 and not 3.0, dates as ISO 8601 without midnight."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.12g}"
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ").removesuffix(" 00:00:00")
    return str(value)


def read_odf(file: BinaryIO, *, limits: Limits, name: str) -> bytes:
    """Give the packed extraction of OpenDocument text (one page) or slides (a page each)."""
    archive = Archive(file, limits)
    if archive.has("META-INF/manifest.xml") and b"encryption-data" in archive.read("META-INF/manifest.xml"):
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
            times = min(int(repeated), web.WIDEST_SPAN) if repeated.isdecimal() else 1
            cells += [" ".join(_odf_text(part) for part in cell)] * times
        rows.append(cells)
    return rows
