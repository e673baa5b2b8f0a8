"""Instruction pairs, where they come from, and what people judged of them."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

from django.contrib.auth.models import AnonymousUser
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone
from pgvector.django import VectorField

from kb.models import Collection, Document, DocumentVersion, Message, User

if TYPE_CHECKING:
    from django_stubs_ext.db.models.manager import RelatedManager

# A reviewer who left the page gives the pair back after this long.
CLAIM = timedelta(minutes=10)


class DatasetQuerySet(models.QuerySet["Dataset"]):
    def visible_to(self, user: User | AnonymousUser) -> Self:
        """Data sets of collections that the user curates."""
        return self.filter(collection__in=Collection.objects.writable_by(user))

    def owned_by(self, user: User | AnonymousUser) -> Self:
        """Data sets whose settings the user may change."""
        return self.filter(collection__in=Collection.objects.owned_by(user))


class Dataset(models.Model):
    """A named set of pairs that the curators of one collection keep.

    `reviews_wanted`: how many different people must agree before a pair is approved.
    """

    class Purpose(models.TextChoices):
        TRAINING = "training", "Training"
        EVALUATION = "evaluation", "Evaluation"

    collection = models.ForeignKey(Collection, models.CASCADE, related_name="datasets")
    name = models.CharField(max_length=120)
    description = models.TextField(blank=True)
    purpose = models.CharField(max_length=16, choices=Purpose, default=Purpose.TRAINING)
    reviews_wanted = models.PositiveSmallIntegerField(default=1)
    # What finetune.queueing learned: signal → [judged, changed, weight].
    queue = models.JSONField(default=dict, db_default={}, blank=True)
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)

    objects = DatasetQuerySet.as_manager()

    if TYPE_CHECKING:
        pairs: RelatedManager["InstructionPair"]

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["collection", "name"], name="dataset_name_once"),
            models.CheckConstraint(
                condition=Q(purpose__in=["training", "evaluation"]), name="dataset_purpose_known"
            ),
            models.CheckConstraint(
                condition=Q(reviews_wanted__gte=1, reviews_wanted__lte=5),
                name="dataset_reviews_1_to_5",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class InstructionPairQuerySet(models.QuerySet["InstructionPair"]):
    def visible_to(self, user: User | AnonymousUser) -> Self:
        """Pairs in collections the user curates, all of whose sources the user may read.

        A source whose collection is gone can be read by nobody but administrators.
        """
        pairs = self.filter(collection__in=Collection.objects.writable_by(user))
        if user.is_superuser:
            return pairs
        closed = PairSource.objects.filter(pair=OuterRef("pk")).exclude(
            collection__in=Collection.objects.readable_by(user)
        )
        return pairs.filter(~Exists(closed))

    def approved(self) -> Self:
        return self.filter(state=InstructionPair.State.APPROVED)

    def awaiting(self, user: User) -> Self:
        """Pairs that this person may judge now: open, not theirs already, with nobody else."""
        judged = Review.objects.standing().filter(pair=OuterRef("pk"), reviewer=user)
        return self.filter(
            Q(claimed_by=None) | Q(claimed_by=user) | Q(claimed_until__lt=timezone.now()),
            ~Exists(judged),
            state__in=InstructionPair.OPEN,
        )


class InstructionPair(models.Model):
    """What a model should answer to an instruction, and what it should not (`rejected`).

    `messages`: turns before the last exchange, [{"role": …, "content": …}], where there are any;
    `instruction` is always the last thing the person says; where turns of tools stand between it and
    the output, a turn of role "instruction" marks its place. `output` may be empty only where
    `rejected` is not. `origin_key` names what the pair was made from, so that it is made once.
    `priority`: higher is reviewed first; kept by finetune.queueing. Quality columns are computed
    when the pair is written (finetune.quality): `repetition` 0–1 is the share of repeated word
    groups, `support` 0–1 the share of the output's sentences that its sources hold, `flags` name
    what a reviewer should look at and `findings` where: [kind, field, start, end].
    """

    class State(models.TextChoices):
        SUGGESTED = "suggested", "Suggested"
        APPROVED = "approved", "Approved"
        REJECTED = "rejected", "Rejected"
        STALE = "stale", "Stale"

    class Origin(models.TextChoices):
        IMPORT = "import", "Imported"
        TYPED = "typed", "Typed by hand"
        PASSAGE = "passage", "Drafted from passages"
        DISTRACTOR = "distractor", "Drafted with distracting passages"
        ANSWER = "answer", "Rated answer"
        PREFERENCE = "preference", "Choice between answers"
        ABSTENTION = "abstention", "Not in the documents"

    class Flag(models.TextChoices):
        PERSONAL_DATA = "personal_data", "Personal data"
        SECRET = "secret", "Secret"
        UNSUPPORTED = "unsupported", "Not supported by its passage"
        REFUSAL = "refusal", "Refusal"
        TEMPLATE = "template", "Template residue"
        ENCODING = "encoding", "Broken encoding"
        REPETITION = "repetition", "Repeats itself"
        LANGUAGE = "language", "Question and answer differ in language"
        SHORT = "short", "Very short"
        LONG = "long", "Very long"

    OPEN = ("suggested", "stale")

    dataset = models.ForeignKey(Dataset, models.CASCADE, related_name="pairs")
    # Of the data set; kept here so that permission needs no join.
    collection = models.ForeignKey(Collection, models.CASCADE, related_name="+")
    state = models.CharField(max_length=16, choices=State, default=State.SUGGESTED)
    origin = models.CharField(max_length=16, choices=Origin)
    origin_key = models.CharField(max_length=128, blank=True)
    system = models.TextField(blank=True)
    messages = models.JSONField(default=list, blank=True)
    instruction = models.TextField()
    input = models.TextField(blank=True)
    output = models.TextField(blank=True)
    rejected = models.TextField(blank=True)
    tags = ArrayField(models.CharField(max_length=50), default=list, blank=True)
    language = models.CharField(max_length=32, blank=True)
    extra = models.JSONField(
        default=dict, blank=True, help_text="What an imported row held besides, kept for export."
    )
    message = models.ForeignKey(
        Message,
        models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        help_text="The rated answer it came from.",
    )
    pair_import = models.ForeignKey(
        "finetune.PairImport", models.SET_NULL, null=True, blank=True, related_name="pairs"
    )
    row_number = models.PositiveIntegerField(null=True, blank=True)
    author = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    author_label = models.CharField(
        max_length=200, blank=True, help_text="Who or what wrote it: a person, a file, a model."
    )
    reviewer = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    reviewed_at = models.DateTimeField(null=True, blank=True)
    reject_reason = models.CharField(max_length=300, blank=True)
    stale_reason = models.CharField(max_length=300, blank=True)
    is_disputed = models.BooleanField(default=False, help_text="Reviewers disagree.")
    # Rises when a decided pair is opened again; judgements count in their own round.
    round = models.PositiveSmallIntegerField(default=1, db_default=1)
    signals = ArrayField(
        models.CharField(max_length=16), default=list, db_default=[], blank=True,
        help_text="Why it should be looked at early; kept by finetune.queueing.",
    )  # fmt: skip
    priority = models.FloatField(default=0)
    claimed_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    claimed_until = models.DateTimeField(null=True, blank=True)
    # Quality columns.
    content_hash = models.CharField(max_length=64, db_index=True)
    bands = ArrayField(models.BigIntegerField(), default=list, blank=True)
    word_count = models.PositiveIntegerField(default=0)
    output_words = models.PositiveIntegerField(default=0)
    repetition = models.FloatField(default=0)
    support = models.FloatField(null=True, blank=True)
    flags = ArrayField(models.CharField(max_length=16), default=list, blank=True)
    findings = models.JSONField(default=list, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(default=timezone.now)

    objects = InstructionPairQuerySet.as_manager()

    if TYPE_CHECKING:
        sources: RelatedManager["PairSource"]
        reviews: RelatedManager["Review"]

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=["suggested", "approved", "rejected", "stale"]),
                name="pair_state_known",
            ),
            models.CheckConstraint(condition=~Q(output="", rejected=""), name="pair_has_an_answer"),
            models.UniqueConstraint(
                fields=["dataset", "origin", "origin_key"],
                condition=~Q(origin_key=""),
                name="pair_made_once",
            ),
        ]
        indexes = [
            models.Index(fields=["dataset", "state", "-priority", "id"], name="pair_queue"),
            models.Index(
                fields=["dataset", "-priority", "id"],
                condition=Q(state__in=["suggested", "stale"]),
                name="pair_open_queue",
            ),
            models.Index(fields=["pair_import", "row_number"], name="pair_row"),
            GinIndex(fields=["tags"], name="pair_tags"),
            GinIndex(fields=["flags"], name="pair_flags"),
        ]

    def __str__(self) -> str:
        return self.instruction[:60]

    @property
    def is_preference(self) -> bool:
        return bool(self.rejected)

    def begin_round(self) -> None:
        """Open a decided pair to be judged anew; the caller saves it. Needs a transaction."""
        Review.objects.standing().filter(pair=self).update(is_void=True)
        self.state, self.round = self.State.SUGGESTED, self.round + 1
        self.reviewer = self.reviewed_at = None
        self.reject_reason, self.is_disputed = "", False
        self.updated_at = timezone.now()

    def content(self) -> dict[str, Any]:
        """Give what a reviewer judges and an edit changes."""
        return {name: getattr(self, name) for name in CONTENT_FIELDS}


CONTENT_FIELDS = ("system", "messages", "instruction", "input", "output", "rejected", "tags")


class PairSource(models.Model):
    """A passage behind a pair, as it was: [start, end) in its version's text.

    A distractor was put beside the right passages so that the model learns to tell them apart.
    `audience` is who could read the collection when the pair was last approved:
    {"public": bool, "users": [ids], "groups": [ids]}. `standing` is what finetune.staleness found
    when it last compared the text with the document, in the version `checked_version`.
    """

    class Standing(models.TextChoices):
        STANDS = "stands", "Stands in the document"
        CHANGED = "changed", "Changed in the document"
        GONE = "gone", "The document was deleted"

    pair = models.ForeignKey(InstructionPair, models.CASCADE, related_name="sources")
    marker = models.PositiveSmallIntegerField(help_text="Counts from 1, as [1] in the output.")
    is_distractor = models.BooleanField(default=False)
    collection = models.ForeignKey(
        Collection, models.SET_NULL, null=True, blank=True, related_name="+"
    )
    document = models.ForeignKey(
        Document, models.SET_NULL, null=True, blank=True, related_name="pair_sources"
    )
    version = models.ForeignKey(
        DocumentVersion, models.SET_NULL, null=True, blank=True, related_name="+"
    )
    document_name = models.CharField(max_length=255)
    # Outlives the document, so that splits and erasure still know which pairs belong together.
    document_key = models.BigIntegerField(db_index=True, help_text="The document's id.")
    version_number = models.PositiveIntegerField(default=1)
    title = models.CharField(max_length=500)
    heading_path = models.JSONField(default=list)
    page_first = models.PositiveIntegerField(default=1)
    page_last = models.PositiveIntegerField(default=1)
    start = models.PositiveIntegerField()
    end = models.PositiveIntegerField()
    text = models.TextField()
    score = models.FloatField(default=0)
    similarity = models.FloatField(default=0)
    audience = models.JSONField(default=dict, blank=True)
    standing = models.CharField(
        max_length=16, choices=Standing, default=Standing.STANDS, db_default="stands"
    )
    checked_version = models.BigIntegerField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["pair", "marker"], name="pair_source_marker_once"),
        ]
        indexes = [
            models.Index(fields=["document", "checked_version"], name="pair_source_checked"),
            models.Index(
                fields=["pair"],
                condition=Q(document=None) & ~Q(standing="gone"),
                name="pair_source_lost",
            ),
        ]

    def __str__(self) -> str:
        return f"[{self.marker}] {self.title}"


class PairVector(models.Model):
    """The embedding of a pair's instruction and output, for duplicates of meaning and "similar"."""

    pair = models.OneToOneField(
        InstructionPair, models.CASCADE, primary_key=True, related_name="vector"
    )
    content_hash = models.CharField(max_length=64, help_text="Of the content that was embedded.")
    model_name = models.CharField(max_length=200)
    vector = VectorField()


