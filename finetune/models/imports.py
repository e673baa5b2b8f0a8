"""Files of pairs that were brought in, and the rows that could not be."""

from typing import TYPE_CHECKING, Self

from django.contrib.auth.models import AnonymousUser
from django.db import models
from django.utils import timezone

from finetune.models.pairs import Dataset
from kb.models import Collection, Job, User

if TYPE_CHECKING:
    from django_stubs_ext.db.models.manager import RelatedManager


class PairImportQuerySet(models.QuerySet["PairImport"]):
    def visible_to(self, user: User | AnonymousUser) -> Self:
        return self.filter(dataset__in=Dataset.objects.visible_to(user))


class PairImport(models.Model):
    """One file of pairs. Without a job it waits on its preview page for somebody to confirm it.

    `mapping`: which column gives which field, {"instruction": "prompt", …}.
    """

    class Format(models.TextChoices):
        ALPACA = "alpaca", "Alpaca"
        SHAREGPT = "sharegpt", "ShareGPT"
        MESSAGES = "messages", "Messages"
        PROMPT_COMPLETION = "prompt_completion", "Prompt and completion"
        COLUMNS = "columns", "Columns, mapped by hand"

    class Container(models.TextChoices):
        JSON = "json", "JSON"
        JSONL = "jsonl", "JSON lines"
        CSV = "csv", "CSV"
        PARQUET = "parquet", "Parquet"

    dataset = models.ForeignKey(Dataset, models.CASCADE, related_name="imports")
    name = models.CharField(max_length=255)
    file = models.FileField(max_length=200)
    sha256 = models.CharField(max_length=64)
    size_bytes = models.PositiveBigIntegerField()
    container = models.CharField(max_length=16, choices=Container)
    format = models.CharField(max_length=32, choices=Format)
    mapping = models.JSONField(default=dict)
    row_count = models.PositiveIntegerField(default=0)
    imported_count = models.PositiveIntegerField(default=0)
    problem_count = models.PositiveIntegerField(default=0)
    job = models.OneToOneField(
        Job, models.PROTECT, null=True, blank=True, related_name="pair_import"
    )
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)

    objects = PairImportQuerySet.as_manager()

    if TYPE_CHECKING:
        problems: RelatedManager["ImportProblem"]

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["dataset", "sha256"], name="pair_import_once"),
        ]

    def __str__(self) -> str:
        return self.name


class ImportProblem(models.Model):
    """A row that could not be taken: its number from 1, why, and the row as it stood."""

    pair_import = models.ForeignKey(PairImport, models.CASCADE, related_name="problems")
    row_number = models.PositiveIntegerField()
    reason = models.CharField(max_length=300)
    raw = models.TextField(blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["pair_import", "row_number"], name="import_problem_row_once"
            ),
        ]


class ColumnMapping(models.Model):
    """How a collection's curators last mapped these very columns. `columns`: sorted, joined."""

    collection = models.ForeignKey(Collection, models.CASCADE, related_name="+")
    columns = models.TextField()
    mapping = models.JSONField(default=dict)
    updated_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["collection", "columns"], name="column_mapping_once"),
        ]
