"""Find the passages that answer a query best, among those the user may read."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import exp, nan
from typing import Any

import numpy as np
from django.contrib.auth.models import AnonymousUser

from kb import facets, highlights
from kb.backends import get_backend
from kb.embedders import EmbeddingError
from kb.models import EmbeddingSpace, User
from kb.ranking import (
    Filters,
    QueryWords,
    Scope,
    extent_of,
    matching,
    nearest,
    passages_of,
    read_query,
    scope_of,
    vectors_of,
)

__all__ = ["Filters", "Hit", "Results", "fuse", "matching", "nearest", "search", "search_page"]

logger = logging.getLogger(__name__)
# A longer query is cut: nobody types it, and what is pasted says enough by then.
MAX_QUERY = 2_000
NEAREST = 200  # passages that the ranking by meaning hands over
MATCHING = 200  # passages that the ranking by words hands over
MATCHING_FOR_PAGES = 1_000  # and for a search page, whose reader may turn pages
# A search page shows a passage without any word of the query from this share of the best cosine on.
NEAR_SHARE = 0.5
# Chosen on seven sets at once; between 0.5 and 0.7, 3 and 10, 0.1 and 0.3 little changes
# (docs/measurements.md).
MEANING = 0.6
NEIGHBOURS = 5
FROM_NEIGHBOURS = 0.2


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage found. `start` and `end` count in the version's text, other spans in `text`.

    `score`: fused, 0 to 1, higher is better; comparable within one search only. `similarity`: the
    cosine of query and passage, nan when not computed. `text_score`: BM25, 0 when no word matches.
    `marks`: where the query's words are.
    """

    chunk_id: int
    document_id: int
    version_id: int
    collection_id: int
    collection_name: str
    title: str
    name: str
    media_type: str
    updated_at: datetime
    heading_path: tuple[str, ...]
    page_first: int
    page_last: int
    start: int
    end: int
    text: str
    score: float
    similarity: float
    text_score: float
    marks: tuple[tuple[int, int], ...]
    snippet_start: int
    snippet_end: int


@dataclass(frozen=True, slots=True)
class Results:
    """A page of hits.

    `total`: how many hits can be paged through. `facets`: for collection, type, language, tag and
    year the (value, label, count) that the other filters leave, most frequent first; counted are
    passages that hold a word of the query or are among the nearest.
    """

    hits: list[Hit]
    total: int
    facets: facets.Facets
    took_ms: dict[str, float]


@dataclass(slots=True)
class Ranking:
    """Scores of passages by their id. `fused` has the best first.

    `documents`: how many passages with a word of the query each document has.
    """

    fused: dict[int, float] = field(default_factory=dict)
    similarity: dict[int, float] = field(default_factory=dict)
    text: dict[int, float] = field(default_factory=dict)
    documents: dict[int, int] = field(default_factory=dict)
    words: QueryWords = field(default_factory=QueryWords)
    scope: Scope = Scope()
    took_ms: dict[str, float] = field(default_factory=dict)


def search(
    user: User | AnonymousUser,
    query: str,
    *,
    filters: Filters = Filters(),  # noqa: B008 - it is frozen
    limit: int = 10,
    offset: int = 0,
) -> list[Hit]:
    """Find the passages the user may read that answer the query best, best first."""
    ranking = rank(user, query, filters=filters)
    return _hits(ranking, list(ranking.fused)[offset : offset + limit])


def search_page(
    user: User | AnonymousUser,
    query: str,
    *,
    filters: Filters = Filters(),  # noqa: B008 - it is frozen
    limit: int = 10,
    offset: int = 0,
) -> Results:
    """Search with the number of hits and what each filter would leave."""
    ranking = rank(user, query, filters=filters, depth=MATCHING_FOR_PAGES)
    clock = Clock()
    enough = NEAR_SHARE * max(ranking.similarity.values(), default=0.0)
    found = [
        id_
        for id_ in ranking.fused
        if id_ in ranking.text or ranking.similarity.get(id_, -1.0) >= enough
    ]
    hits = _hits(ranking, found[offset : offset + limit])
    clock.lap("rows")
    near = [id_ for id_ in found if id_ not in ranking.text]
    counts = facets.count(ranking.scope, ranking.words.terms, ranking.documents, near)
    clock.lap("facets")
    return Results(hits, len(found), counts, ranking.took_ms | clock.took_ms)


def rank(
    user: User | AnonymousUser,
    query: str,
    *,
    filters: Filters = Filters(),  # noqa: B008 - it is frozen
    depth: int = MATCHING,
) -> Ranking:
    """Score the passages that may answer the query: the nearest, and those that hold its words.

    Each of them gets both scores, whichever way it was found. Passages that hold words, but are
    not among the first MATCHING of these, come last. Without an embedding model at hand the words
    alone decide.
    """
    query, scope = _readable(query), scope_of(user, filters)
    ranking = Ranking(scope=scope)
    if not query or scope.is_empty:
        return ranking
    clock, extent = Clock(), extent_of(scope)
    clock.lap("extent")
    vector, space = _embed(query)
    clock.lap("embed")
    near = list(nearest(scope, extent, space, vector, NEAREST)) if space else []
    clock.lap("nearest")
    ranking.words = read_query(query)
    matches = matching(scope, extent, ranking.words, depth, also=near)
    ranking.text, ranking.documents = matches.scores, matches.documents
    clock.lap("matching")
    first = list(dict.fromkeys([*near, *list(ranking.text)[:MATCHING]]))
    vectors = vectors_of(scope, space, first) if space else {}
    ranking.similarity = {id_: float(vectors[id_] @ vector) for id_ in vectors}
    ranking.fused = _ordered(
        smooth(fuse(first, ranking.similarity, ranking.text), vectors), ranking.text
    )
    clock.lap("fuse")
    ranking.took_ms = clock.took_ms
    return ranking


