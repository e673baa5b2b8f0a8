"""What search looks into: vectors of passages, and the postings of their words."""

from django.db import models
from django.db.models import Q
from django.utils import timezone
from pgvector.django import VectorField

from kb.models.documents import Chunk
from kb.models.jobs import Job


class EmbeddingSpaceQuerySet(models.QuerySet["EmbeddingSpace"]):
    def active(self) -> "EmbeddingSpace":
        """The space that searches use. Raises EmbeddingSpace.DoesNotExist before set-up."""
        return self.get(state=EmbeddingSpace.State.ACTIVE)


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


class Embedding(models.Model):
    """The unit-length vector of one passage in one space."""

    space = models.ForeignKey(EmbeddingSpace, models.CASCADE, related_name="embeddings")
    chunk = models.ForeignKey(Chunk, models.CASCADE, related_name="embeddings")
    vector = VectorField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["chunk", "space"], name="embedding_once"),
        ]


class PendingVector(models.Model):
    """A vector computed for a version that is not published yet; a killed worker loses none."""

    job = models.ForeignKey(Job, models.CASCADE, related_name="+")
    space = models.ForeignKey(EmbeddingSpace, models.CASCADE, related_name="+")
    text_hash = models.CharField(max_length=64)
    vector = VectorField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["job", "space", "text_hash"], name="pending_vector_once"
            ),
        ]


class Term(models.Model):
    """A lexeme of one language."""

    language = models.CharField(max_length=32)
    lexeme = models.TextField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["language", "lexeme"], name="term_once"),
        ]


class Posting(models.Model):
    """A passage holds a term. `weight` is BM25's part without idf: term frequency and length."""

    pk = models.CompositePrimaryKey("term", "chunk")
    term = models.ForeignKey(Term, models.CASCADE, related_name="postings", db_index=False)
    chunk = models.ForeignKey(Chunk, models.CASCADE, related_name="postings")
    weight = models.FloatField()
