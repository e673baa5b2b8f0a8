"""Lay measured values out as a line drawing for a page. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

Point = tuple[float, float]

# The drawing's own units; the page scales it.
WIDTH, HEIGHT = 640, 220
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 10, 26
MOST_POINTS = 400


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Line:
    """`points`: "x,y x,y …" as SVG wants them. `place` picks its colour, from 0."""

    name: str
    points: str
    place: int
    last: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over the same steps with the ticks of both axes."""

    lines: list[Line]
    across: list[Tick]
    up: list[Tick]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    bottom: int = HEIGHT - BOTTOM
    right: int = WIDTH - RIGHT


def chart(series: Sequence[tuple[str, Sequence[Point]]], *, digits: int = 3) -> Chart | None:
    """Draw named series of (step, value); None when there is nothing to draw.

    Long series are thinned to MOST_POINTS, each the mean of its neighbours.
    """
    thinned = [(name, thin(points)) for name, points in series if points]
    if not thinned:
        return None
    xs = [x for _, points in thinned for x, _ in points]
    ys = [y for _, points in thinned for _, y in points]
    low_x, high_x = min(xs), max(max(xs), min(xs) + 1)
    low_y, high_y = _range(ys)

    def place(point: Point) -> Point:
        across = (point[0] - low_x) / (high_x - low_x)
        up = (point[1] - low_y) / (high_y - low_y)
        return (
            LEFT + across * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM),
        )

    return Chart(
        lines=[
            Line(
                name,
                " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, points)),
                number,
                f"{points[-1][1]:.{digits}g}",
            )
            for number, (name, points) in enumerate(thinned)
        ],
        across=[Tick(place((x, low_y))[0], f"{x:,.0f}") for x in _steps(low_x, high_x)],
        up=[Tick(place((low_x, y))[1], f"{y:.{digits}g}") for y in _steps(low_y, high_y)],
    )


def thin(points: Sequence[Point]) -> list[Point]:
    size = math.ceil(len(points) / MOST_POINTS)
    groups = (points[at : at + size] for at in range(0, len(points), size))
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    return low - room, high + room


def _steps(low: float, high: float) -> list[float]:
    """Choose three to six round values between two."""
    rough = (high - low) / 4
    power: float = 10 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
    first = math.ceil(low / step)
    return [n * step for n in range(first, math.floor(high / step) + 1)]
