"""Tables of a PDF whose rules are drawn: from lines and characters to rows of cells. Pure.

Rules are snapped onto each other and grouped by where they touch; a group that spans at least two
rows and two columns is a grid. A cell without a rule towards its neighbour belongs to it.
All coordinates are as seen, in points from the top left corner.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kb.extraction.writing import Cleaner, escape_cell, table_row

Edge = tuple[float, float, float, float]  # x0, y0, x1, y1
Box = tuple[float, float, float, float]

SNAP = 2.5  # points; rules nearer than this are one rule
SHORTEST = 6.0  # points; shorter strokes are ticks and parts of letters, lower cells no cells
MOST_EDGES = 4_000
MOST_CELLS = 20_000
MOST_IN_A_CELL = 3_000  # characters; more is a frame around text
LEAST_FILLED = 0.3  # share of the cells with text; below it the grid is a drawing


@dataclass(frozen=True, slots=True)
class Character:
    unicode: str
    box: Box | None


@dataclass(frozen=True, slots=True)
class Grid:
    """Rules of one table. `xs`, `ys`: sorted positions. `group[row][column]`: its cell's number."""

    xs: tuple[float, ...]
    ys: tuple[float, ...]
    group: tuple[tuple[int, ...], ...]

    @property
    def box(self) -> Box:
        return self.xs[0], self.ys[0], self.xs[-1], self.ys[-1]


@dataclass(slots=True)
class _Cell:
    """The text of one cell while it is read; a line is text and its box."""

    lines: list[tuple[str, Box]] = field(default_factory=list)
    text: str = ""
    box: Box | None = None

    def end_line(self, clean: Cleaner) -> None:
        words = " ".join(clean(self.text).split())
        if words and self.box:
            self.lines.append((words, self.box))
        self.text, self.box = "", None


@dataclass(frozen=True, slots=True)
class Table:
    """A Markdown table; `lines` are spans in `text` with the box each stands in."""

    text: str
    box: Box
    lines: tuple[tuple[int, int, Box], ...]


def find_grids(edges: Iterable[Edge]) -> list[Grid]:
    """Find the ruled tables among drawn lines, top first."""
    across: list[Edge] = []
    down: list[Edge] = []
    for x0, y0, x1, y1 in edges:
        if y1 - y0 <= 1 and x1 - x0 >= SHORTEST:
            across.append((x0, (y0 + y1) / 2, x1, (y0 + y1) / 2))
        elif x1 - x0 <= 1 and y1 - y0 >= SHORTEST:
            down.append(((x0 + x1) / 2, y0, (x0 + x1) / 2, y1))
        if len(across) + len(down) > MOST_EDGES:
            return []
    across, down = _join(across, along=0), _join(down, along=1)
    grids = (_grid(*component) for component in _components(across, down))
    return sorted((grid for grid in grids if grid is not None), key=lambda grid: grid.ys[0])


def fill(grid: Grid, characters: Sequence[Character], clean: Cleaner) -> Table | None:
    """Put the characters into the cells; None when it turns out not to be a table."""
    cells = _read_cells(grid, characters, clean)
    first_of: dict[int, tuple[int, int]] = {}
    for row, numbers in enumerate(grid.group):
        for column, number in enumerate(numbers):
            first_of.setdefault(number, (row, column))
    rows = [[_Cell() for _ in numbers] for numbers in grid.group]
    for number, cell in cells.items():
        row, column = first_of[number]
        rows[row][column] = cell
    rows = _trim(rows)
    if len(cells) < LEAST_FILLED * len(first_of) or not _is_table(rows):
        return None
    return _write(rows, grid.box)


def _join(edges: list[Edge], along: int) -> list[Edge]:
    """Merge strokes that lie on one line and touch. `along`: 0 for horizontal, 1 for vertical."""
    across = 1 - along
    joined: list[Edge] = []
    position = None
    for edge in sorted(edges, key=lambda edge: edge[across]):
        if position is None or edge[across] - position > SNAP:
            position = edge[across]
        snapped = list(edge)
        snapped[across] = snapped[across + 2] = position
        joined.append((snapped[0], snapped[1], snapped[2], snapped[3]))
    result: list[Edge] = []
    for edge in sorted(joined, key=lambda edge: (edge[across], edge[along])):
        last = result[-1] if result else None
        if last and last[across] == edge[across] and edge[along] <= last[along + 2] + SNAP:
            longer = list(last)
            longer[along + 2] = max(last[along + 2], edge[along + 2])
            result[-1] = (longer[0], longer[1], longer[2], longer[3])
        else:
            result.append(edge)
    return result


