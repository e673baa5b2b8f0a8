"""Spreadsheets: a sheet is a page, empty rows and columns part tables."""

import io
from collections.abc import Callable
from datetime import date, datetime

import pytest
import xlsxwriter

from kb.extraction.unreadable import DocumentUnreadable
from kb.pages import BlockKind
from tests.kb.extraction.conftest import Extract, blocks_of, texts_of


def xlsx(fill: Callable[[xlsxwriter.Workbook], None]) -> bytes:
    target = io.BytesIO()
    with xlsxwriter.Workbook(target) as book:
        fill(book)
    return target.getvalue()


def test_a_sheet_is_a_page_and_values_read_as_people_write_them(extract: Extract) -> None:
    def fill(book: xlsxwriter.Workbook) -> None:
        sheet = book.add_worksheet("Glaciers")
        sheet.write_row(0, 0, ["Name", "Length", "Seen", "Open"])
        sheet.write_row(1, 0, ["Aletsch", 23.0])
        sheet.write_datetime(
            1, 2, datetime(2024, 5, 1), book.add_format({"num_format": "yyyy-mm-dd"})
        )
        sheet.write_boolean(1, 3, True)
        sheet.write_row(2, 0, ["Rhône", 7.65, "", "a|b"])
        book.add_worksheet("Sheet2").write(4, 7, "alone")

    read = extract(xlsx(fill), "a.xlsx")
    assert [page.label for page in read.pages] == ["Glaciers", "Sheet2"]
    assert blocks_of(read.pages[0]) == [
        ("heading1", "Glaciers"),
        (
            "table",
            "| Name | Length | Seen | Open |\n| --- | --- | --- | --- |\n"
            f"| Aletsch | 23 | {date(2024, 5, 1)} | TRUE |\n| Rhône | 7.65 |  | a\\|b |",
        ),
    ]
    assert blocks_of(read.pages[1]) == [("text", "alone")]


def test_tables_beside_and_below_each_other_are_parted(extract: Extract) -> None:
    def fill(book: xlsxwriter.Workbook) -> None:
        sheet = book.add_worksheet("Data")
        for top, left, name in ((0, 0, "A"), (0, 4, "B"), (5, 1, "C")):
            sheet.write_row(top, left, [f"{name}1", f"{name}2"])
            sheet.write_row(top + 1, left, [1, 2])

    page = extract(xlsx(fill), "a.xlsx").pages[0]
    tables = texts_of(page, BlockKind.TABLE)
    assert [table.split("\n")[0] for table in tables] == [
        "| A1 | A2 |",
        "| B1 | B2 |",
        "| C1 | C2 |",
    ]


def test_merged_cells_are_repeated_and_a_merged_title_is_a_paragraph(extract: Extract) -> None:
    def fill(book: xlsxwriter.Workbook) -> None:
        sheet = book.add_worksheet("Data")
        sheet.merge_range(0, 0, 0, 2, "Glaciers of the Alps")
        sheet.write_row(1, 0, ["Country", "Name", "Length"])
        sheet.merge_range(2, 0, 3, 0, "CH")
        sheet.write_row(2, 1, ["Aletsch", 23])
        sheet.write_row(3, 1, ["Rhône", 8])

    page = extract(xlsx(fill), "a.xlsx").pages[0]
    assert blocks_of(page)[1:] == [
        ("text", "Glaciers of the Alps"),
        (
            "table",
            "| Country | Name | Length |\n| --- | --- | --- |\n| CH | Aletsch | 23 |\n| CH | Rhône | 8 |",
        ),
    ]


def test_hidden_sheets_are_left_out_and_named(extract: Extract) -> None:
    def fill(book: xlsxwriter.Workbook) -> None:
        book.add_worksheet("Shown").write(0, 0, "yes")
        hidden = book.add_worksheet("Lookup")
        hidden.write(0, 0, "no")
        hidden.hide()

    read = extract(xlsx(fill), "a.xlsx")
    assert [page.label for page in read.pages] == ["Shown"]
    assert read.warnings == ("Hidden sheets were left out: Lookup.",)


def test_twenty_thousand_rows_are_read(extract: Extract) -> None:
    def fill(book: xlsxwriter.Workbook) -> None:
        sheet = book.add_worksheet("Rows")
        for row in range(20_000):
            sheet.write_row(row, 0, [row, f"name {row}", row / 4])

    page = extract(xlsx(fill), "a.xlsx").pages[0]
    assert page.text.count("\n") > 20_000
    assert page.text.endswith("| 19999 | name 19999 | 4999.75 |")


def test_two_cells_at_the_far_corners_do_not_fill_the_memory(extract: Extract) -> None:
    def fill(book: xlsxwriter.Workbook) -> None:
        sheet = book.add_worksheet("Corners")
        sheet.write(0, 0, "first")
        sheet.write(1_048_575, 16_383, "last")

    with pytest.raises(DocumentUnreadable) as caught:
        extract(xlsx(fill), "a.xlsx")
    assert caught.value.code in ("memory", "too_large", "timeout")


def test_an_empty_workbook_says_so(extract: Extract) -> None:
    with pytest.raises(DocumentUnreadable, match="no cell with text") as caught:
        extract(xlsx(lambda book: book.add_worksheet()), "a.xlsx")
    assert caught.value.code == "no_text"
