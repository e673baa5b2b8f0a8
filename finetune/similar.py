"""Which of many pairs belong together: by words through their bands, by meaning through vectors."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from finetune import minhash

Vectors = npt.NDArray[np.float32]
# Beyond this many pairs behind one band key, each meets its neighbours and the first one only.
_CROWD, _NEIGHBOURS = 64, 8
# 512 × 5,000 float32 products are 10 MB.
_BLOCK = 512


class Groups:
    """Things that were joined, directly or through others: union-find over 0 … size - 1."""

    def __init__(self, size: int) -> None:
        self._above = list(range(size))

    def root(self, item: int) -> int:
        while self._above[item] != item:
            self._above[item] = item = self._above[self._above[item]]
        return item

    def join(self, one: int, other: int) -> None:
        first, second = sorted((self.root(one), self.root(other)))
        self._above[second] = first

    def join_same(self, keys: Iterable[tuple[int, Hashable]]) -> None:
        """Join the items that share a key."""
        seen: dict[Hashable, int] = {}
        for item, key in keys:
            self.join(item, seen.setdefault(key, item))

    def together(self, one: int, other: int) -> bool:
        return self.root(one) == self.root(other)

    def several(self) -> list[list[int]]:
        """Give the groups of two and more, members ascending, by their first member."""
        groups: dict[int, list[int]] = {}
        for item in range(len(self._above)):
            groups.setdefault(self.root(item), []).append(item)
        return [members for members in groups.values() if len(members) > 1]


def candidates(bands: Sequence[Sequence[int]]) -> npt.NDArray[np.int64]:
    """Give the pairs (one, other) that share a band key, each once, one < other: (N, 2)."""
    keys = np.fromiter((key for row in bands for key in row), np.int64)
    owners = np.repeat(np.arange(len(bands)), [len(row) for row in bands])
    order = np.lexsort((owners, keys))
    keys, owners = keys[order], owners[order]
    edges = np.flatnonzero(np.diff(keys)) + 1
    starts, ends = np.r_[0, edges], np.r_[edges, len(keys)]
    crowded = ends - starts > 1
    found = [
        _pairs_within(owners[start:end])
        for start, end in zip(starts[crowded], ends[crowded], strict=True)
    ]
    if not found:
        return np.empty((0, 2), dtype=np.int64)
    return np.unique(np.concatenate(found), axis=0)


def _pairs_within(owners: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    count = len(owners)
    if count <= _CROWD:
        one, other = np.triu_indices(count, 1)
    else:
        steps = np.arange(1, _NEIGHBOURS + 1)
        one = np.repeat(np.arange(count), _NEIGHBOURS)
        other = one + np.tile(steps, count)
        one = np.concatenate((one[other < count], np.zeros(count - 1, dtype=np.int64)))
        other = np.concatenate((other[other < count], np.arange(1, count)))
    return np.column_stack((owners[one], owners[other]))


def join_near(
    groups: Groups,
    pairs: npt.NDArray[np.int64],
    fields: Callable[[int], minhash.Fields],
    *,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Join the candidates whose words are nearly the same; those together already cost nothing."""
    for number, (one, other) in enumerate(pairs.tolist()):
        if number % 20_000 == 0:
            report(number, len(pairs))
        if groups.together(one, other):
            continue
        if minhash.similarity(fields(one), fields(other)) >= minhash.NEAR:
            groups.join(one, other)


def between(ours: Vectors, theirs: Vectors, *, least: float) -> Iterator[tuple[int, int, float]]:
    """Give the rows of two sets whose cosine is `least` or more: (one of ours, one of theirs, cosine).

    Both (N, D), of unit length.
    """
    for start in range(0, len(ours), _BLOCK):
        cosines = ours[start : start + _BLOCK] @ theirs.T  # (B, N)
        ones, others = np.nonzero(cosines >= least)
        for one, other in zip(ones.tolist(), others.tolist(), strict=True):
            yield start + one, other, float(cosines[one, other])


def close(
    vectors: Vectors, *, least: float, rows: int | None = None
) -> Iterator[tuple[int, int, float]]:
    """Give the rows whose cosine is `least` or more: (one, other, cosine), one < other.

    vectors: (N, D), of unit length. `rows`: only what is close to one of the first so many.
    """
    rows = len(vectors) if rows is None else rows
    for start in range(0, rows, _BLOCK):
        block = vectors[start : min(start + _BLOCK, rows)]
        cosines = block @ vectors[start:].T  # (B, N - start)
        ones, others = np.nonzero(cosines >= least)
        for one, other in zip(ones.tolist(), others.tolist(), strict=True):
            if other > one:
                yield start + one, start + other, float(cosines[one, other])
