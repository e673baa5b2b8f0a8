"""Frozen data sets: rows and file never change again; the database refuses it."""

from typing import TYPE_CHECKING, Self

from django.contrib.auth.models import AnonymousUser
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from finetune.models.pairs import Dataset, InstructionPair
from kb.models import Collection, Job, User

if TYPE_CHECKING:
    from django_stubs_ext.db.models.manager import RelatedManager

    from finetune.models.erasure import Erasure
    from finetune.models.training import TrainingRun


class DatasetSnapshotQuerySet(models.QuerySet["DatasetSnapshot"]):
    def visible_to(self, user: User | AnonymousUser) -> Self:
        """Snapshots of data sets the user curates, all of whose sources the user may read."""
        snapshots = self.filter(dataset__in=Dataset.objects.visible_to(user))
        if user.is_superuser:
            return snapshots
        closed = Collection.objects.filter(snapshot_audiences=OuterRef("pk")).exclude(
            pk__in=Collection.objects.readable_by(user)
        )
        return snapshots.filter(~Exists(closed), has_lost_sources=False)


class DatasetSnapshot(models.Model):
    """The approved pairs of a data set at one moment, rendered, split and hashed.

    `audience`: the collections a person must be able to read, every one, to see the snapshot or be
    served by what learned from it; `has_lost_sources`: one of them was deleted already, so only
    administrators remain. `counts`: pairs a split. `sha256`: of the file, JSON lines.
    """

    class State(models.TextChoices):
        QUEUED = "queued", "Queued"
        READY = "ready", "Ready"
        FAILED = "failed", "Failed"

    dataset = models.ForeignKey(Dataset, models.CASCADE, related_name="snapshots")
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=16, choices=State, default=State.QUEUED)
    seed = models.PositiveIntegerField(default=0)
    train_share = models.FloatField(default=0.8)
    validation_share = models.FloatField(default=0.1)
    prompt_version = models.CharField(max_length=32, blank=True)
    counts = models.JSONField(default=dict)
    statistics = models.JSONField(default=dict)
    leakage = models.JSONField(default=dict)
    manifest = models.JSONField(default=dict)
    file = models.FileField(max_length=200, blank=True)
    sha256 = models.CharField(max_length=64, blank=True)
    audience = models.ManyToManyField(Collection, related_name="snapshot_audiences")
    has_lost_sources = models.BooleanField(default=False)
    job = models.OneToOneField(Job, models.PROTECT, related_name="snapshot")
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)

    objects = DatasetSnapshotQuerySet.as_manager()

    if TYPE_CHECKING:
        rows: RelatedManager["SnapshotRow"]
        erasures: RelatedManager["Erasure"]
        runs: RelatedManager["TrainingRun"]

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["dataset", "number"], name="snapshot_number_once"),
            models.CheckConstraint(
                condition=Q(state__in=["queued", "ready", "failed"]), name="snapshot_state_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.dataset} #{self.number}"

    def why_not_train(self) -> str:
        """Say what it holds that must be forgotten; "" when nothing, so that runs may learn it."""
        erased = dict.fromkeys(map(str, self.erasures.order_by("pk")))
        if not erased:
            return ""
        return f"The snapshot keeps {', '.join(erased)}, which was erased. Freeze a new one."


class SnapshotRow(models.Model):
    """One line of a snapshot's file. `pair_id` stays when the pair is deleted."""

    class Split(models.TextChoices):
        TRAIN = "train", "Train"
        VALIDATION = "validation", "Validation"
        TEST = "test", "Test"

    snapshot = models.ForeignKey(DatasetSnapshot, models.CASCADE, related_name="rows")
    position = models.PositiveIntegerField()
    split = models.CharField(max_length=16, choices=Split)
    pair = models.ForeignKey(
        InstructionPair, models.DO_NOTHING, db_constraint=False, related_name="snapshot_rows"
    )
    content_hash = models.CharField(max_length=64)
    group = models.CharField(max_length=64, help_text="Pairs of one group stand in one split.")
    document_keys = ArrayField(models.BigIntegerField(), default=list)
    line = models.TextField(help_text="The line as it stands in the file.")
    token_count = models.PositiveIntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["snapshot", "position"], name="snapshot_row_once"),
        ]
        indexes = [GinIndex(fields=["document_keys"], name="snapshot_row_documents")]
