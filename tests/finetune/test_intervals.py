"""Intervals hold the truth as often as they promise."""

import random
from math import comb

import pytest

from finetune.intervals import Z_95, Z_99, difference, wilson


def test_known_values() -> None:
    # Newcombe 1998, table I and method 10 of the second paper: 56 of 70 and 48 of 80.
    share = wilson(81, 263)
    assert (round(share.low, 4), round(share.high, 4)) == (0.2553, 0.3662)
    apart, low, high = difference(wilson(48, 80), wilson(56, 70))
    assert (round(apart, 4), round(low, 4), round(high, 4)) == (0.2, 0.0524, 0.3339)


def test_the_ends_stay_within_0_and_1() -> None:
    assert wilson(0, 0).low == 0
    assert wilson(0, 0).high == 1
    assert wilson(0, 10).low == 0
    assert 0.2 < wilson(0, 10).high < 0.3
    assert wilson(10, 10).high == 1
    assert 0.7 < wilson(10, 10).low < 0.8


def test_more_than_all_is_refused() -> None:
    with pytest.raises(ValueError, match="11 of 10"):
        wilson(11, 10)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.85])
@pytest.mark.parametrize("total", [10, 40, 200])
def test_the_interval_covers_the_truth_as_often_as_promised(share: float, total: int) -> None:
    """Summed over every outcome; near the ends small samples fall a little short."""
    covered = sum(
        comb(total, count) * share**count * (1 - share) ** (total - count)
        for count in range(total + 1)
        if wilson(count, total).low <= share <= wilson(count, total).high
    )
    assert covered > 0.92


def test_a_surer_interval_is_wider() -> None:
    assert wilson(5, 20, z=Z_99).spread > wilson(5, 20, z=Z_95).spread


def test_a_difference_covers_the_truth() -> None:
    rng = random.Random(0)

    def draw(share: float, total: int) -> int:
        return sum(rng.random() < share for _ in range(total))

    covered = 0
    for _ in range(400):
        _, low, high = difference(wilson(draw(0.7, 40), 40), wilson(draw(0.8, 40), 40))
        covered += low <= 0.1 <= high
    assert covered >= 0.92 * 400
