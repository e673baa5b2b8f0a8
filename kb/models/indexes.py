"""What search looks into: vectors of passages, and the postings of their words."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from django.db import connection, models, transaction
from django.db.models import Q
from django.utils import timezone
from pgvector.django import VectorField

from kb import words
from kb.models.documents import Chunk, Document
from kb.models.jobs import Job

# pgvector indexes halfvec up to here; a wider space is searched exactly.
MAX_INDEXED_DIMENSIONS = 4_000
# Serializes the first use of a model by several workers.
_ENSURE_LOCK = 7_151_988


class Model(Protocol):
    """What a space has to know of an embedder."""

    model_name: str
    dimensions: int


class EmbeddingSpaceQuerySet(models.QuerySet["EmbeddingSpace"]):
    def active(self) -> "EmbeddingSpace":
        """The space that searches use. Raises EmbeddingSpace.DoesNotExist before set-up."""
        return self.get(state=EmbeddingSpace.State.ACTIVE)

    def ensure(self, embedder: Model) -> "EmbeddingSpace":
        """Give the model's space; on first use make it, with its index.

        The very first space is active at once, a later one is built beside it until `switch()`.
        """
        try:
            return self.get(model_name=embedder.model_name)
        except EmbeddingSpace.DoesNotExist:
            return self._make(embedder)

    def _make(self, embedder: Model) -> "EmbeddingSpace":
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_ENSURE_LOCK])
            is_first = not self.filter(state=EmbeddingSpace.State.ACTIVE).exists()
            state = EmbeddingSpace.State.ACTIVE if is_first else EmbeddingSpace.State.BUILDING
            space, created = self.get_or_create(
                model_name=embedder.model_name,
                defaults={"dimensions": embedder.dimensions, "state": state},
            )
            if created:
                space.create_index()
        return space


class EmbeddingSpace(models.Model):
    """One embedding model with its width; vectors of different spaces are never compared."""

    class State(models.TextChoices):
        BUILDING = "building", "Building"
        ACTIVE = "active", "Active"
        RETIRED = "retired", "Retired"

    model_name = models.CharField(max_length=200, unique=True)
    dimensions = models.PositiveIntegerField()
    state = models.CharField(max_length=16, choices=State, default=State.BUILDING)
    created_at = models.DateTimeField(default=timezone.now)

    objects = EmbeddingSpaceQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=["building", "active", "retired"]), name="space_state_known"
            ),
            models.UniqueConstraint(
                fields=["state"], condition=Q(state="active"), name="space_one_active"
            ),
        ]

    def __str__(self) -> str:
        return self.model_name

    @property
    def index_name(self) -> str:
        return f"embedding_hnsw_{self.pk}"

    @property
    def is_indexed(self) -> bool:
        return self.dimensions <= MAX_INDEXED_DIMENSIONS

    def create_index(self) -> None:
        """Build the space's partial HNSW index; half precision halves it at equal recall."""
        if not self.is_indexed:
            return
        with connection.cursor() as cursor:
            cursor.execute(
                f"CREATE INDEX IF NOT EXISTS {self.index_name} ON kb_embedding"
                f" USING hnsw ((vector::halfvec({self.dimensions})) halfvec_ip_ops)"
                f" WHERE space_id = {self.pk}"
            )

    def switch(self) -> None:
        """Make this the space that searches use; the one before is retired."""
        with transaction.atomic():
            active = EmbeddingSpace.objects.select_for_update().filter(state=self.State.ACTIVE)
            active.exclude(pk=self.pk).update(state=self.State.RETIRED)
            self.state = self.State.ACTIVE
            self.save(update_fields=["state"])


