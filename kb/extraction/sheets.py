"""Spreadsheets through calamine: XLSX, XLSB, XLS and ODS. A sheet is a page."""

import datetime
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import python_calamine
from python_calamine import CalamineSheet, CalamineWorkbook, SheetTypeEnum, SheetVisibleEnum

from kb.extraction import wire
from kb.extraction.archive import Archive, refuse_entities
from kb.extraction.limits import Limits
from kb.extraction.unreadable import Unreadable
from kb.extraction.writing import Cleaner, PageWriter, trim
from kb.pages import Extraction, Page

MADE_UP_SHEETS = re.compile(
    r"(?:sheet|tabelle|feuil|hoja|foglio|planilha|arkusz|лист|工作表)\s*\d*", re.I
)
LONGEST_ROW = 16_384  # columns, as Excel has them
LONGEST_REPEATED = 200  # characters of a merged cell; longer text is not repeated
MOST_REPEATED = 10_000  # cells that one merged cell may cover
DEEPEST_CUT = 3  # tables beside and above each other


def read(file: BinaryIO, *, limits: Limits, name: str) -> bytes:
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
            rows = _rows(workbook.get_sheet_by_name(sheet.name), limits)
            for table in _tables(rows):
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


def _rows(sheet: CalamineSheet, limits: Limits) -> list[list[str]]:
    """Read a sheet's cells as text; every cell that a merged one covers gets its text."""
    rows: list[list[str]] = []
    size = 0
    for row in sheet.iter_rows():
        cells = [_cell(value) for value in row[:LONGEST_ROW]]
        size += sum(map(len, cells)) + len(cells) // 8
        if size > limits.characters:
            raise Unreadable(
                "too_large",
                size=f"one sheet holds more than {limits.characters:,} characters",
                limit=f"{limits.characters:,} characters in all",
                advice="Split it into smaller files and upload those",
            )
        rows.append(cells)
    top, left = sheet.start or (0, 0)
    for (first_row, first_column), (last_row, last_column) in sheet.merged_cell_ranges or ():
        _repeat(rows, first_row - top, first_column - left, last_row - top, last_column - left)
    return rows


def _repeat(rows: list[list[str]], top: int, left: int, bottom: int, right: int) -> None:
    if not (0 <= top < len(rows) and 0 <= left < len(rows[top])):
        return
    text = rows[top][left]
    if len(text) > LONGEST_REPEATED or (bottom - top) * (right - left) > MOST_REPEATED:
        return
    for row in rows[top : bottom + 1]:
        for column in range(left, min(right + 1, len(row))):
            row[column] = text


def _tables(rows: list[list[str]], depth: int = 0) -> Iterator[list[list[str]]]:
    """Cut a sheet into its tables: at empty rows, then at empty columns, and again inside."""
    for band in _bands(rows):
        width = max(map(len, band))
        padded = [row + [""] * (width - len(row)) for row in band]
        used = [any(column) for column in zip(*padded, strict=True)]
        parts = [[row[start:end] for row in padded] for start, end in _stretches(used)]
        for part in parts:
            if len(parts) > 1 and depth < DEEPEST_CUT:
                yield from _tables(part, depth + 1)
            else:
                yield part


def _bands(rows: list[list[str]]) -> Iterator[list[list[str]]]:
    band: list[list[str]] = []
    for row in rows:
        if any(row):
            band.append(row)
        elif band:
            yield band
            band = []
    if band:
        yield band


def _stretches(used: list[bool]) -> Iterator[tuple[int, int]]:
    """Give [start, end) of each run of True."""
    start = None
    for position, value in enumerate([*used, False]):
        if value and start is None:
            start = position
        elif not value and start is not None:
            yield start, position
            start = None


def _write_cells(writer: PageWriter, table: list[list[str]]) -> None:
    """Write rows of one cell above a table as its title, the rest as the table."""
    while len(table) > 1 and len(set(filter(None, table[0]))) == 1 and _is_wide(table[1:]):
        writer.text(next(filter(None, table[0])))
        table = table[1:]
    rows = trim(table)
    if rows and len(rows[0]) == 1:
        writer.text("\n".join(row[0] for row in rows))
    else:
        writer.table(rows)


def _is_wide(rows: list[list[str]]) -> bool:
    return any(len(set(filter(None, row))) > 1 for row in rows)


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
