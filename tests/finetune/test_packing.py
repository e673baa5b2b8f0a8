import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.packing import Order, Part, best_fit, lay, rows_of_epoch, shuffled


def test_the_longest_items_are_packed_first_into_the_fullest_bin_with_room() -> None:
    assert best_fit([4, 8, 1, 4, 2, 1], 10) == [[1, 4], [0, 3, 2, 5]]


@given(st.lists(st.integers(1, 50), max_size=60))
def test_every_item_lies_in_exactly_one_bin_that_holds_it(lengths: list[int]) -> None:
    bins = best_fit(lengths, 50)

    assert sorted(item for one in bins for item in one) == list(range(len(lengths)))
    assert all(sum(lengths[item] for item in one) <= 50 for one in bins)
    # Two bins that are half empty would have been one.
    assert sum(sum(lengths[item] for item in one) <= 25 for one in bins) <= 1


def test_an_item_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="11 tokens"):
        best_fit([11], 10)


def test_positions_start_again_with_each_part_and_run_on_through_the_filling() -> None:
    laid = lay([Part([5, 6, 7], 1), Part([8, 9], 1)], width=8, filler=0)

    assert laid.ids == [5, 6, 7, 8, 9, 0, 0, 0]
    assert laid.positions == [0, 1, 2, 0, 1, 2, 3, 4]
    assert laid.targets == [(1, 6, 0), (2, 7, 0), (4, 9, 1)]
    assert laid.length == 5


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    assert shuffled(6, seed=1, epoch=0) == [5, 1, 2, 0, 4, 3]  # on every machine
    assert shuffled(20, seed=1, epoch=0) != shuffled(20, seed=1, epoch=1)
    assert shuffled(20, seed=1, epoch=0) != shuffled(20, seed=2, epoch=0)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(0, 99))
def test_every_epoch_has_as_many_rows_and_every_example_once(
    lengths: list[int], epoch: int
) -> None:
    first = rows_of_epoch(lengths, capacity=64, packing=True, seed=3, epoch=0)
    later = rows_of_epoch(lengths, capacity=64, packing=True, seed=3, epoch=epoch)

    assert len(later) == len(first)
    assert sorted(index for row in later for index in row) == list(range(len(lengths)))


def order(count: int, **options: int) -> Order:
    return Order([1] * count, capacity=1, packing=False, seed=0, **options)


def indices(batches: list[list[list[list[int]]]]) -> list[int]:
    return [index for batch in batches for process in batch for row in process for index in row]


def test_a_step_is_the_same_however_it_is_spread() -> None:
    at_once = order(40, batch_size=8)
    spread = order(40, batch_size=1, accumulation=4, processes=2)

    for step in range(1, 11):
        assert sorted(indices(at_once.step(step))) == sorted(indices(spread.step(step)))


def test_an_epoch_ends_with_a_smaller_step_and_the_next_has_another_order() -> None:
    run = order(5, batch_size=2)

    epochs = [[indices(run.step(step)) for step in range(first, first + 3)] for first in (1, 4)]
    assert run.steps_an_epoch == 3
    assert [len(step) for step in epochs[0]] == [2, 2, 1]
    assert epochs[0] != epochs[1]
    assert sorted(sum(epochs[1], [])) == [0, 1, 2, 3, 4]


def test_a_step_can_be_asked_for_without_those_before_it() -> None:
    whole = order(7, batch_size=2)
    wanted = [whole.step(step) for step in range(1, 13)]

    assert [order(7, batch_size=2).step(step) for step in range(1, 13)] == wanted


def test_every_process_has_as_many_batches_in_the_last_step_too() -> None:
    last = order(5, batch_size=1, accumulation=2, processes=2).step(2)

    assert [[len(process) for process in batch] for batch in last] == [[1, 0]]