class EmbeddingQuerySet(models.QuerySet["Embedding"]):
    def copy(self, space: EmbeddingSpace, rows: Iterable[tuple[int, np.ndarray]]) -> int:
        """Write vectors of stored chunks, (chunk id, unit vector) each; gives their number.

        COPY BINARY: 31,000 rows/s where INSERT managed 400.
        """
        rows = list(rows)
        if not rows:
            return 0
        ids = [chunk_id for chunk_id, _ in rows]
        documents = dict(Chunk.objects.filter(pk__in=ids).values_list("pk", "document_id"))
        data = _copy_binary(
            space, ids, [documents[id_] for id_ in ids], np.stack([vector for _, vector in rows])
        )
        statement = (
            "COPY kb_embedding (space_id, chunk_id, document_id, vector) FROM STDIN (FORMAT BINARY)"
        )
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(data)
        return len(rows)

    def known(self, space: EmbeddingSpace, hashes: Iterable[str]) -> dict[str, np.ndarray]:
        """Give the vectors of searchable passages by their text hash, where there are any."""
        statement = """
            SELECT DISTINCT ON (c.text_hash) c.text_hash, vector_send(e.vector)
              FROM kb_chunk c JOIN kb_embedding e ON e.chunk_id = c.id
             WHERE c.text_hash = ANY(%s) AND e.space_id = %s
        """
        return fetch_vectors(statement, [list(set(hashes)), space.pk])


class Embedding(models.Model):
    """The unit-length vector of one passage in one space."""

    space = models.ForeignKey(EmbeddingSpace, models.CASCADE, related_name="embeddings")
    chunk = models.ForeignKey(Chunk, models.CASCADE, related_name="embeddings")
    # Of the chunk; kept here so that permission and filters need no join while the index is walked.
    document = models.ForeignKey(Document, models.CASCADE, related_name="+")
    vector = VectorField()

    objects = EmbeddingQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["chunk", "space"], name="embedding_once"),
        ]


class PendingVectorQuerySet(models.QuerySet["PendingVector"]):
    def copy(self, job: Job, space: EmbeddingSpace, rows: Iterable[tuple[str, np.ndarray]]) -> None:
        """Keep vectors by text hash; those that are kept already stay as they are."""
        pending = [
            PendingVector(job=job, space=space, text_hash=text_hash, vector=vector)
            for text_hash, vector in rows
        ]
        PendingVector.objects.bulk_create(pending, ignore_conflicts=True)

    def known(self, job: Job, space: EmbeddingSpace) -> dict[str, np.ndarray]:
        """Give the vectors that an earlier attempt of this job has kept, by text hash."""
        statement = """
            SELECT text_hash, vector_send(vector) FROM kb_pendingvector
             WHERE job_id = %s AND space_id = %s
        """
        return fetch_vectors(statement, [job.pk, space.pk])


class PendingVector(models.Model):
    """A vector computed for a version that is not published yet; a killed worker loses none."""

    job = models.ForeignKey(Job, models.CASCADE, related_name="+")
    space = models.ForeignKey(EmbeddingSpace, models.CASCADE, related_name="+")
    text_hash = models.CharField(max_length=64)
    vector = VectorField()

    objects = PendingVectorQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["job", "space", "text_hash"], name="pending_vector_once"
            ),
        ]


def _copy_binary(
    space: EmbeddingSpace,
    chunk_ids: Sequence[int],
    document_ids: Sequence[int],
    vectors: np.ndarray,
) -> bytes:
    """Write rows as PostgreSQL's binary COPY stream. vectors: (N, D)."""
    count, dimensions = vectors.shape
    row = np.dtype(
        [
            ("columns", ">i2"),
            *[
                field
                for name in ("space", "chunk", "document")
                for field in ((f"{name}_size", ">i4"), (name, ">i8"))
            ],
            ("vector_size", ">i4"),
            ("dimensions", ">i2"),
            ("unused", ">i2"),
            ("vector", ">f4", (dimensions,)),
        ]
    )
    rows = np.zeros(count, row)
    rows["columns"] = 4
    rows["space_size"] = rows["chunk_size"] = rows["document_size"] = 8
    rows["space"], rows["chunk"], rows["document"] = space.pk, chunk_ids, document_ids
    rows["vector_size"], rows["dimensions"] = 4 + 4 * dimensions, dimensions
    rows["vector"] = vectors
    signature, flags_and_extension, trailer = b"PGCOPY\n\xff\r\n\0", bytes(8), b"\xff\xff"
    return signature + flags_and_extension + rows.tobytes() + trailer


