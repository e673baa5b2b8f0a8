"""Training runs, what they measured, and the adapters that came out."""

from typing import TYPE_CHECKING, Self

from django.contrib.auth.models import AnonymousUser
from django.db import models
from django.db.models import Case, Count, Exists, F, OuterRef, Q, Subquery, Value, When
from django.db.models.functions import Coalesce
from django.utils import timezone

from finetune.models.pairs import Dataset
from finetune.models.snapshots import DatasetSnapshot
from kb.models import Collection, Job, User

if TYPE_CHECKING:
    from django_stubs_ext.db.models.manager import RelatedManager


class TrainingRunQuerySet(models.QuerySet["TrainingRun"]):
    def visible_to(self, user: User | AnonymousUser) -> Self:
        """Runs on snapshots that the user may see."""
        return self.filter(snapshot__in=DatasetSnapshot.objects.visible_to(user))


class TrainingRun(models.Model):
    """One fine-tuning of a base model on a snapshot.

    `config`: finetune.hyperparameters.TrainingConfig as JSON. It starts as a DRAFT whose pre-flight
    is looked at first. `preflight` and `manifest` hold their reports. `gpu_seconds` counts the time
    of every device, `energy_wh` what they drew, `cost` in the currency of the settings.
    """

    class State(models.TextChoices):
        DRAFT = "draft", "Pre-flight"
        QUEUED = "queued", "Queued"
        RUNNING = "running", "Training"
        SUCCEEDED = "succeeded", "Succeeded"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"

    snapshot = models.ForeignKey(DatasetSnapshot, models.PROTECT, related_name="runs")
    name = models.CharField(max_length=120)
    state = models.CharField(max_length=16, choices=State, default=State.DRAFT)
    config = models.JSONField(default=dict)
    sweep = models.CharField(max_length=64, blank=True, help_text="Runs started together.")
    preflight = models.JSONField(default=dict, blank=True)
    preflight_job = models.OneToOneField(
        Job, models.PROTECT, null=True, blank=True, related_name="preflight_run"
    )
    job = models.OneToOneField(
        Job, models.PROTECT, null=True, blank=True, related_name="training_run"
    )
    cancel_requested = models.BooleanField(default=False)
    log_tail = models.TextField(blank=True)
    error = models.TextField(blank=True)
    manifest = models.JSONField(default=dict, blank=True)
    device = models.CharField(max_length=200, blank=True)
    gpu_seconds = models.FloatField(default=0)
    energy_wh = models.FloatField(default=0)
    cost = models.FloatField(default=0)
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = TrainingRunQuerySet.as_manager()

    if TYPE_CHECKING:
        metrics: RelatedManager["TrainingMetric"]
        adapter: "Adapter"

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(
                    state__in=["draft", "queued", "running", "succeeded", "failed", "cancelled"]
                ),
                name="run_state_known",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def is_final(self) -> bool:
        return self.state in (self.State.SUCCEEDED, self.State.FAILED, self.State.CANCELLED)

    @property
    def may_go_on(self) -> bool:
        """Whether it ended without an adapter, or its pre-flight without a report."""
        State = self.State
        return self.state in (State.FAILED, State.CANCELLED) or bool(
            self.error and self.state == State.DRAFT
        )

    @property
    def is_blocked(self) -> bool:
        """Whether the pre-flight found that it cannot work."""
        return any(line["level"] == "stop" for line in self.preflight.get("lines", []))


class TrainingMetric(models.Model):
    """What was measured after an optimizer step. Losses in nats per target token."""

    run = models.ForeignKey(TrainingRun, models.CASCADE, related_name="metrics")
    step = models.PositiveIntegerField()
    epoch = models.FloatField(default=0)
    loss = models.FloatField(null=True, blank=True)
    evaluation_loss = models.FloatField(null=True, blank=True)
    learning_rate = models.FloatField(null=True, blank=True)
    tokens_per_s = models.FloatField(null=True, blank=True)
    memory_bytes = models.PositiveBigIntegerField(null=True, blank=True)
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["run", "step"], name="metric_step_once"),
        ]


