"""What people said about answers, sorted by what went wrong."""

from typing import TYPE_CHECKING, Self

from django.contrib.auth.models import AnonymousUser
from django.db import models
from django.db.models import Case, Exists, OuterRef, Q, Subquery, Value, When
from django.db.models.functions import Coalesce
from django.utils import timezone
from pgvector.django import VectorField

from finetune.models.pairs import InstructionPair
from kb.models import Collection, Document, DocumentVersion, Message, User

if TYPE_CHECKING:
    from django_stubs_ext.db.models.manager import RelatedManager


class TriageItemQuerySet(models.QuerySet["TriageItem"]):
    def visible_to(self, user: User | AnonymousUser) -> Self:
        """Items for the collections the user curates, whose passages the user may all read."""
        items = self.filter(collection__in=Collection.objects.writable_by(user))
        if user.is_superuser:
            return items
        closed = Collection.objects.filter(triage_passages=OuterRef("pk")).exclude(
            pk__in=Collection.objects.readable_by(user)
        )
        return items.filter(~Exists(closed), has_lost_sources=False)

    def open(self) -> Self:
        return self.filter(state=TriageItem.State.OPEN)

    def to_sort(self) -> Self:
        """Open ones that tell of something wrong; what was rated right only waits to be used."""
        return self.open().exclude(signal=TriageItem.Signal.UP)


class TriageItem(models.Model):
    """An answer that somebody rated: called wrong or right, corrected, or missed in the documents.

    The person who rates hands question, answer and passages to the curators; the rating form says
    so. `collection` is the one whose passages the answer cites most, or that was asked;
    `passage_collections` are those of all its passages; where nothing was found, of none but
    `collection`: that answer tells nothing of the passages. `has_lost_sources`: one of them was
    deleted, so only administrators remain.
    """

    class Signal(models.TextChoices):
        DOWN = "down", "Rated wrong"
        CORRECTED = "corrected", "Corrected"
        NOTHING_FOUND = "nothing_found", "Not in the documents"
        UP = "up", "Rated right"

    class Category(models.TextChoices):
        UNSORTED = "", "Not sorted"
        NOT_FOUND = "not_found", "The passage was not found"
        WRONG_ANSWER = "wrong_answer", "The passage was there, the answer was wrong"
        NO_DOCUMENT = "no_document", "No document has it"

    class State(models.TextChoices):
        OPEN = "open", "Open"
        DONE = "done", "Done"
        DISMISSED = "dismissed", "Dismissed"

    message = models.OneToOneField(Message, models.CASCADE, related_name="triage")
    collection = models.ForeignKey(Collection, models.CASCADE, related_name="+")
    passage_collections = models.ManyToManyField(
        Collection, blank=True, related_name="triage_passages"
    )
    has_lost_sources = models.BooleanField(default=False)
    signal = models.CharField(max_length=16, choices=Signal)
    guess = models.CharField(max_length=16, choices=Category, blank=True)
    category = models.CharField(max_length=16, choices=Category, blank=True)
    state = models.CharField(max_length=16, choices=State, default=State.OPEN)
    question = models.TextField()
    reason = models.TextField(blank=True)
    corrected_answer = models.TextField(blank=True)
    pair = models.ForeignKey(
        InstructionPair, models.SET_NULL, null=True, blank=True, related_name="+"
    )
    decided_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    decided_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    objects = TriageItemQuerySet.as_manager()

    class Meta:
        indexes = [models.Index(fields=["collection", "state", "-created_at"], name="triage_open")]

    def __str__(self) -> str:
        return self.question[:60]

    @property
    def searched(self) -> str:
        """What was searched for: a follow-up question with the subject of the one before it."""
        queries: list[str] = self.message.trace.get("queries", [])
        return queries[0] if queries else self.question


class RetrievalQuestionQuerySet(models.QuerySet["RetrievalQuestion"]):
    def visible_to(self, user: User | AnonymousUser) -> Self:
        """Questions whose right passage stands in a collection the user curates."""
        return self.filter(collection__in=Collection.objects.writable_by(user))


class RetrievalQuestion(models.Model):
    """A question and the passage that answers it: [start, end) in the version's text.

    `script/bench retrieval --saved` measures search with them. `text` finds the passage again in
    a later version.
    """

    question = models.TextField()
    collection = models.ForeignKey(Collection, models.CASCADE, related_name="retrieval_questions")
    document = models.ForeignKey(Document, models.CASCADE, related_name="+")
    version = models.ForeignKey(DocumentVersion, models.CASCADE, related_name="+")
    start = models.PositiveIntegerField()
    end = models.PositiveIntegerField()
    text = models.TextField()
    triage = models.ForeignKey(
        TriageItem, models.SET_NULL, null=True, blank=True, related_name="retrieval_questions"
    )
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)

    objects = RetrievalQuestionQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(end__gt=models.F("start")), name="retrieval_question_span"
            ),
        ]

    def __str__(self) -> str:
        return self.question[:60]


class KnowledgeGapQuerySet(models.QuerySet["KnowledgeGap"]):
    def visible_to(self, user: User | AnonymousUser) -> Self:
        return self.filter(collection__in=Collection.objects.writable_by(user))

    def named_for(self, user: User | AnonymousUser) -> Self:
        """Add `name`, what the user may read of what a gap asks; "" where that is nothing.

        A title that a person gave; else the question that gave it, or the first the user may see.
        """
        asked = GapQuestion.objects.visible_to(user).filter(gap=OuterRef("pk"))
        bears_it = Case(When(text=OuterRef("title"), then=1), default=0)
        seen = Subquery(asked.annotate(n=bears_it).order_by("-n", "pk").values("text")[:1])
        given = When(is_renamed=True, then="title")
        return self.annotate(
            name=Case(given, default=Coalesce(seen, Value(""), output_field=models.TextField()))
        )


class KnowledgeGap(models.Model):
    """Something that people ask and no document says: the questions that mean the same, as one.

    `title`: the question that opened it, which not every curator may read (`named_for`), until a
    person gives it another; then it `is_renamed`.
    """

    class State(models.TextChoices):
        OPEN = "open", "Open"
        ASSIGNED = "assigned", "Assigned"
        CLOSED = "closed", "Closed"

    collection = models.ForeignKey(Collection, models.CASCADE, related_name="knowledge_gaps")
    title = models.TextField()
    is_renamed = models.BooleanField(default=False)
    state = models.CharField(max_length=16, choices=State, default=State.OPEN)
    assigned_to = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    note = models.TextField(blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    closed_at = models.DateTimeField(null=True, blank=True)

    objects = KnowledgeGapQuerySet.as_manager()

    if TYPE_CHECKING:
        questions: RelatedManager["GapQuestion"]
        name: str  # by `named_for`

    def __str__(self) -> str:
        return self.title[:60]


class GapQuestionQuerySet(models.QuerySet["GapQuestion"]):
    def visible_to(self, user: User | AnonymousUser) -> Self:
        """Questions of gaps and of rated answers that the user may both see."""
        return self.filter(
            gap__in=KnowledgeGap.objects.visible_to(user),
            triage__in=TriageItem.objects.visible_to(user),
        )


class GapQuestion(models.Model):
    """One asking of a gap, with its embedding, by which later ones join."""

    gap = models.ForeignKey(KnowledgeGap, models.CASCADE, related_name="questions")
    triage = models.OneToOneField(TriageItem, models.CASCADE, related_name="gap_question")
    text = models.TextField()
    vector = VectorField()
    created_at = models.DateTimeField(default=timezone.now)

    objects = GapQuestionQuerySet.as_manager()
