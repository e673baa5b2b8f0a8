"""Ruled tables: from strokes and characters to cells. pdfplumber is the slow reference."""

import io

import pytest

from kb.extraction.pdf_tables import Character, Edge, Grid, fill, find_grids
from kb.extraction.writing import Cleaner
from kb.pages import BlockKind
from tests.kb.extraction.conftest import Extract, texts_of
from tests.kb.extraction.pdf_writer import Pdf, PdfPage, rule, text


def strokes(xs: list[float], ys: list[float]) -> list[Edge]:
    across = [(xs[0], y, xs[-1], y) for y in ys]
    down = [(x, ys[0], x, ys[-1]) for x in xs]
    return across + down


def words(x: float, y: float, line: str) -> list[Character]:
    return [
        Character(c, (x + 5 * i, y, x + 5 * i + 4, y + 8) if c.strip() else None)
        for i, c in enumerate(line)
    ]


def only(grids: list[Grid]) -> Grid:
    (grid,) = grids
    return grid


def test_a_grid_is_found_and_filled() -> None:
    grid = only(find_grids(strokes([0, 100, 200], [0, 20, 40])))
    characters = words(5, 5, "a b") + words(105, 5, "c") + words(5, 25, "d|e")
    table = fill(grid, characters, Cleaner())
    assert table is not None
    assert table.text == "| a b | c |\n| --- | --- |\n| d\\|e |  |"
    assert [table.text[a:b] for a, b, _ in table.lines] == ["a b", "c", "d\\|e"]


def test_strokes_in_pieces_and_doubled_strokes_are_one_rule() -> None:
    edges = strokes([0, 100, 200], [0, 20, 40])
    broken = [
        piece
        for x0, y0, x1, y1 in edges
        for piece in (
            (x0, y0, (x0 + x1) / 2, (y0 + y1) / 2),
            ((x0 + x1) / 2, (y0 + y1) / 2, x1, y1),
        )
    ]
    doubled = [(x0 + 0.7, y0 + 0.7, x1 + 0.7, y1 + 0.7) for x0, y0, x1, y1 in edges]
    grid = only(find_grids(broken + doubled))
    assert (len(grid.xs), len(grid.ys)) == (3, 3)


def test_a_missing_wall_joins_cells() -> None:
    edges = [
        *[(0.0, y, 200.0, y) for y in (0.0, 20.0, 40.0, 60.0)],
        *[(x, 0.0, x, 60.0) for x in (0.0, 200.0)],
        (100.0, 20.0, 100.0, 60.0),  # the first row is one wide cell
    ]
    grid = only(find_grids(edges))
    assert grid.group[0][0] == grid.group[0][1]
    assert grid.group[1][0] != grid.group[1][1]


def test_two_tables_on_a_page_are_two() -> None:
    upper, lower = strokes([0, 90, 200], [0, 20, 40]), strokes([0, 50, 200], [300, 320, 340])
    assert [grid.ys[0] for grid in find_grids(lower + upper)] == [0, 300]


@pytest.mark.parametrize(
    "edges",
    [
        [],
        [(0.0, 0.0, 500.0, 0.0)],  # a rule under a header
        strokes([0, 500], [0, 700]),  # a frame
        strokes([0, 500], [0, 20, 40, 60]),  # ruled paper
        strokes([0, 3, 6], [0, 3, 6]),  # a checked box
    ],
)
def test_what_is_no_table_is_none(edges: list[Edge]) -> None:
    assert find_grids(edges) == []


def test_a_plot_with_a_few_labels_is_no_table() -> None:
    grid = only(find_grids(strokes([20.0 * i for i in range(10)], [20.0 * i for i in range(10)])))
    assert fill(grid, words(5, 5, "1") + words(105, 85, "2"), Cleaner()) is None


def test_our_cells_are_those_of_pdfplumber(extract: Extract) -> None:
    pdfplumber = pytest.importorskip("pdfplumber")
    rows = [["Glacier", "Length", "Seen in"], ["Aletsch", "23 km", "1990"], ["Rhône", "8 km", ""]]
    xs, ys = [72, 200, 300, 420], [600, 580, 550, 530]
    content = "".join(rule(xs[0], y, xs[-1], y) for y in ys)
    content += "".join(rule(x, ys[0], x, ys[-1]) for x in xs)
    for top, cells in zip(ys, rows, strict=False):
        for left, cell in zip(xs, cells, strict=False):
            content += text(left + 4, top - 13, cell, size=9)
    content += text(76, 557, "in Valais", size=9)  # the second line of a cell
    data = Pdf([PdfPage(content)]).write()
    page = extract(data, "a.pdf").pages[0]
    (table,) = texts_of(page, BlockKind.TABLE)
    ours = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for number, line in enumerate(table.split("\n"))
        if number != 1
    ]
    with pdfplumber.open(io.BytesIO(data)) as reference:
        theirs = [
            [" ".join((cell or "").split()) for cell in row]
            for row in reference.pages[0].extract_table()
        ]
    assert ours == theirs