class AdapterQuerySet(models.QuerySet["Adapter"]):
    def visible_to(self, user: User | AnonymousUser) -> Self:
        """Adapters that learned only from what the user may read."""
        if not user.is_authenticated:
            return self.none()
        if user.is_superuser:
            return self.all()
        readable = Collection.objects.readable_by(user)
        return self.alias(
            readable=Count("audience", filter=Q(audience__in=readable), distinct=True)
        ).filter(readable=F("audience_size"))

    def managed_by(self, user: User | AnonymousUser) -> Self:
        """Visible ones that the user may evaluate and activate: as an owner of the collection."""
        owned = Collection.objects.owned_by(user)
        return self.visible_to(user).filter(run__snapshot__dataset__collection__in=owned)

    def with_gate(self, user: User | AnonymousUser) -> Self:
        """Say as `gate_state` what the gate says of each, an Adapter.Gate; "" where it is not theirs.

        As activation.gate decides: by the newest evaluation that is done, unless something was erased.
        """
        evaluations = Evaluation.objects.filter(adapter=OuterRef("pk"))
        done = evaluations.filter(state=Evaluation.State.DONE).order_by("-pk")
        open_ = evaluations.filter(job__state__in=[Job.State.WAITING, Job.State.RUNNING])
        Gate = Adapter.Gate
        return self.alias(
            newest_passed=Subquery(done.values(found=Coalesce("passed", False))[:1])
        ).annotate(
            gate_state=Case(
                When(~Q(erasure_note=""), then=Value(Gate.REFUSED)),
                When(~Q(run__in=TrainingRun.objects.visible_to(user)), then=Value("")),
                When(newest_passed=True, then=Value(Gate.PASSED)),
                When(newest_passed=False, then=Value(Gate.REFUSED)),
                When(Exists(open_), then=Value(Gate.EVALUATING)),
                default=Value(Gate.NOT_EVALUATED),
                output_field=models.CharField(),
            )
        )


class Adapter(models.Model):
    """What a run left, under a name that is never used again: `<slug>-v<N>-<digest8>`.

    `files`: file name → SHA-256. `contract`: what each kind of server would refuse, as sentences.
    `audience`: the collections it learned from; `audience_size` their number at registration, so
    that a deleted collection opens nothing. `is_wanted`: servers should have it loaded.
    """

    class Gate(models.TextChoices):
        PASSED = "passed", "Passed"
        REFUSED = "refused", "Not passed"
        EVALUATING = "evaluating", "Evaluating"
        NOT_EVALUATED = "not_evaluated", "Not evaluated"

    run = models.OneToOneField(TrainingRun, models.PROTECT, related_name="adapter")
    name = models.CharField(max_length=200, unique=True)
    base_model = models.CharField(max_length=300)
    base_revision = models.CharField(max_length=100, blank=True)
    kind = models.CharField(max_length=32, default="lora")
    files = models.JSONField(default=dict)
    contract = models.JSONField(default=dict)
    card = models.TextField(blank=True)
    audience = models.ManyToManyField(Collection, related_name="adapters")
    audience_size = models.PositiveIntegerField(default=0)
    is_wanted = models.BooleanField(default=False)
    erasure_note = models.TextField(blank=True, help_text="What it learned that was erased since.")
    retired_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    objects = AdapterQuerySet.as_manager()

    if TYPE_CHECKING:
        gate_state: str  # of AdapterQuerySet.with_gate
        evaluations: RelatedManager["Evaluation"]
        activations: RelatedManager["Activation"]

    def __str__(self) -> str:
        return self.name


class Evaluation(models.Model):
    """An adapter held against its base on the same questions.

    `results`: {"cells": {"base", "base+retrieval", "adapter", "adapter+retrieval": {metric: {"mean",
    "low", "high", "n"}}}, "tests": {metric: {"difference", "low", "high", "p"}}, "safety": …}.
    `gate`: {"passed": bool, "lines": [{"name", "passed", "sentence"}]}.
    """

    class State(models.TextChoices):
        QUEUED = "queued", "Queued"
        RUNNING = "running", "Evaluating"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"

    adapter = models.ForeignKey(Adapter, models.CASCADE, related_name="evaluations")
    state = models.CharField(max_length=16, choices=State, default=State.QUEUED)
    job = models.OneToOneField(Job, models.PROTECT, related_name="evaluation")
    settings = models.JSONField(default=dict)
    results = models.JSONField(default=dict, blank=True)
    gate = models.JSONField(default=dict, blank=True)
    passed = models.BooleanField(null=True, blank=True)
    created_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True, blank=True)

    if TYPE_CHECKING:
        items: RelatedManager["EvaluationItem"]

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=["queued", "running", "done", "failed"]),
                name="evaluation_state_known",
            ),
        ]


