"""Rank passages by meaning and by words, in SQL that sees only what the user may read."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import date
from typing import Any

import numpy as np
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import EmptyResultSet
from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from kb import languages, words
from kb.models import Collection, EmbeddingSpace, User
from kb.models.indexes import fetch_vectors

# --- What may be seen -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Filters:
    """What narrows a search; an empty field does not. `since` and `until` count whole days."""

    collection_ids: tuple[int, ...] = ()
    media_types: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    since: date | None = None
    until: date | None = None
    document_ids: tuple[int, ...] = ()

    def parameters(self) -> dict[str, Any]:
        """Give the filters that are set, as SQL parameters."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value
        }


# All of them are properties of the document `d`; named as the fields of Filters.
CONDITIONS = {
    "collection_ids": "d.collection_id = ANY(%(collection_ids)s)",
    "media_types": "d.media_type = ANY(%(media_types)s)",
    "languages": "d.language = ANY(%(languages)s)",
    "tags": "d.tags && %(tags)s::varchar[]",
    "since": "d.updated_at >= %(since)s::date",
    "until": "d.updated_at < %(until)s::date + 1",
    "document_ids": "d.id = ANY(%(document_ids)s)",
}


@dataclass(frozen=True, slots=True)
class Scope:
    """The documents that a search may touch: those of `readable` collections that pass `filters`.

    `readable` selects the collections' ids, with `values` as its parameters; "" selects none.
    """

    readable: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    filters: Filters = Filters()

    @property
    def is_empty(self) -> bool:
        return not self.readable

    @property
    def condition(self) -> str:
        """Holds for such a document `d`, with `parameters`."""
        conditions = [CONDITIONS[name] for name in self.filters.parameters()]
        return " AND ".join([f"d.collection_id IN ({self.readable})", *conditions])

    @property
    def sql(self) -> str:
        """Selects the documents' ids, with `parameters`."""
        return f"SELECT d.id FROM kb_document d WHERE {self.condition}"

    @property
    def parameters(self) -> dict[str, Any]:
        return self.values | self.filters.parameters()


def scope_of(user: User | AnonymousUser, filters: Filters) -> Scope:
    """Select the documents that the user may read and that pass the filters."""
    readable = Collection.objects.readable_by(user).order_by().values("pk").query
    try:
        sql, values = readable.sql_with_params()
    except EmptyResultSet:
        return Scope()
    named = {f"readable_{i}": value for i, value in enumerate(values)}
    return Scope(sql % tuple(f"%({name})s" for name in named), named, filters)


@dataclass(frozen=True, slots=True)
class Extent:
    """How much a search may touch: `permitted` of `total` passages, `mean_length` words each."""

    permitted: int
    total: int
    mean_length: float


_EXTENT = """
SELECT coalesce(sum(chunk_count) FILTER (WHERE {condition}), 0), coalesce(sum(chunk_count), 0),
       (SELECT avg(length)
          FROM (SELECT id FROM kb_chunk WHERE (document_id IN ({scope})) IS TRUE LIMIT 200) AS c,
               LATERAL (SELECT length FROM kb_posting WHERE chunk_id = c.id LIMIT 1) AS sample)
  FROM kb_document d
"""


def extent_of(scope: Scope) -> Extent:
    statement = _EXTENT.format(condition=scope.condition, scope=scope.sql)
    permitted, total, mean_length = fetch_rows(statement, scope.parameters)[0]
    return Extent(int(permitted), int(total), float(mean_length or 1))


# --- By meaning -------------------------------------------------------------------------------

# Up to here every permitted vector is compared: exact, and no slower than walking the index, which
# for 10,000 vectors the planner would not even use.
EXACT_UP_TO = 10_000
# An array of the documents leads through their index, where IN would read every vector there is.
_EXACT = """
SELECT chunk_id, -(vector <#> %(vector)s::vector) AS similarity FROM kb_embedding
 WHERE space_id = %(space)s AND document_id = ANY(ARRAY({scope}))
 ORDER BY similarity DESC, chunk_id LIMIT %(limit)s
"""
# Cast, operator and space are those of EmbeddingSpace.create_index. IS TRUE keeps the planner from
# turning IN into a join, after which it would sort everything instead of walking the index.
_WALK = """
SELECT chunk_id, -(vector <#> %(vector)s::vector) AS similarity FROM (
    SELECT chunk_id, vector FROM kb_embedding
     WHERE space_id = {space} AND (document_id IN ({scope})) IS TRUE
     ORDER BY (vector::halfvec({dimensions})) <#> %(vector)s::halfvec({dimensions})
     LIMIT %(limit)s) AS near
ORDER BY similarity DESC, chunk_id
"""
_VECTORS = """
SELECT chunk_id, vector_send(vector) FROM kb_embedding
 WHERE space_id = %(space)s AND chunk_id = ANY(%(chunk_ids)s::bigint[]) AND document_id IN ({scope})
"""
# pgvector's most; more candidates in hand mean better recall.
_MAX_SCAN_TUPLES = 200_000


