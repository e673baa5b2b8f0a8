"""Conversations as trees of turns, the passages an answer cites, and which model speaks."""

import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

from django.contrib.auth.models import AnonymousUser, Group
from django.db import models, transaction
from django.db.models import Q
from django.utils import timezone

from kb.models.accounts import User
from kb.models.documents import Chunk, Collection, Document, DocumentVersion

if TYPE_CHECKING:
    from django_stubs_ext.db.models.manager import RelatedManager

# The web process that produces an answer renews this; the sweeper ends what was left behind.
ANSWER_LEASE = timedelta(seconds=30)
PREFERRED = "Better than another answer to the question"
NOT_PREFERRED = "Another answer to the question is better"


class ModelDeploymentQuerySet(models.QuerySet["ModelDeployment"]):
    def current_for(
        self, conversation: "Conversation", base_model: str
    ) -> "ModelDeployment | None":
        """Give what speaks in a conversation; None for the base model as it is.

        The newest row on this base counts; whom it does not reach gets its `otherwise`. With a share
        below 1 a conversation keeps its side: it is chosen by its id.
        """
        rows = self.filter(base_model=base_model)
        deployment: ModelDeployment | None = rows.order_by("-pk").first()
        while deployment is not None and not deployment.reaches(conversation):
            deployment = deployment.otherwise
        return deployment


class ModelDeployment(models.Model):
    """Which model speaks, since when, by whom and why; the newest row counts. Append only.

    `adapter_name` is empty for the base model alone. `share`: the part of conversations, 0–1, that
    it answers. `groups`: only their people, where there are any. `audience`: the collections that
    the adapter learned from; only who may read every one of them is served by it. `audience_size`:
    their number, so that a deleted collection does not open to all what it kept to a few.
    """

    base_model = models.CharField(max_length=300)
    adapter_name = models.CharField(max_length=200, blank=True)
    share = models.FloatField(default=1.0)
    groups = models.ManyToManyField(Group, blank=True, related_name="+")
    audience = models.ManyToManyField(Collection, blank=True, related_name="deployments")
    audience_size = models.PositiveIntegerField(default=0)
    otherwise = models.ForeignKey(
        "self", models.PROTECT, null=True, blank=True, related_name="+",
        help_text="What answers the others; the base model where there is none.",
    )  # fmt: skip
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    reason = models.TextField(blank=True)

    objects = ModelDeploymentQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(share__gte=0) & Q(share__lte=1), name="deployment_share_0_to_1"
            ),
        ]

    def __str__(self) -> str:
        return self.adapter_name or self.base_model

    def reaches(self, conversation: "Conversation") -> bool:
        """Say whether it answers here: by share, by group and by what the person may read."""
        user = conversation.user
        if not self.adapter_name:
            return True
        if conversation.pk % 100 >= self.share * 100:
            return False
        groups = self.groups.values("pk")
        if groups.exists() and not user.groups.filter(pk__in=groups).exists():
            return False
        if user.is_superuser:
            return True
        readable = Collection.objects.readable_by(user)
        return self.audience.filter(pk__in=readable).count() == self.audience_size


class ConversationQuerySet(models.QuerySet["Conversation"]):
    def visible_to(self, user: User | AnonymousUser) -> Self:
        """A conversation belongs to the person who started it, and to nobody else."""
        return self.filter(user=user) if user.is_authenticated else self.none()

    def matching(self, words: str) -> Self:
        """Conversations whose title or turns contain the words."""
        in_turns = Message.objects.filter(text__icontains=words).values("conversation")
        return self.filter(Q(title__icontains=words) | Q(pk__in=in_turns))


class Conversation(models.Model):
    """`filters` holds what narrows its searches: {"tags": [...], "media_types": [...], …}."""

    user = models.ForeignKey(User, models.CASCADE, related_name="conversations")
    title = models.CharField(max_length=200, blank=True)
    collections = models.ManyToManyField(
        Collection, blank=True, related_name="+", help_text="None means all that the person reads."
    )
    filters = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(default=timezone.now)

    objects = ConversationQuerySet.as_manager()

    if TYPE_CHECKING:
        messages: RelatedManager["Message"]

    class Meta:
        indexes = [models.Index(fields=["user", "-updated_at"], name="conversation_recent")]

    def __str__(self) -> str:
        return self.title or f"Conversation {self.pk}"