class EvaluationItem(models.Model):
    """One question of an evaluation in one cell: what was answered, and its scores."""

    evaluation = models.ForeignKey(Evaluation, models.CASCADE, related_name="items")
    cell = models.CharField(max_length=32)
    suite = models.CharField(max_length=32, default="test")
    position = models.PositiveIntegerField()
    pair_id = models.BigIntegerField(null=True, blank=True)
    question = models.TextField()
    expected = models.TextField(blank=True)
    output = models.TextField(blank=True)
    scores = models.JSONField(default=dict)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["evaluation", "suite", "cell", "position"], name="evaluation_item_once"
            ),
        ]


class Activation(models.Model):
    """An adapter's way to the readers, and back. Each step is written down before the next.

    `share`, `groups` as in kb.ModelDeployment. `approved_by`: the second person, or who overrode
    the gate with `override_reason`.
    """

    class State(models.TextChoices):
        WAITING = "waiting", "Waits for a second person"
        REQUESTED = "requested", "Requested"
        PLACED = "placed", "Placed"
        LOADED = "loaded", "Loaded"
        PROBED = "probed", "Probed"
        DEPLOYED = "deployed", "Deployed"
        REPLACED = "replaced", "Replaced"
        ROLLED_BACK = "rolled_back", "Rolled back"
        STOPPED = "stopped", "Stopped by its guard"
        FAILED = "failed", "Failed"

    adapter = models.ForeignKey(Adapter, models.PROTECT, related_name="activations")
    state = models.CharField(max_length=16, choices=State, default=State.REQUESTED)
    share = models.FloatField(default=1.0)
    groups = models.ManyToManyField("auth.Group", blank=True, related_name="+")
    evaluation = models.ForeignKey(Evaluation, models.SET_NULL, null=True, blank=True)
    requested_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    approved_by = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    reason = models.TextField(blank=True)
    override_reason = models.TextField(blank=True)
    probe = models.JSONField(default=dict, blank=True)
    error = models.TextField(blank=True)
    deployment = models.ForeignKey(
        "kb.ModelDeployment", models.PROTECT, null=True, blank=True, related_name="+"
    )
    job = models.OneToOneField(
        Job, models.PROTECT, null=True, blank=True, related_name="activation"
    )
    created_at = models.DateTimeField(default=timezone.now)
    deployed_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)


class ArenaVote(models.Model):
    """Two answers side by side, names hidden: which one a person preferred.

    `adapter_is_left` was drawn by chance. `verdict`: "left", "right", "tie" or "neither"; empty
    until voted.
    """

    adapter = models.ForeignKey(Adapter, models.CASCADE, related_name="arena_votes")
    question = models.TextField()
    left = models.TextField()
    right = models.TextField()
    adapter_is_left = models.BooleanField()
    verdict = models.CharField(max_length=16, blank=True)
    voter = models.ForeignKey(User, models.SET_NULL, null=True, blank=True, related_name="+")
    judge_verdict = models.CharField(max_length=16, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    voted_at = models.DateTimeField(null=True, blank=True)


class RetrainRule(models.Model):
    """When a data set asks for a new run: any condition that is set and met. 0 or None: not set."""

    dataset = models.OneToOneField(Dataset, models.CASCADE, related_name="retrain_rule")
    is_on = models.BooleanField(default=True)
    new_pairs = models.PositiveIntegerField(default=0, help_text="Approved since the last run.")
    stale_share = models.FloatField(default=0, help_text="Of the last snapshot's pairs, 0–1.")
    rating_drop = models.FloatField(default=0, help_text="Fall of the share of good ratings, 0–1.")
    every_days = models.PositiveIntegerField(default=0)
    last_fired_at = models.DateTimeField(null=True, blank=True)
    last_reason = models.CharField(max_length=300, blank=True)
