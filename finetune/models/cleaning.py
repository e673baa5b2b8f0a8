"""A search for duplicates in a data set."""

from typing import Self

from django.contrib.auth.models import AnonymousUser
from django.db import models
from django.utils import timezone

from finetune.models.pairs import Dataset
from kb.models import Job, User


class CleaningQuerySet(models.QuerySet["Cleaning"]):
    def visible_to(self, user: User | AnonymousUser) -> Self:
        return self.filter(dataset__in=Dataset.objects.visible_to(user))


class Cleaning(models.Model):
    """One run over a data set, and over every other one that `started_by` may see.

    `counts`: what it found that `started_by` may see, {"pairs": …, "compared": …, "exact": …, "near": …, "meaning": …,
    "meaning_compared": …, "meaning_left_out": …}.
    """

    dataset = models.ForeignKey(Dataset, models.CASCADE, related_name="cleanings")
    job = models.OneToOneField(Job, models.PROTECT, related_name="cleaning")
    started_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    counts = models.JSONField(default=dict)
    created_at = models.DateTimeField(default=timezone.now)

    objects = CleaningQuerySet.as_manager()

    class Meta:
        indexes = [models.Index(fields=["dataset", "-created_at"], name="cleaning_recent")]

    def counts_for(self, user: User | AnonymousUser) -> dict[str, int]:
        """Give the counts to whom they are of; {} to others, who may see other pairs."""
        is_theirs = user.is_superuser or (user.pk is not None and self.started_by_id == user.pk)
        return self.counts if is_theirs else {}

    def __str__(self) -> str:
        return f"{self.dataset}, {self.created_at:%Y-%m-%d %H:%M}"