def _readable(query: str) -> str:
    """Shorten a query and take out what neither tokenizer nor database can read."""
    known = query.encode("utf-8", "replace").decode()
    return known.replace("\0", " ").strip()[:MAX_QUERY]


def _embed(query: str) -> tuple[np.ndarray, EmbeddingSpace | None]:
    """Embed a query for the active space; None when another model made it, or none is at hand."""
    nothing = np.zeros(0, np.float32)
    try:
        embedder, space = get_backend("EMBEDDER"), EmbeddingSpace.objects.active()
        if embedder.model_name != space.model_name:
            logger.warning("passages are embedded with %s: words alone rank", space.model_name)
            return nothing, None
        return embedder.embed_query(query), space
    except EmbeddingSpace.DoesNotExist:
        return nothing, None
    except EmbeddingError as error:
        logger.warning("words alone rank: %s", error)
        return nothing, None


def fuse(
    chunk_ids: Sequence[int], similarity: Mapping[int, float], text: Mapping[int, float]
) -> dict[int, float]:
    """Add the two scores of each passage, each in standard deviations from its mean.

    So neither the range of a model's cosines nor the length of a query shifts the balance, and how
    far a passage stands out counts, which ranks forget. Nearness weighs MEANING, words the rest.
    """
    lowest = min(similarity.values(), default=0.0)
    by_meaning = _standardized([similarity.get(id_, lowest) for id_ in chunk_ids])
    by_words = _standardized([text.get(id_, 0.0) for id_ in chunk_ids])
    fused = MEANING * by_meaning + (1 - MEANING) * by_words
    return dict(zip(chunk_ids, fused.tolist(), strict=True))


def _standardized(scores: Sequence[float]) -> np.ndarray:
    values = np.array(scores)
    spread = values.std() if len(values) else 0.0
    return (values - values.mean()) / spread if spread > 0 else np.zeros(len(values))


def smooth(scores: Mapping[int, float], vectors: Mapping[int, np.ndarray]) -> dict[int, float]:
    """Move each score towards those of the passages most like it.

    Relevant passages resemble each other (the cluster hypothesis), so one that stands among good
    ones is more likely right than one that stands alone.
    """
    ids = [id_ for id_ in scores if id_ in vectors]
    neighbours = min(NEIGHBOURS, len(ids) - 1)
    if neighbours < 1:
        return dict(scores)
    matrix = np.stack([vectors[id_] for id_ in ids])  # (N, D)
    own = np.array([scores[id_] for id_ in ids])  # (N,)
    alike = matrix @ matrix.T  # (N, N)
    np.fill_diagonal(alike, -np.inf)
    every, around, weights = np.arange(len(ids)), np.zeros(len(ids)), np.zeros(len(ids))
    for _ in range(neighbours):  # a tenth of the time that argpartition takes
        best = alike.argmax(axis=1)
        weight = np.maximum(alike[every, best], 1e-6)
        around += weight * own[best]
        weights += weight
        alike[every, best] = -np.inf
    around /= weights
    smoothed = (1 - FROM_NEIGHBOURS) * own + FROM_NEIGHBOURS * around
    return dict(scores) | dict(zip(ids, smoothed.tolist(), strict=True))


def _ordered(scores: Mapping[int, float], text: Mapping[int, float]) -> dict[int, float]:
    """Put the best first, as shares of 1; passages of `text` without a score follow with 0."""
    shares = {id_: 1 / (1 + exp(-score)) for id_, score in scores.items()}
    best_first = sorted(shares.items(), key=lambda item: (-item[1], item[0]))
    return dict(best_first) | {id_: 0.0 for id_ in text if id_ not in shares}


def _hits(ranking: Ranking, ids: list[int]) -> list[Hit]:
    found = passages_of(ranking.scope, ids) if ids else []
    passages = [(passage["text"], passage.pop("language")) for passage in found]
    marks = highlights.find_marks(passages, ranking.words.terms)
    return [_hit(passage, ranking, spans) for passage, spans in zip(found, marks, strict=True)]


def _hit(passage: dict[str, Any], ranking: Ranking, marks: list[highlights.Span]) -> Hit:
    chunk_id = passage["chunk_id"]
    snippet_start, snippet_end = highlights.best_snippet(passage["text"], marks)
    return Hit(
        **passage | {"heading_path": tuple(passage["heading_path"])},
        score=ranking.fused[chunk_id],
        similarity=ranking.similarity.get(chunk_id, nan),
        text_score=ranking.text.get(chunk_id, 0.0),
        marks=tuple(marks),
        snippet_start=snippet_start,
        snippet_end=snippet_end,
    )


class Clock:
    """Measures the parts of a search, in milliseconds."""

    def __init__(self) -> None:
        self.took_ms: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.took_ms[name] = round((now - self._last) * 1000, 2)
        self._last = now
