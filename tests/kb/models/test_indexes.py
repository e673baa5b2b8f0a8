from dataclasses import dataclass

import numpy as np
import pytest
from django.db import connection

from kb import words
from kb.backends import get_backend
from kb.models import Chunk, Collection, Embedding, EmbeddingSpace, Job, PendingVector, Posting
from tests.kb.rows import make_document

pytestmark = pytest.mark.django_db


@dataclass(frozen=True)
class Model:
    model_name: str
    dimensions: int


def indexes_of(space: EmbeddingSpace) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT indexdef FROM pg_indexes WHERE tablename = 'kb_embedding'")
        definitions = [definition for (definition,) in cursor.fetchall()]
    return [found for found in definitions if f"(space_id = {space.pk})" in found]


def test_the_first_model_is_active_at_once_and_a_later_one_waits_for_its_switch() -> None:
    first = EmbeddingSpace.objects.ensure(Model("first", 8))
    second = EmbeddingSpace.objects.ensure(Model("second", 16))
    assert (EmbeddingSpace.objects.active(), second.state) == (first, "building")

    second.switch()

    assert EmbeddingSpace.objects.active() == second
    first.refresh_from_db()
    assert first.state == "retired"


def test_a_model_has_one_space_with_one_partial_index_however_often_it_is_asked_for() -> None:
    space = EmbeddingSpace.objects.ensure(Model("first", 8))

    assert EmbeddingSpace.objects.ensure(Model("first", 8)) == space
    (index,) = indexes_of(space)
    assert "hnsw" in index
    assert "halfvec(8)" in index


def test_a_space_wider_than_an_index_takes_has_none() -> None:
    space = EmbeddingSpace.objects.ensure(Model("wide", 4_001))

    assert not space.is_indexed
    assert not indexes_of(space)


def test_vectors_come_back_as_they_were_copied(collection: Collection) -> None:
    document = make_document(collection, "a.md", ["one", "two", "two"])
    space = EmbeddingSpace.objects.active()
    hashes = [chunk.text_hash for chunk in document.chunks.order_by("position")]

    known = Embedding.objects.known(space, [*hashes, "0" * 64])

    assert set(known) == set(hashes)
    expected = get_backend("EMBEDDER").embed_query("two")
    assert known[hashes[1]].dtype == np.float32
    np.testing.assert_array_equal(known[hashes[1]], expected)
    assert Embedding.objects.filter(document=document).count() == 3


def test_copying_nothing_writes_nothing(collection: Collection) -> None:
    space = EmbeddingSpace.objects.ensure(Model("first", 8))

    assert Embedding.objects.copy(space, []) == 0


def test_a_vector_of_another_space_is_not_known(collection: Collection) -> None:
    other = EmbeddingSpace.objects.ensure(Model("other", 8))
    document = make_document(collection, "a.md", ["one"])

    assert Embedding.objects.known(other, [document.chunks.get().text_hash]) == {}


def test_pending_vectors_are_kept_once_for_each_job() -> None:
    space = EmbeddingSpace.objects.ensure(Model("first", 3))
    job, other = (Job.objects.create(kind=Job.Kind.INGEST) for _ in range(2))
    vector = np.array([1, 0, 0], np.float32)

    PendingVector.objects.copy(job, space, [("a" * 64, vector), ("b" * 64, -vector)])
    PendingVector.objects.copy(job, space, [("a" * 64, -vector)])

    known = PendingVector.objects.known(job, space)
    assert set(known) == {"a" * 64, "b" * 64}
    np.testing.assert_array_equal(known["a" * 64], vector)
    assert PendingVector.objects.known(other, space) == {}


def frequencies(chunk: Chunk) -> list[int]:
    return sorted(chunk.postings.values_list("frequency", flat=True))


def test_a_passage_has_a_posting_for_each_lexeme_with_its_frequency(
    collection: Collection,
) -> None:
    # Stemmed: glacier 2, melt 1; "the" is a stop word.
    document = make_document(collection, "a.md", ["The glacier, the glaciers melting"])

    assert frequencies(document.chunks.get()) == [1, 2]


def test_words_are_stemmed_by_the_language_of_their_passage(collection: Collection) -> None:
    text = "Häuser und the Haus"

    german = make_document(collection, "a.md", [text], language="german").chunks.get()
    simple = make_document(collection, "b.md", [text], language="simple").chunks.get()

    assert frequencies(german) == [1, 3]  # the; haus, once more as Hauser without its accent
    assert frequencies(simple) == [1] * 5


def test_a_word_kept_as_it_stands_has_a_posting_beside_its_parts(collection: Collection) -> None:
    document = make_document(collection, "a.md", ["max_upload_mb"])

    assert words.read("max_upload_mb").exact
    assert document.chunks.get().postings.count() == 4


def test_a_deleted_document_leaves_no_vector_and_no_posting(collection: Collection) -> None:
    make_document(collection, "kept.md", ["glacier"])
    make_document(collection, "gone.md", ["glacier", "river"]).remove()

    assert Embedding.objects.count() == 1
    assert Posting.objects.count() == 1
