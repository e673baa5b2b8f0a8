"""Lay examples into rows of one length, and rows into the steps of an epoch. Pure.

Rows are packed best-fit-decreasing and examples never cross a row. Each example in a row starts at
position 0 again, from which the model builds the mask that keeps them apart.
"""

import hashlib
import math
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a row that sees only itself: prompt, then the answer that is learned."""

    ids: list[int]
    answer_start: int


@dataclass(frozen=True, slots=True)
class Laid:
    """A row as the model takes it; the lists have one entry a token, `width` in all.

    `targets`: (position, token, part) of each token to learn; the prediction of a token is read one
    position before it.
    """

    ids: list[int]
    positions: list[int]
    targets: list[tuple[int, int, int]]
    length: int


def lay(parts: Sequence[Part], *, width: int, filler: int) -> Laid:
    """Lay parts side by side and fill up to `width` tokens.

    The filling carries on the last part's positions: it comes after every real token, so that no
    real token sees it, and a row of one part needs no mask at all.
    """
    ids = [token for part in parts for token in part.ids]
    positions = [position for part in parts for position in range(len(part.ids))]
    targets, start = [], 0
    for number, part in enumerate(parts):
        answer = range(part.answer_start, len(part.ids))
        targets += [(start + place, part.ids[place], number) for place in answer]
        start += len(part.ids)
    missing = width - len(ids)
    after = positions[-1] + 1 if positions else 0
    return Laid(
        ids=ids + [filler] * missing,
        positions=positions + list(range(after, after + missing)),
        targets=targets,
        length=len(ids),
    )


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Pack items into bins, longest first, each into the fullest bin that has room.

    Gives the items' indices a bin. Equal lengths keep their order. Raises ValueError for an item
    longer than `capacity`.
    """
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free, bin), ascending
    for item in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if lengths[item] > capacity:
            raise ValueError(f"item {item} has {lengths[item]} tokens, a row has {capacity}")
        place = bisect_left(room, (lengths[item], -1))
        free, chosen = room.pop(place) if place < len(room) else (capacity, len(bins))
        if chosen == len(bins):
            bins.append([])
        bins[chosen].append(item)
        insort(room, (free - lengths[item], chosen))
    return bins


def shuffled(count: int, *, seed: int, epoch: int) -> list[int]:
    """Order indices by a hash of (seed, epoch, index): the same on every machine and version."""
    return sorted(range(count), key=lambda index: _draw(seed, epoch, index))


def _draw(seed: int, epoch: int, index: int) -> bytes:
    return hashlib.sha256(f"{seed}/{epoch}/{index}".encode()).digest()


def rows_of_epoch(
    lengths: Sequence[int], *, capacity: int, packing: bool, seed: int, epoch: int
) -> list[list[int]]:
    """Give an epoch's rows of example indices, in the order in which they are trained.

    Their number does not depend on the epoch: it follows from the lengths alone.
    """
    order = shuffled(len(lengths), seed=seed, epoch=epoch)
    if not packing:
        return [[index] for index in order]
    bins = best_fit([lengths[index] for index in order], capacity)
    rows = [[order[place] for place in one] for one in bins]
    return [rows[place] for place in shuffled(len(rows), seed=seed, epoch=-1 - epoch)]


class Order:
    """Says from (seed, epoch, index) what each step of a run learns from.

    A step takes `batch_size` rows for each of `accumulation` batches on each process; the last step
    of an epoch has fewer. `longest_first` moves the widest rows of the first epoch to its beginning,
    to see at once what memory they take.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        capacity: int,
        packing: bool,
        seed: int,
        batch_size: int,
        accumulation: int = 1,
        processes: int = 1,
        longest_first: bool = False,
    ) -> None:
        self._lengths, self._seed = lengths, seed
        self._capacity, self._packing = capacity, packing
        self._batch_size, self._processes = batch_size, processes
        self._a_step = batch_size * accumulation * processes
        self._epoch, self._rows = 0, self._rows_of(0)
        if longest_first:
            wide = sorted(self._rows, key=self._width, reverse=True)[: self._a_step]
            first = {row[0] for row in wide}
            self._rows = wide + [row for row in self._rows if row[0] not in first]
        self.rows_an_epoch = len(self._rows)
        self.steps_an_epoch = math.ceil(self.rows_an_epoch / self._a_step)

    def _rows_of(self, epoch: int) -> list[list[int]]:
        return rows_of_epoch(
            self._lengths,
            capacity=self._capacity,
            packing=self._packing,
            seed=self._seed,
            epoch=epoch,
        )

    def _width(self, row: list[int]) -> int:
        return sum(self._lengths[index] for index in row)

    def step(self, number: int) -> list[list[list[list[int]]]]:
        """Give the rows of a step, counted from 1: [batch][process][row][example].

        Every process gets as many batches as the others, some of them empty, because they wait for
        each other.
        """
        epoch, place = divmod(number - 1, self.steps_an_epoch)
        if epoch != self._epoch:
            self._epoch, self._rows = epoch, self._rows_of(epoch)
        rows = self._rows[place * self._a_step : (place + 1) * self._a_step]
        size = self._batch_size
        batches = _cut(rows, size * self._processes)
        return [
            [batch[rank * size : (rank + 1) * size] for rank in range(self._processes)]
            for batch in batches
        ]


def _cut(rows: list[list[int]], size: int) -> list[list[list[int]]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