class MessageQuerySet(models.QuerySet["Message"]):
    def visible_to(self, user: User | AnonymousUser) -> Self:
        return self.filter(conversation__in=Conversation.objects.visible_to(user))

    def abandoned(self) -> Self:
        """Answers whose web process is gone."""
        return self.filter(
            state__in=[Message.State.PENDING, Message.State.STREAMING],
            lease_until__lt=timezone.now(),
        )


class Message(models.Model):
    """A turn. Turns with the same parent are branches of each other (edit, regenerate)."""

    class Role(models.TextChoices):
        USER = "user", "Person"
        ASSISTANT = "assistant", "Answer"

    class State(models.TextChoices):
        PENDING = "pending", "Searching"
        STREAMING = "streaming", "Answering"
        DONE = "done", "Done"
        STOPPED = "stopped", "Stopped"
        FAILED = "failed", "Failed"

    conversation = models.ForeignKey(Conversation, models.CASCADE, related_name="messages")
    parent = models.ForeignKey(
        "self", models.CASCADE, null=True, blank=True, related_name="children"
    )
    role = models.CharField(max_length=16, choices=Role)
    text = models.TextField(blank=True)
    state = models.CharField(max_length=16, choices=State, default=State.DONE)
    error = models.TextField(blank=True)
    error_code = models.CharField(max_length=32, blank=True)
    generator = models.CharField(max_length=200, blank=True, help_text="What wrote the answer.")
    deployment = models.ForeignKey(
        ModelDeployment, models.SET_NULL, null=True, blank=True, related_name="+"
    )
    found_nothing = models.BooleanField(default=False, help_text="Not in the documents.")
    support = models.JSONField(default=list, blank=True)
    trace = models.JSONField(default=dict, blank=True)
    prompt_tokens = models.PositiveIntegerField(null=True, blank=True)
    completion_tokens = models.PositiveIntegerField(null=True, blank=True)
    lease_token = models.UUIDField(null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    stop_requested = models.BooleanField(default=False)
    created_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = MessageQuerySet.as_manager()

    if TYPE_CHECKING:
        citations: RelatedManager["Citation"]
        feedback: RelatedManager["Feedback"]
        children: RelatedManager["Message"]

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=["pending", "streaming", "done", "stopped", "failed"]),
                name="message_state_known",
            ),
            models.CheckConstraint(
                condition=Q(role__in=["user", "assistant"]), name="message_role_known"
            ),
        ]
        indexes = [
            models.Index(
                fields=["lease_until"],
                condition=Q(state__in=["pending", "streaming"]),
                name="message_open",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.role}: {self.text[:40]}"

    @property
    def is_final(self) -> bool:
        return self.state not in (self.State.PENDING, self.State.STREAMING)

    def claim(self) -> bool:
        """Take a pending answer so that it is produced once; False when somebody has it."""
        token, until = uuid.uuid4(), timezone.now() + ANSWER_LEASE
        pending = Message.objects.filter(pk=self.pk, state=self.State.PENDING, lease_token=None)
        self.lease_token = token
        return bool(
            pending.update(state=self.State.STREAMING, lease_token=token, lease_until=until)
        )

    def keep(self, text: str) -> bool:
        """Save what was produced so far and renew the lease; False when stopped or taken over."""
        until = timezone.now() + ANSWER_LEASE
        mine = Message.objects.filter(
            pk=self.pk, lease_token=self.lease_token, state=self.State.STREAMING
        )
        return bool(mine.filter(stop_requested=False).update(text=text, lease_until=until))

    def finish(self, state: str, **fields: Any) -> bool:
        """End the answer, once; False when it has ended already."""
        mine = Message.objects.filter(
            pk=self.pk,
            lease_token=self.lease_token,
            state__in=[self.State.PENDING, self.State.STREAMING],
        )
        return bool(
            mine.update(state=state, lease_until=None, finished_at=timezone.now(), **fields)
        )

    def request_stop(self) -> None:
        """Ask the process that writes the answer to stop; what was written stays."""
        Message.objects.filter(pk=self.pk).update(stop_requested=True)

    def branches(self) -> list[int]:
        """Ids of this turn and its alternatives, oldest first."""
        same = Message.objects.filter(
            conversation_id=self.conversation_id, parent_id=self.parent_id, role=self.role
        )
        return list(same.order_by("pk").values_list("pk", flat=True))

    def rate(self, user: User, value: int, *, reason: str = "", corrected: str = "") -> "Feedback":
        """Keep the person's judgement of this answer, replacing an earlier one."""
        return Feedback.objects.update_or_create(
            message=self,
            user=user,
            defaults={"value": value, "reason": reason, "corrected_answer": corrected},
        )[0]

    def take_rating_back(self, user: User) -> None:
        self.feedback.filter(user=user).delete()

    def prefer_to(self, other: "Message", user: User) -> None:
        """Rate this answer right and the other wrong; what was said of them so before stays."""
        with transaction.atomic():
            for answer, value in ((self, Feedback.Value.UP), (other, Feedback.Value.DOWN)):
                if not answer.feedback.filter(user=user, value=value).exists():
                    answer.rate(user, value, reason=PREFERRED if value > 0 else NOT_PREFERRED)


class CitationQuerySet(models.QuerySet["Citation"]):
    def visible_to(self, user: User | AnonymousUser) -> Self:
        """Citations in the person's own answers of documents they may still read."""
        return self.filter(
            message__in=Message.objects.visible_to(user),
            document__in=Document.objects.visible_to(user),
        )

    def openable_by(self, user: User | AnonymousUser) -> Self:
        """Visible ones, and those of documents deleted from collections the person may still read.

        There the kept quote is shown.
        """
        kept = Q(document=None, collection__in=Collection.objects.readable_by(user))
        mine = self.filter(message__in=Message.objects.visible_to(user))
        return mine.filter(Q(document__in=Document.objects.visible_to(user)) | kept)


class Citation(models.Model):
    """A passage an answer could cite, as it was then.

    `start`, `end`: [start, end) in the version's text. `is_cited`: the answer names its marker.
    """

    message = models.ForeignKey(Message, models.CASCADE, related_name="citations")
    marker = models.PositiveSmallIntegerField()
    is_cited = models.BooleanField(default=False)
    chunk = models.ForeignKey(Chunk, models.SET_NULL, null=True, blank=True, related_name="+")
    version = models.ForeignKey(
        DocumentVersion, models.SET_NULL, null=True, blank=True, related_name="+"
    )
    document = models.ForeignKey(Document, models.SET_NULL, null=True, blank=True, related_name="+")
    collection = models.ForeignKey(
        Collection, models.SET_NULL, null=True, blank=True, related_name="+"
    )
    title = models.CharField(max_length=500)
    heading_path = models.JSONField(default=list)
    page_first = models.PositiveIntegerField(default=1)
    page_last = models.PositiveIntegerField(default=1)
    start = models.PositiveIntegerField()
    end = models.PositiveIntegerField()
    quote = models.TextField()
    score = models.FloatField(default=0)

    objects = CitationQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["message", "marker"], name="citation_marker_once"),
        ]


class Feedback(models.Model):
    class Value(models.IntegerChoices):
        DOWN = -1, "Wrong"
        UP = 1, "Right"

    message = models.ForeignKey(Message, models.CASCADE, related_name="feedback")
    user = models.ForeignKey(User, models.CASCADE, related_name="+")
    value = models.SmallIntegerField(choices=Value)
    reason = models.TextField(blank=True)
    corrected_answer = models.TextField(blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["message", "user"], name="feedback_once"),
            models.CheckConstraint(condition=Q(value__in=[-1, 1]), name="feedback_value_known"),
        ]
