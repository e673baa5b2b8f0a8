from math import log2

import pytest

from benchmarks import metrics


def test_ndcg_of_a_ranking_computed_by_hand() -> None:
    # b (grade 1) at rank 1, a (grade 2) at rank 3, c (grade 1) not found.
    gained = 1 / log2(2) + 2 / log2(4)
    best = 2 / log2(2) + 1 / log2(3) + 1 / log2(4)

    found = metrics.ndcg(["b", "x", "a"], {"a": 2, "b": 1, "c": 1, "x": 0}, 10)

    assert found == pytest.approx(gained / best) == pytest.approx(0.6388, abs=1e-4)


def test_ndcg_looks_at_the_first_k_only() -> None:
    assert metrics.ndcg(["x", "a"], {"a": 1}, 1) == 0
    assert metrics.ndcg(["x", "a"], {"a": 1}, 2) == pytest.approx(1 / log2(3))
    # With k = 1 the best possible ranking holds one of the two.
    assert metrics.ndcg(["a"], {"a": 1, "b": 1}, 1) == 1


def test_a_perfect_ranking_scores_one_and_nothing_found_scores_zero() -> None:
    grades = {"a": 3.0, "b": 1.0}

    assert metrics.ndcg(["a", "b", "x"], grades, 10) == 1
    assert metrics.ndcg([], grades, 10) == 0
    assert metrics.ndcg(["x"], {"x": 0}, 10) == 0


def test_recall_counts_relevant_documents_among_the_first_k() -> None:
    grades = {"a": 1.0, "b": 1.0, "c": 2.0, "d": 0.0}

    assert metrics.recall(["a", "d", "x", "c"], grades, 3) == pytest.approx(1 / 3)
    assert metrics.recall(["a", "d", "x", "c"], grades, 4) == pytest.approx(2 / 3)


def test_reciprocal_rank_is_that_of_the_first_relevant_document() -> None:
    assert metrics.reciprocal_rank(["x", "d", "a"], {"a": 1, "d": 0}) == pytest.approx(1 / 3)
    assert metrics.reciprocal_rank(["x"], {"a": 1}) == 0