class ReviewQuerySet(models.QuerySet["Review"]):
    def standing(self) -> Self:
        """Judgements that nobody took back and that no new version of the pair made void."""
        return self.filter(undone_at=None, is_void=False)


class Review(models.Model):
    """One person's judgement of a pair. `before` and `after` hold the content around an edit."""

    class Verdict(models.TextChoices):
        APPROVE = "approve", "Approved"
        REJECT = "reject", "Rejected"

    pair = models.ForeignKey(InstructionPair, models.CASCADE, related_name="reviews")
    reviewer = models.ForeignKey(
        User, models.SET_NULL, null=True, blank=True, related_name="pair_reviews"
    )
    verdict = models.CharField(max_length=16, choices=Verdict)
    was_edited = models.BooleanField(default=False)
    reason = models.CharField(max_length=300, blank=True)
    before = models.JSONField(default=dict)
    after = models.JSONField(default=dict)
    state_before = models.CharField(max_length=16)
    seconds = models.FloatField(default=0, help_text="From seeing the pair to judging it.")
    is_void = models.BooleanField(default=False, help_text="The pair has changed since.")
    content_hash = models.CharField(max_length=64, blank=True, help_text="Of what was judged.")
    round = models.PositiveSmallIntegerField(default=1, help_text="The pair's, then.")
    undone_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    objects = ReviewQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(verdict__in=["approve", "reject"]), name="review_verdict_known"
            ),
            models.UniqueConstraint(
                fields=["pair", "reviewer"],
                condition=Q(undone_at=None, is_void=False),
                name="review_once_a_person",
            ),
        ]
        indexes = [models.Index(fields=["reviewer", "-created_at"], name="review_recent")]


