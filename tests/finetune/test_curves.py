from finetune import curves


def test_nothing_is_drawn_of_nothing() -> None:
    assert curves.chart([("loss", [])]) is None


def test_a_falling_loss_runs_from_upper_left_to_lower_right() -> None:
    drawn = curves.chart([("loss", [(1, 4.0), (2, 2.0), (3, 1.0)])])
    assert drawn is not None
    first, *_, last = [tuple(map(float, p.split(","))) for p in drawn.lines[0].points.split()]
    assert first[0] == curves.LEFT
    assert last[0] == curves.WIDTH - curves.RIGHT
    assert first[1] < last[1]
    assert drawn.lines[0].last == "1"


def test_ticks_are_round_and_inside() -> None:
    drawn = curves.chart([("loss", [(0, 0.3), (100, 4.7)])])
    assert drawn is not None
    assert [tick.label for tick in drawn.across] == ["0", "50", "100"]
    assert [tick.label for tick in drawn.up] == ["2", "4"]


def test_one_value_and_equal_values_are_drawn() -> None:
    assert curves.chart([("loss", [(7, 0.0)])]) is not None
    assert curves.chart([("loss", [(1, 2.5), (2, 2.5)])]) is not None


def test_a_long_series_is_thinned_to_means() -> None:
    points = curves.thin([(float(x), float(x % 2)) for x in range(4_000)])
    assert len(points) <= curves.MOST_POINTS
    assert {y for _, y in points} == {0.5}
