"""Find the passages that answer a query best, among those the user may read."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import nan

import numpy as np
from django.contrib.auth.models import AnonymousUser

from kb import facets, highlights
from kb.backends import get_backend
from kb.embedders import EmbeddingError
from kb.models import Chunk, EmbeddingSpace, User
from kb.ranking import (
    Filters,
    QueryWords,
    extent_of,
    matching,
    nearest,
    read_query,
    scope_of,
    similarities,
)

__all__ = ["Filters", "Hit", "Results", "fuse", "matching", "nearest", "search", "search_page"]

logger = logging.getLogger(__name__)
# A longer query is cut: nobody types it, and what is pasted says enough by then.
MAX_QUERY = 2_000
NEAREST = 200  # passages that the ranking by meaning hands over
MATCHING = 200  # passages that the ranking by words hands over
MATCHING_FOR_PAGES = 1_000  # and for a search page, whose reader may turn pages


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage found. `start` and `end` count in the version's text, other spans in `text`.

    `score`: fused, higher is better. `similarity`: the cosine of query and passage, nan when not
    computed. `text_score`: BM25, 0 when no word matches. `marks`: where the query's words are.
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
    """Scores of passages by their id. `fused` has the best first."""

    fused: dict[int, float] = field(default_factory=dict)
    similarity: dict[int, float] = field(default_factory=dict)
    text: dict[int, float] = field(default_factory=dict)
    words: QueryWords = field(default_factory=QueryWords)
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
    return _hits(user, rank(user, query, filters=filters), limit, offset)


def search_page(
    user: User | AnonymousUser,
    query: str,
    *,
    filters: Filters = Filters(),  # noqa: B008 - it is frozen
    limit: int = 10,
    offset: int = 0,
) -> Results:
    """Search with the number of hits and what each filter would leave."""
    clock = Clock()
    ranking = rank(user, query, filters=filters, depth=MATCHING_FOR_PAGES)
    clock.lap("rank")
    hits = _hits(user, ranking, limit, offset)
    clock.lap("hits")
    near = [id_ for id_ in ranking.similarity if id_ not in ranking.text]
    found = facets.count(user, filters, ranking.words.terms, near) if ranking.fused else {}
    clock.lap("facets")
    return Results(hits, len(ranking.fused), found, ranking.took_ms | clock.took_ms)


def rank(
    user: User | AnonymousUser,
    query: str,
    *,
    filters: Filters = Filters(),  # noqa: B008 - it is frozen
    depth: int = MATCHING,
) -> Ranking:
    """Score the passages that may answer the query: the nearest, and those that hold its words.

    Every one of them gets both scores, whichever way it was found. Without an embedding model at
    hand the words alone decide.
    """
    query = query.strip()[:MAX_QUERY]
    scope = scope_of(user, filters)
    if not query or scope.is_empty:
        return Ranking()
    clock, ranking, extent = Clock(), Ranking(), extent_of(scope)
    vector, space = _embed(query)
    clock.lap("embed")
    if space is not None:
        ranking.similarity = nearest(scope, extent, space, vector, NEAREST)
    clock.lap("nearest")
    ranking.words = read_query(query)
    ranking.text = matching(scope, extent, ranking.words, depth, also=list(ranking.similarity))
    clock.lap("matching")
    if space is not None:
        others = [id_ for id_ in ranking.text if id_ not in ranking.similarity]
        ranking.similarity |= similarities(scope, space, vector, others)
    ranking.fused = fuse(ranking.similarity, ranking.text)
    clock.lap("fuse")
    ranking.took_ms = clock.took_ms
    return ranking


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


def fuse(similarity: Mapping[int, float], text: Mapping[int, float]) -> dict[int, float]:
    """Join two rankings into one, best first."""
    vector_scores, text_scores = _scaled(similarity), _scaled(text)
    scores = {
        id_: (vector_scores.get(id_, 0.0) + text_scores.get(id_, 0.0)) / 2
        for id_ in similarity | text
    }
    return dict(sorted(scores.items(), key=lambda item: (-item[1], item[0])))


def _scaled(scores: Mapping[int, float]) -> dict[int, float]:
    best, worst = max(scores.values(), default=0.0), 0.0
    width = best - worst
    return {id_: (score - worst) / width for id_, score in scores.items()} if width > 0 else {}


def _hits(user: User | AnonymousUser, ranking: Ranking, limit: int, offset: int) -> list[Hit]:
    ids = list(ranking.fused)[offset : offset + limit]
    chunks = (
        Chunk.objects.visible_to(user)
        .select_related("document", "collection")
        .defer("document__tags", "collection__description")
        .in_bulk(ids)
    )
    found = [chunks[id_] for id_ in ids if id_ in chunks]
    marks = highlights.find_marks([(c.text, c.language) for c in found], ranking.words.terms)
    return [_hit(chunk, ranking, spans) for chunk, spans in zip(found, marks, strict=True)]


def _hit(chunk: Chunk, ranking: Ranking, marks: list[highlights.Span]) -> Hit:
    document = chunk.document
    snippet_start, snippet_end = highlights.best_snippet(chunk.text, marks)
    return Hit(
        chunk_id=chunk.pk,
        document_id=document.pk,
        version_id=chunk.version_id,
        collection_id=chunk.collection_id,
        collection_name=chunk.collection.name,
        title=document.title,
        name=document.name,
        media_type=document.media_type,
        updated_at=document.updated_at,
        heading_path=tuple(chunk.heading_path),
        page_first=chunk.page_first,
        page_last=chunk.page_last,
        start=chunk.start,
        end=chunk.end,
        text=chunk.text,
        score=ranking.fused[chunk.pk],
        similarity=ranking.similarity.get(chunk.pk, nan),
        text_score=ranking.text.get(chunk.pk, 0.0),
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