def fetch_vectors(statement: str, parameters: Any) -> dict[Any, np.ndarray]:
    """Read rows of a key and what `vector_send` gives: sizes in four bytes, then the numbers."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        rows = cursor.fetchall()
    if not rows:
        return {}
    received = np.frombuffer(b"".join(data for _, data in rows), ">f4").reshape(len(rows), -1)
    return dict(zip((key for key, _ in rows), received[:, 1:].astype(np.float32), strict=True))


_INDEX = """
INSERT INTO kb_posting (term, chunk_id, document_id, frequency, length)
SELECT hashtextextended(p.language || ':' || t.lexeme, 0), p.chunk_id, p.document_id,
       cardinality(t.positions), p.length
  FROM unnest(%(chunk_ids)s::bigint[], %(document_ids)s::bigint[], %(languages)s::text[],
              %(lengths)s::int[], %(texts)s::text[])
         AS p (chunk_id, document_id, language, length, text),
       LATERAL unnest(to_tsvector(p.language::regconfig, p.text)) AS t
 UNION ALL
SELECT hashtextextended(':' || w.word, 0), w.chunk_id, w.document_id, w.frequency, w.length
  FROM unnest(%(word_chunk_ids)s::bigint[], %(word_document_ids)s::bigint[],
              %(words)s::text[], %(frequencies)s::int[], %(word_lengths)s::int[])
         AS w (chunk_id, document_id, word, frequency, length)
    ON CONFLICT DO NOTHING
"""


class PostingQuerySet(models.QuerySet["Posting"]):
    def index(self, chunks: Sequence[Chunk], texts: Sequence[str]) -> None:
        """Write the postings of stored chunks. `texts`: what each is found by, headings included."""
        read = [words.read(text) for text in texts]
        lengths = [_length(text) for text in read]
        exact = [
            (chunk, length, word, frequency)
            for chunk, length, text in zip(chunks, lengths, read, strict=True)
            for word, frequency in text.exact.items()
        ]
        parameters: dict[str, Any] = {
            "chunk_ids": [chunk.pk for chunk in chunks],
            "document_ids": [chunk.document_id for chunk in chunks],
            "languages": [chunk.language for chunk in chunks],
            "lengths": lengths,
            "texts": [text.plain for text in read],
            "word_chunk_ids": [chunk.pk for chunk, _, _, _ in exact],
            "word_document_ids": [chunk.document_id for chunk, _, _, _ in exact],
            "words": [word for _, _, word, _ in exact],
            "frequencies": [frequency for _, _, _, frequency in exact],
            "word_lengths": [length for _, length, _, _ in exact],
        }
        with connection.cursor() as cursor:
            cursor.execute(_INDEX, parameters)


def _length(text: words.Words) -> int:
    """Count the words; in a script without spaces, the pieces that stand for them."""
    return min(max(text.plain_words().total(), text.exact.total(), 1), 32_767)


class Posting(models.Model):
    """A passage holds a term: how often, and how long the passage is in words, headings included.

    BM25 needs no more (idf is counted while searching), so nothing goes stale when passages come
    and go. `term` is a 64-bit hash of `language:lexeme`: writers never wait for each other over a
    new word, and among a million terms two share a hash with a chance of 1 in 37 million.
    The primary key's index also holds the other columns (migration 0002).
    """

    pk = models.CompositePrimaryKey("term", "chunk")
    term = models.BigIntegerField()
    chunk = models.ForeignKey(Chunk, models.CASCADE, related_name="postings")
    # Of the chunk, whose deletion takes the posting along; hence no constraint and no index.
    document = models.ForeignKey(
        Document, models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False
    )
    frequency = models.PositiveSmallIntegerField()
    length = models.PositiveSmallIntegerField()

    objects = PostingQuerySet.as_manager()
