"""Groups, candidates by bands, and closeness of vectors."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from finetune import similar


def test_what_is_joined_through_others_is_together() -> None:
    groups = similar.Groups(6)
    groups.join(4, 2)
    groups.join(2, 0)
    groups.join_same([(1, "a"), (5, "b"), (3, "a")])
    assert groups.several() == [[0, 2, 4], [1, 3]]
    assert groups.together(0, 4)
    assert not groups.together(0, 1)


@given(st.lists(st.lists(st.integers(0, 30), min_size=3, max_size=3, unique=True), max_size=30))
def test_candidates_are_exactly_those_who_share_a_key(bands: list[list[int]]) -> None:
    found = {tuple(pair) for pair in similar.candidates(bands).tolist()}
    assert found == {
        (one, other)
        for other in range(len(bands))
        for one in range(other)
        if not set(bands[one]).isdisjoint(bands[other])
    }


def test_a_crowd_behind_one_key_stays_bounded_and_connected() -> None:
    pairs = similar.candidates([[7]] * 1_000)
    assert len(pairs) < 10_000
    groups = similar.Groups(1_000)
    for one, other in pairs.tolist():
        groups.join(one, other)
    assert len(groups.several()[0]) == 1_000


def test_close_gives_what_all_products_would() -> None:
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(1_300, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ones, others = np.nonzero(np.triu(vectors @ vectors.T, 1) >= 0.9)
    expected = set(zip(ones.tolist(), others.tolist(), strict=True))
    assert {pair[:2] for pair in similar.close(vectors, least=0.9)} == expected
    first = {pair[:2] for pair in similar.close(vectors, least=0.9, rows=600)}
    assert first == {pair for pair in expected if pair[0] < 600}
