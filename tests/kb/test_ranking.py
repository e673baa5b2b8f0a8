"""Which way a ranking takes, that it finds what an exact one finds, and what its scores are."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import numpy as np
import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import connection

from kb import ranking
from kb.models import Chunk, Collection, Document, Embedding, EmbeddingSpace, User
from kb.ranking import Extent, Filters, Scope
from tests.kb.rows import make_document

DIMENSIONS = 24


@dataclass(frozen=True)
class Model:
    model_name: str = "small"
    dimensions: int = DIMENSIONS


def random_vectors(count: int, seed: int) -> np.ndarray:
    """Draw unit vectors around 50 centres, as texts on 50 subjects would lie: (N, D)."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(50, DIMENSIONS))
    vectors = centres[generator.integers(50, size=count)]
    vectors = vectors + 0.7 * generator.normal(size=(count, DIMENSIONS))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit.astype(np.float32)


def add_vectors(collection: Collection, name: str, vectors: np.ndarray) -> Document:
    """Make a document that has only passages and vectors, no postings."""
    space = EmbeddingSpace.objects.ensure(Model())
    document = make_document(collection, name, [])
    version = document.versions.get()
    chunks = Chunk.objects.bulk_create(
        Chunk(
            version=version,
            document=document,
            collection=collection,
            position=position,
            start=0,
            end=1,
            page_first=1,
            page_last=1,
            text="-",
            text_hash="-",
            language="english",
            token_count=1,
        )
        for position in range(len(vectors))
    )
    Document.objects.filter(pk=document.pk).update(chunk_count=len(vectors))
    Embedding.objects.copy(space, [(c.pk, v) for c, v in zip(chunks, vectors, strict=True)])
    return document


def exactly(scope: Scope, vector: np.ndarray, limit: int) -> list[int]:
    """Rank in numpy what the scope holds."""
    with connection.cursor() as cursor:
        cursor.execute(scope.sql, scope.parameters)
        documents = [id_ for (id_,) in cursor.fetchall()]
    rows = Embedding.objects.filter(document__in=documents).values_list("chunk_id", "vector")
    scores = {chunk_id: float(np.dot(np.array(v), vector)) for chunk_id, v in rows}
    return sorted(scores, key=lambda id_: (-scores[id_], id_))[:limit]


def recall_of_walks(scope: Scope, queries: np.ndarray, limit: int = 10) -> float:
    """Compare `nearest` with numpy: the mean share of the true nearest that it finds."""
    space, extent = EmbeddingSpace.objects.active(), ranking.extent_of(scope)
    assert ranking.walks_index(extent, space)
    shares = []
    for query in queries:
        found = list(ranking.nearest(scope, extent, space, query, limit))
        assert len(found) == limit
        shares.append(len(set(found) & set(exactly(scope, query, limit))) / limit)
    return float(np.mean(shares))


@pytest.mark.parametrize(
    ("permitted", "dimensions", "walks"),
    [(0, 384, False), (10_000, 384, False), (10_001, 384, True), (900_000, 4_001, False)],
)
def test_the_index_is_walked_only_where_much_is_permitted(
    permitted: int, dimensions: int, walks: bool
) -> None:
    space = EmbeddingSpace(dimensions=dimensions)

    assert ranking.walks_index(Extent(permitted, 1_000_000, 100), space) is walks


@pytest.fixture
def crowd(collection: Collection, charlie: User) -> Document:
    """3,000 passages, of which charlie reads 30, spread over the others' subjects."""
    add_vectors(collection, "crowd.md", random_vectors(2_970, seed=1))
    own = Collection.objects.create(name="Charlie's")
    own.grant(charlie, "reader")
    return add_vectors(own, "own.md", random_vectors(30, seed=2))


@pytest.mark.django_db
def test_a_nearly_blind_reader_finds_exactly_what_is_nearest(
    crowd: Document, charlie: User
) -> None:
    scope = ranking.scope_of(charlie, Filters())
    extent, space = ranking.extent_of(scope), EmbeddingSpace.objects.active()
    assert (extent.permitted, extent.total) == (30, 3_000)

    for query in random_vectors(20, seed=3):
        found = ranking.nearest(scope, extent, space, query, 10)
        assert list(found) == exactly(scope, query, 10)


@pytest.mark.django_db
def test_even_a_walk_through_the_index_does_not_starve_a_nearly_blind_reader(
    crowd: Document, charlie: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "EXACT_UP_TO", 10)

    scope = ranking.scope_of(charlie, Filters())

    assert recall_of_walks(scope, random_vectors(20, seed=3)) == 1


@pytest.mark.django_db
def test_a_reader_of_much_finds_what_an_exact_search_finds(
    crowd: Document, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "EXACT_UP_TO", 1_000)

    scope = ranking.scope_of(alice, Filters())

    assert recall_of_walks(scope, random_vectors(20, seed=3)) >= 0.98


def plan(statement: str, parameters: dict[str, object]) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {statement}", parameters)
        return "\n".join(line for (line,) in cursor.fetchall())