def walks_index(extent: Extent, space: EmbeddingSpace) -> bool:
    """Decide the way of `nearest`: walk the HNSW index, or compare every permitted vector.

    PostgreSQL would choose the index even for a reader of 1 % of the passages, and find 0.4 of 10.
    """
    return extent.permitted > EXACT_UP_TO and space.is_indexed


def nearest(
    scope: Scope, extent: Extent, space: EmbeddingSpace, vector: np.ndarray, limit: int
) -> dict[int, float]:
    """Give the permitted passages nearest to a unit vector with their cosine, best first."""
    parameters = {
        **scope.parameters,
        "vector": _text_of(vector),
        "space": space.pk,
        "limit": limit,
    }
    if walks_index(extent, space):
        found = _walk(scope, extent, space, parameters, limit)
        if len(found) == limit:
            return found
    return dict(fetch_rows(_EXACT.format(scope=scope.sql), parameters))


def _walk(
    scope: Scope, extent: Extent, space: EmbeddingSpace, parameters: dict[str, Any], limit: int
) -> dict[int, float]:
    # The index is filtered after it is walked, so a walk must visit more where less is permitted.
    visits = 4 * limit * extent.total // extent.permitted
    settings = {
        "hnsw.iterative_scan": "relaxed_order",
        "hnsw.ef_search": min(2 * limit, 1000),
        "hnsw.max_scan_tuples": min(max(visits, 20_000), _MAX_SCAN_TUPLES),
    }
    statement = _WALK.format(scope=scope.sql, space=space.pk, dimensions=space.dimensions)
    with transaction.atomic(), connection.cursor() as cursor:
        set_local(cursor, settings)
        cursor.execute(statement, parameters)
        return dict(cursor.fetchall())


def set_local(cursor: CursorWrapper, settings: dict[str, Any]) -> None:
    """Set PostgreSQL's settings until the transaction ends."""
    calls = ", ".join("set_config(%s, %s, true)" for _ in settings)
    cursor.execute(f"SELECT {calls}", [str(part) for item in settings.items() for part in item])


def vectors_of(
    scope: Scope, space: EmbeddingSpace, chunk_ids: Sequence[int]
) -> dict[int, np.ndarray]:
    """Give the vectors of these passages, where permitted and present."""
    parameters = {**scope.parameters, "space": space.pk, "chunk_ids": list(chunk_ids)}
    return fetch_vectors(_VECTORS.format(scope=scope.sql), parameters)


def _text_of(vector: np.ndarray) -> str:
    return f"[{','.join(map(repr, vector.tolist()))}]"


# --- By words ---------------------------------------------------------------------------------

# A pasted page must not become a thousand index scans.
MAX_QUERY_WORDS = 48
# A word that is kept as it stands is found in its parts as well (words.read).
EXACT_WEIGHT = 0.5
_LEX = """
WITH RECURSIVE present (language) AS (
    SELECT min(language) FROM kb_chunk
     UNION ALL
    SELECT (SELECT min(c.language) FROM kb_chunk c WHERE c.language > present.language)
      FROM present WHERE present.language IS NOT NULL),
spoken AS (
    SELECT language FROM present WHERE language IS NOT NULL
     UNION SELECT %(language)s WHERE %(language)s != '')
SELECT w.number::int, s.language, hashtextextended(s.language || ':' || t.lexeme, 0)
  FROM spoken s, unnest(%(plain)s::text[]) WITH ORDINALITY AS w (word, number),
       LATERAL unnest(to_tsvector(s.language::regconfig, w.word)) AS t
 UNION ALL
SELECT w.number::int, '', hashtextextended(':' || w.word, 0)
  FROM unnest(%(exact)s::text[]) WITH ORDINALITY AS w (word, number)
"""


@dataclass(frozen=True, slots=True)
class QueryWords:
    """The terms that a query's words can be in any language present.

    Of equal length: `terms` (see Posting), `words` (the number of the word that each belongs to),
    `weights` (how much that word counts: once for each time it stands in the query).
    """

    terms: list[int] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)


