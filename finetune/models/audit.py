"""Who decided what, when. Append only: the database refuses changes."""

from typing import Any, Self

from django.contrib.auth.models import AnonymousUser
from django.db import models
from django.utils import timezone

from kb.models import Collection, User


class AuditEventQuerySet(models.QuerySet["AuditEvent"]):
    def visible_to(self, user: User | AnonymousUser) -> Self:
        """Decisions in collections that the user curates."""
        return self.filter(collection__in=Collection.objects.writable_by(user))

    def record(
        self,
        user: User | None,
        action: str,
        subject: models.Model,
        collection: Collection | None,
        **detail: Any,
    ) -> "AuditEvent":
        """Write down a decision about a row; belongs into the transaction that makes it."""
        return self.create(
            user=user,
            username=user.username if user else "",
            action=action,
            subject_kind=subject._meta.model_name or "",
            subject_id=subject.pk,
            collection=collection,
            detail=detail,
        )


class AuditEvent(models.Model):
    """One decision. `user` is None for the program itself; `username` outlives the account."""

    class Action(models.TextChoices):
        CREATED = "created", "Created"
        APPROVED = "approved", "Approved"
        EDITED = "edited", "Edited"
        REJECTED = "rejected", "Rejected"
        UNDONE = "undone", "Undone"
        REOPENED = "reopened", "Reopened"
        STALE = "stale", "Marked stale"
        DELETED = "deleted", "Deleted"
        TAGGED = "tagged", "Tagged"
        IMPORTED = "imported", "Imported"
        EXPORTED = "exported", "Exported"
        DRAFTED = "drafted", "Drafted"
        TRIAGED = "triaged", "Triaged"
        DUPLICATES_DECIDED = "duplicates", "Decided duplicates"
        FROZEN = "frozen", "Frozen"
        REQUESTED = "requested", "Asked to activate"
        ACTIVATED = "activated", "Activated"
        FAILED = "failed", "Not activated"
        ROLLED_BACK = "rolled_back", "Rolled back"
        STOPPED = "stopped", "Stopped by its guard"
        UNLOADED = "unloaded", "Unloaded"
        ERASED = "erased", "Erased"

    user = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    username = models.CharField(max_length=150, blank=True)
    action = models.CharField(max_length=16, choices=Action)
    subject_kind = models.CharField(max_length=40)
    subject_id = models.BigIntegerField()
    collection = models.ForeignKey(
        Collection, models.SET_NULL, null=True, blank=True, related_name="+"
    )
    detail = models.JSONField(default=dict)
    created_at = models.DateTimeField(default=timezone.now)

    objects = AuditEventQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(fields=["collection", "-created_at"], name="audit_recent"),
            models.Index(fields=["subject_kind", "subject_id"], name="audit_subject"),
        ]

    def __str__(self) -> str:
        return f"{self.username or 'Tacit'} {self.action} {self.subject_kind} {self.subject_id}"