@pytest.mark.django_db
def test_a_walk_uses_the_index_and_an_exact_search_does_not(crowd: Document, alice: User) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    scope, space = ranking.scope_of(alice, Filters()), EmbeddingSpace.objects.active()
    vector = "[" + ",".join(["1"] * DIMENSIONS) + "]"
    parameters = {**scope.parameters, "space": space.pk, "vector": vector, "limit": 10}

    walk = ranking._WALK.format(scope=scope.sql, space=space.pk, dimensions=space.dimensions)
    exact = ranking._EXACT.format(scope=scope.sql)

    assert f"Index Scan using {space.index_name}" in plan(walk, parameters)
    assert space.index_name not in plan(exact, parameters)


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_the_index_still_finds_everything_after_documents_came_and_went(
    collection: Collection, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "EXACT_UP_TO", 100)
    documents = [add_vectors(collection, f"{i}.md", random_vectors(200, seed=i)) for i in range(10)]
    for cycle in range(5):
        for document in documents[:2]:
            document.remove()
        with connection.cursor() as cursor:
            cursor.execute("VACUUM kb_embedding")
        documents = documents[2:] + [
            add_vectors(
                collection, f"{cycle}-{i}.md", random_vectors(200, seed=100 + 10 * cycle + i)
            )
            for i in range(2)
        ]

    scope = ranking.scope_of(alice, Filters())

    assert recall_of_walks(scope, random_vectors(40, seed=3)) >= 0.98


def bm25(passages: Sequence[str], query: Sequence[str]) -> list[float]:
    """Score word lists by the textbook formula."""
    split = [passage.split() for passage in passages]
    lengths = [len(passage) for passage in split]
    mean = sum(lengths) / len(lengths)
    scores = [0.0] * len(passages)
    for word in query:
        holding = sum(word in passage for passage in split)
        idf = log(1 + (len(split) - holding + 0.5) / (holding + 0.5))
        for i, passage in enumerate(split):
            frequency = passage.count(word)
            pivot = 1 - ranking.B + ranking.B * lengths[i] / mean
            scores[i] += idf * frequency * (ranking.K1 + 1) / (frequency + ranking.K1 * pivot)
    return scores


@pytest.mark.django_db
def test_words_score_as_bm25_computed_by_hand(collection: Collection, alice: User) -> None:
    texts = ["river ice river", "ice cold cold ice ice", "river sand", "dust", "ice sand cold sand"]
    document = make_document(collection, "a.md", texts)
    ids = list(document.chunks.order_by("position").values_list("pk", flat=True))
    scope = ranking.scope_of(alice, Filters())

    query = ranking.read_query("river cold river")
    found = ranking.matching(scope, ranking.extent_of(scope), query, 10).scores

    expected = bm25(texts, ["river", "cold", "river"])
    assert found == pytest.approx(
        {id_: score for id_, score in zip(ids, expected, strict=True) if score}
    )
    assert list(found.values()) == sorted(found.values(), reverse=True)


@pytest.mark.django_db
def test_the_length_of_a_passage_is_that_of_the_words_it_is_found_by(
    collection: Collection,
) -> None:
    document = make_document(collection, "a.md", ["the river is long", "東京都"])
    words, pieces = document.chunks.order_by("position")

    assert set(words.postings.values_list("length", flat=True)) == {4}
    assert set(pieces.postings.values_list("length", flat=True)) == {5}  # two pairs, three signs


@pytest.mark.django_db
def test_a_word_in_passages_that_may_not_be_read_does_not_change_a_score(
    collection: Collection, alice: User
) -> None:
    make_document(collection, "a.md", ["river ice", "sand"])
    scope = ranking.scope_of(alice, Filters())
    query = ranking.read_query("river")
    before = ranking.matching(scope, ranking.extent_of(scope), query, 10).scores

    secret = Collection.objects.create(name="Secret")
    make_document(secret, "b.md", ["river", "a river and a river", "the long river"])

    assert ranking.matching(scope, ranking.extent_of(scope), query, 10).scores == pytest.approx(
        before
    )


@pytest.mark.django_db
def test_passages_beyond_the_limit_are_scored_when_asked_for(
    collection: Collection, alice: User
) -> None:
    document = make_document(collection, "a.md", ["ice ice", "ice and sand and sand", "sand"])
    first, second, third = document.chunks.order_by("position").values_list("pk", flat=True)
    scope, query = ranking.scope_of(alice, Filters()), ranking.read_query("ice")
    extent = ranking.extent_of(scope)

    assert list(ranking.matching(scope, extent, query, 1).scores) == [first]
    assert list(ranking.matching(scope, extent, query, 1, also=[second, third]).scores) == [
        first,
        second,
    ]


@pytest.mark.django_db
def test_a_stop_word_of_the_query_counts_in_no_language(collection: Collection) -> None:
    make_document(collection, "a.md", ["Der Hund und das Buch the"], language="german")
    make_document(collection, "b.md", ["The dog and the book"])

    read = ranking.read_query("where is the dog")

    # Only "dog" is left, as an English, a German, and an exact word.
    assert set(read.words) == {read.words[0]}
    assert len(read.terms) == 3


@pytest.mark.django_db
def test_a_pasted_page_becomes_a_bounded_number_of_words(collection: Collection) -> None:
    make_document(collection, "a.md", ["river"])

    read = ranking.read_query(" ".join(f"word{i}" for i in range(5_000)))

    assert len(set(read.words)) == ranking.MAX_QUERY_WORDS


@pytest.mark.django_db
def test_a_stranger_has_an_empty_scope(collection: Collection, charlie: User) -> None:
    assert ranking.scope_of(AnonymousUser(), Filters()).is_empty
    scope = ranking.scope_of(charlie, Filters(collection_ids=(collection.pk,)))
    make_document(collection, "a.md", ["river"])
    assert ranking.extent_of(scope).permitted == 0
