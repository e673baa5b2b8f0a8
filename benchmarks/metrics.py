"""Measures of a ranking against judgements. Pure.

A ranking is ids, best first; `grades` says how relevant each judged id is, 0 for not at all.
"""

from collections.abc import Mapping, Sequence
from math import log2


def ndcg(ranking: Sequence[str], grades: Mapping[str, float], k: int) -> float:
    """Give the normalized discounted cumulative gain of the first k, 0 to 1.

    A document at rank r gains its grade / log2(r + 1); the sum is divided by the best possible one.
    Source: Järvelin and Kekäläinen, 2002, as trec_eval and BEIR compute it.
    """
    gained = _discounted([max(grades.get(id_, 0), 0) for id_ in ranking[:k]])
    best = _discounted(sorted((g for g in grades.values() if g > 0), reverse=True)[:k])
    return gained / best if best else 0.0


def _discounted(gains: Sequence[float]) -> float:
    return sum(gain / log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def recall(ranking: Sequence[str], grades: Mapping[str, float], k: int) -> float:
    """Give the share of the relevant documents that are among the first k."""
    relevant = {id_ for id_, grade in grades.items() if grade > 0}
    return len(relevant.intersection(ranking[:k])) / len(relevant) if relevant else 0.0


def reciprocal_rank(ranking: Sequence[str], grades: Mapping[str, float]) -> float:
    """Give 1 / the rank of the first relevant document, 0 where there is none."""
    ranks = (rank for rank, id_ in enumerate(ranking, start=1) if grades.get(id_, 0) > 0)
    return 1 / next(ranks, float("inf"))