def read_query(query: str) -> QueryWords:
    """Turn a query into terms. A stop word of the query's language counts in no language."""
    read = words.read(query)
    counts = dict((read.plain_words() + read.exact).most_common(MAX_QUERY_WORDS))
    plain = [word for word in counts if word not in read.exact]
    exact = [*plain, *(word for word in counts if word in read.exact)]
    language = languages.detect(query, default="")
    rows = fetch_rows(_LEX, {"language": language, "plain": plain, "exact": exact})
    kept = {number for number, spoken, _ in rows if spoken == language}
    result = QueryWords()
    for number, _, term in rows:
        if not language or number in kept or number > len(plain):
            result.terms.append(term)
            result.words.append(number)
            count = counts[exact[number - 1]]
            result.weights.append(count * (EXACT_WEIGHT if number > len(plain) else 1.0))
    return result


# Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond, 2009; the idf is
# Lucene's, which is never negative.
K1, B = 1.5, 0.75
# Computed in float8: numeric, which a plain 1.5 would be, takes ten times as long. The postings are
# read twice, which takes less time than keeping them between counting and adding up.
_MATCHED = """
WITH query AS (
    SELECT * FROM unnest(%(terms)s::bigint[], %(words)s::int[], %(weights)s::float8[])
                  AS q (term, word, weight)),
frequencies AS (
    SELECT word, least(count(*), %(permitted)s)::float8 AS n
      FROM query JOIN kb_posting p USING (term)
     WHERE p.document_id IN ({scope}) GROUP BY word),
weighted AS MATERIALIZED (
    SELECT term, weight * (%(k1)s::float8 + 1)
                 * ln(1 + (%(permitted)s - n + 0.5::float8) / (n + 0.5)) AS weight
      FROM query JOIN frequencies USING (word)),
scored AS MATERIALIZED (
    SELECT p.chunk_id, p.document_id,
           sum(w.weight * p.frequency / (p.frequency + %(k1)s::float8
               * (1 - %(b)s::float8 + %(b)s::float8 * p.length / %(mean_length)s::float8))) AS score
      FROM weighted w JOIN kb_posting p USING (term)
     WHERE p.document_id IN ({scope}) GROUP BY p.chunk_id, p.document_id)
SELECT 'passage', chunk_id, score FROM (
    (SELECT chunk_id, score FROM scored ORDER BY score DESC, chunk_id LIMIT %(limit)s)
     UNION SELECT chunk_id, score FROM scored WHERE chunk_id = ANY(%(also)s::bigint[])) AS best
 UNION ALL
SELECT 'document', document_id, count(*)::float8 FROM scored GROUP BY document_id
 ORDER BY 3 DESC, 2
"""


@dataclass(frozen=True, slots=True)
class Matches:
    """Passages that hold words of a query.

    `scores`: the BM25 of each, best first. `documents`: how many of all of them a document has.
    """

    scores: dict[int, float] = field(default_factory=dict)
    documents: dict[int, int] = field(default_factory=dict)


def matching(
    scope: Scope, extent: Extent, query: QueryWords, limit: int, also: Sequence[int] = ()
) -> Matches:
    """Find the permitted passages that hold words of the query; the best `limit` are scored.

    Passages of `also` are scored beyond the limit where they hold any of the words.
    """
    if not query.terms:
        return Matches()
    parameters = {
        **scope.parameters,
        "terms": query.terms,
        "words": query.words,
        "weights": query.weights,
        "k1": K1,
        "b": B,
        "mean_length": extent.mean_length,
        "permitted": max(extent.permitted, 1),
        "limit": limit,
        "also": list(also),
    }
    rows = fetch_rows(_MATCHED.format(scope=scope.sql), parameters)
    return Matches(
        {id_: score for kind, id_, score in rows if kind == "passage"},
        {id_: int(count) for kind, id_, count in rows if kind == "document"},
    )


# --- What is shown ----------------------------------------------------------------------------

_PASSAGES = """
SELECT c.id AS chunk_id, c.document_id, c.version_id, c.collection_id, o.name AS collection_name,
       d.title, d.name, d.media_type, d.updated_at, c.heading_path, c.page_first, c.page_last,
       c.start, c."end", c.text, c.language
  FROM kb_chunk c JOIN kb_document d ON d.id = c.document_id
       JOIN kb_collection o ON o.id = d.collection_id
 WHERE c.id = ANY(%(chunk_ids)s::bigint[]) AND {condition}
 ORDER BY array_position(%(chunk_ids)s::bigint[], c.id)
"""


def passages_of(scope: Scope, chunk_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Give what a hit shows of these passages, and their language, in this order where permitted."""
    with connection.cursor() as cursor:
        cursor.execute(
            _PASSAGES.format(condition=scope.condition),
            scope.parameters | {"chunk_ids": list(chunk_ids)},
        )
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def fetch_rows(statement: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall()