def _components(across: list[Edge], down: list[Edge]) -> list[tuple[list[Edge], list[Edge]]]:
    """Group rules that touch each other."""
    parent = list(range(len(across) + len(down)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for i, (x0, y, x1, _) in enumerate(across):
        for j, (x, y0, _, y1) in enumerate(down, start=len(across)):
            if x0 - SNAP <= x <= x1 + SNAP and y0 - SNAP <= y <= y1 + SNAP:
                parent[root(i)] = root(j)
    groups: dict[int, tuple[list[Edge], list[Edge]]] = {}
    for index, edge in enumerate(across + down):
        group = groups.setdefault(root(index), ([], []))
        group[0 if index < len(across) else 1].append(edge)
    return list(groups.values())


def _grid(across: list[Edge], down: list[Edge]) -> Grid | None:
    xs, ys = sorted({edge[0] for edge in down}), sorted({edge[1] for edge in across})
    rows, columns = len(ys) - 1, len(xs) - 1
    if rows < 2 or columns < 2 or rows * columns > MOST_CELLS:
        return None
    if min(xs[-1] - xs[0], ys[-1] - ys[0]) < 2 * SHORTEST:
        return None
    cell = [[row * columns + column for column in range(columns)] for row in range(rows)]
    for row in range(rows):
        middle = (ys[row] + ys[row + 1]) / 2
        walls = {x for x, y0, _, y1 in down if y0 - SNAP <= middle <= y1 + SNAP}
        for column in range(1, columns):
            if xs[column] not in walls:
                cell[row][column] = cell[row][column - 1]
    for column in range(columns):
        middle = (xs[column] + xs[column + 1]) / 2
        floors = {y for x0, y, x1, _ in across if x0 - SNAP <= middle <= x1 + SNAP}
        for row in range(1, rows):
            if ys[row] not in floors:
                cell[row][column] = cell[row - 1][column]
    if len({number for numbers in cell for number in numbers}) < 4:
        return None
    return Grid(tuple(xs), tuple(ys), tuple(map(tuple, cell)))


def _read_cells(grid: Grid, characters: Sequence[Character], clean: Cleaner) -> dict[int, _Cell]:
    """Hand every character to the cell its middle is in, line by line."""
    cells: dict[int, _Cell] = {}
    current = None
    for character in characters:
        place = _place(grid, character.box)
        if character.box is None:  # a space or line end that PDFium made up
            if current is not None:
                current.text += " "
            continue
        if place is None:
            current = None
            continue
        current = cells.setdefault(place, _Cell())
        if current.box and _is_below(character.box, current.box):
            current.end_line(clean)
        current.text += character.unicode if character.unicode.isprintable() else " "
        current.box = _union(current.box, character.box)
    for cell in cells.values():
        cell.end_line(clean)
    return cells


def _place(grid: Grid, box: Box | None) -> int | None:
    if box is None:
        return None
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    column = sum(1 for edge in grid.xs if edge <= x) - 1
    row = sum(1 for edge in grid.ys if edge <= y) - 1
    if 0 <= column < len(grid.xs) - 1 and 0 <= row < len(grid.ys) - 1:
        return grid.group[row][column]
    return None


def _is_below(box: Box, line: Box) -> bool:
    return (box[1] + box[3]) / 2 > line[3] + 0.5 or box[3] < line[1] - 0.5


def _union(a: Box | None, b: Box) -> Box:
    if a is None:
        return b
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _trim(rows: list[list[_Cell]]) -> list[list[_Cell]]:
    full = [row for row in rows if any(cell.lines for cell in row)]
    used = [i for i in range(len(rows[0])) if any(row[i].lines for row in full)]
    return [[row[column] for column in used] for row in full]


def _is_table(rows: list[list[_Cell]]) -> bool:
    if len(rows) < 2 or len(rows[0]) < 2:
        return False
    lengths = [sum(len(text) for text, _ in cell.lines) for row in rows for cell in row]
    return max(lengths) <= MOST_IN_A_CELL


def _write(rows: list[list[_Cell]], box: Box) -> Table:
    """Write the Markdown and note where each line of each cell went."""
    parts: list[str] = []
    lines: list[tuple[int, int, Box]] = []
    position = 0
    for row in rows:
        parts.append("|")
        position += 1
        for cell in row:
            for text, line_box in cell.lines:
                escaped = escape_cell(text)
                parts.append(f" {escaped}")
                lines.append((position + 1, position + 1 + len(escaped), line_box))
                position += len(escaped) + 1
            end = " |" if cell.lines else "  |"
            parts.append(end)
            position += len(end)
        if row is rows[0]:
            delimiter = "\n" + table_row(["---"] * len(row))
            parts.append(delimiter)
            position += len(delimiter)
        parts.append("\n")
        position += 1
    return Table("".join(parts).rstrip("\n"), box, tuple(lines))
