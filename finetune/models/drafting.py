"""Runs that draft pairs from passages."""

from typing import Self

from django.contrib.auth.models import AnonymousUser
from django.db import models
from django.db.models import Q
from django.utils import timezone

from finetune.models.pairs import Dataset
from kb.models import Job, User


class DraftingQuerySet(models.QuerySet["Drafting"]):
    def visible_to(self, user: User | AnonymousUser) -> Self:
        return self.filter(dataset__in=Dataset.objects.visible_to(user))


class Drafting(models.Model):
    """One run: how many pairs are wanted, from which passages, asked in which ways.

    `choice`: {"styles": […], "collections": [ids], "documents": [ids], "unused_first": bool,
    "distractors": 0–100, "abstentions": 0–100}, the last two in percent of the pairs. `plan`: ids
    of the passages in the order they are taken, fixed when the run starts. `position`: how many of
    the plan's steps are done. `problems`: why drafts were thrown away, {sentence: how often}.
    """

    dataset = models.ForeignKey(Dataset, models.CASCADE, related_name="draftings")
    job = models.OneToOneField(Job, models.PROTECT, related_name="drafting")
    started_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    wanted = models.PositiveIntegerField()
    choice = models.JSONField(default=dict)
    plan = models.JSONField(default=list, blank=True)
    position = models.PositiveIntegerField(default=0)
    written = models.PositiveIntegerField(default=0)
    problems = models.JSONField(default=dict, blank=True)
    author_label = models.CharField(max_length=200, blank=True, help_text="What writes the drafts.")
    created_at = models.DateTimeField(default=timezone.now)

    objects = DraftingQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(wanted__gte=1, wanted__lte=10_000), name="drafting_wanted_1_to_10000"
            ),
        ]
        indexes = [models.Index(fields=["dataset", "-created_at"], name="drafting_recent")]

    def __str__(self) -> str:
        return f"{self.dataset}, {self.created_at:%Y-%m-%d %H:%M}"