class SavedView(models.Model):
    """A person's filter over the list of pairs, under a name. `query`: the address's query."""

    user = models.ForeignKey(User, models.CASCADE, related_name="+")
    dataset = models.ForeignKey(Dataset, models.CASCADE, related_name="saved_views")
    name = models.CharField(max_length=80)
    query = models.TextField(blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["user", "dataset", "name"], name="saved_view_name_once"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class DuplicateClusterQuerySet(models.QuerySet["DuplicateCluster"]):
    def visible_to(self, user: User | AnonymousUser) -> Self:
        """Clusters all of whose pairs the user may see."""
        hidden = DuplicateMember.objects.filter(cluster=OuterRef("pk")).exclude(
            pair__in=InstructionPair.objects.visible_to(user)
        )
        return self.filter(~Exists(hidden), dataset__in=Dataset.objects.visible_to(user))


class DuplicateCluster(models.Model):
    """Pairs that say the same, of one data set and, where `crosses`, of others beside it.

    `key`: a hash of the members, so that what was decided once is not asked again.
    """

    class Kind(models.TextChoices):
        EXACT = "exact", "Exact"
        NEAR = "near", "Nearly the same words"
        MEANING = "meaning", "Same meaning"

    class Decision(models.TextChoices):
        OPEN = "open", "Open"
        KEPT_ONE = "kept_one", "Kept one"
        KEPT_ALL = "kept_all", "Kept all"

    dataset = models.ForeignKey(Dataset, models.CASCADE, related_name="duplicate_clusters")
    kind = models.CharField(max_length=16, choices=Kind)
    decision = models.CharField(max_length=16, choices=Decision, default=Decision.OPEN)
    key = models.CharField(max_length=64)
    size = models.PositiveIntegerField()
    crosses = models.BooleanField(default=False, help_text="Reaches into another data set.")
    touches_evaluation = models.BooleanField(default=False)
    decided_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    decided_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    objects = DuplicateClusterQuerySet.as_manager()

    if TYPE_CHECKING:
        members: RelatedManager["DuplicateMember"]

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["dataset", "kind", "key"], name="cluster_once"),
        ]

    @property
    def in_order(self) -> list["DuplicateMember"]:
        """Its members, the one to keep first."""
        return sorted(self.members.all(), key=lambda member: member.position)


class DuplicateMember(models.Model):
    """A pair in a cluster. `similarity` 0–1 to the cluster's first member."""

    cluster = models.ForeignKey(DuplicateCluster, models.CASCADE, related_name="members")
    pair = models.ForeignKey(InstructionPair, models.CASCADE, related_name="duplicate_members")
    position = models.PositiveIntegerField()
    similarity = models.FloatField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["cluster", "pair"], name="cluster_pair_once"),
        ]
