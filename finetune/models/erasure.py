"""What must be forgotten, kept for good: what is under way when it is said must not slip through."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.utils import timezone

from finetune.models.pairs import Dataset
from finetune.models.snapshots import DatasetSnapshot
from kb.models import User


class ErasureQuerySet(models.QuerySet["Erasure"]):
    def note(self, snapshot: DatasetSnapshot) -> str:
        """Say what an adapter of this snapshot learned that was erased; "" for nothing.

        Belongs into the transaction that writes the adapter down: an erasure waits for it, or it
        for the erasure.
        """
        Dataset.objects.select_for_update().get(pk=snapshot.dataset_id)
        learned = self.filter(copies__snapshot=snapshot, copies__is_learned=True).order_by("pk")
        return " ".join(dict.fromkeys(erasure.note_for_adapters for erasure in learned))


class Erasure(models.Model):
    """A document or a person that must be forgotten: by whose word, and what held it then.

    `key`: the id that outlives the row. `pair_ids`: pairs that were made of it, deleted ones too.
    """

    class Kind(models.TextChoices):
        DOCUMENT = "document", "Document"
        PERSON = "person", "Person"

    kind = models.CharField(max_length=16, choices=Kind)
    key = models.BigIntegerField()
    name = models.CharField(max_length=300)
    reason = models.TextField(blank=True)
    pair_ids = ArrayField(models.BigIntegerField(), default=list)
    snapshots = models.ManyToManyField(
        DatasetSnapshot, through="finetune.ErasedCopy", related_name="erasures"
    )
    by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    at = models.DateTimeField(default=timezone.now)

    objects = ErasureQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(kind__in=["document", "person"]), name="erasure_kind_known"
            ),
        ]

    def __str__(self) -> str:
        return f"“{self.name}”" if self.kind == self.Kind.DOCUMENT else f"what {self.name} wrote"

    @property
    def note_for_adapters(self) -> str:
        return f"It learned from {self}, which was erased. Train it again."


class ErasedCopy(models.Model):
    """A snapshot that keeps what was erased. `is_learned`: not only in the part that is asked."""

    erasure = models.ForeignKey(Erasure, models.CASCADE, related_name="copies")
    snapshot = models.ForeignKey(DatasetSnapshot, models.CASCADE, related_name="erased_copies")
    is_learned = models.BooleanField(default=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["erasure", "snapshot"], name="erased_copy_once"),
        ]
