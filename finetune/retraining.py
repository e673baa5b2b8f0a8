"""When a data set should be trained again: the rules its owner set, looked at by the sweeper.

A rule that is met freezes a snapshot and drafts a run with the settings of the last one. People
look at its pre-flight and start it; nothing is ever activated by a rule.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from finetune import guard, snapshots, training
from finetune.hyperparameters import InvalidConfig, TrainingConfig
from finetune.models import (
    Dataset,
    DatasetSnapshot,
    InstructionPair,
    RetrainRule,
    TrainingRun,
)
from kb.models import Message

RECENT = timedelta(days=30)
MAX_VERSION = 1_000_000


@dataclass(frozen=True, slots=True)
class LastRun:
    """The newest run of a data set that succeeded, and when its snapshot was frozen."""

    run: TrainingRun
    frozen_at: datetime
    finished_at: datetime


def last_run(dataset: Dataset) -> LastRun | None:
    runs = TrainingRun.objects.filter(
        snapshot__dataset=dataset, state=TrainingRun.State.SUCCEEDED
    ).select_related("snapshot")
    run = runs.order_by("-pk").first()
    if run is None:
        return None
    return LastRun(run, run.snapshot.created_at, run.finished_at or run.created_at)


def reasons(rule: RetrainRule) -> list[str]:
    """Say which of the rule's conditions are met now; none when no run is due."""
    return list(_reasons(rule, last_run(rule.dataset)))


def _reasons(rule: RetrainRule, last: LastRun | None) -> Iterator[str]:
    if rule.new_pairs and (new := _new_pairs(rule.dataset, last)) >= rule.new_pairs:
        yield f"{new:,} pairs were approved since the last run."
    if rule.every_days:
        since = last.finished_at if last else rule.dataset.created_at
        days = (timezone.now() - since).days
        if days >= rule.every_days:
            yield f"The last run was {days:,} days ago."
    if last is None:
        return
    if rule.stale_share and (stale := _stale_share(last.run.snapshot)) >= rule.stale_share:
        yield f"{stale:.0%} of the pairs it learned from are stale."
    if rule.rating_drop and (drop := _rating_drop(rule.dataset)) >= rule.rating_drop:
        yield f"The share of good ratings fell by {drop:.0%} within 30 days."


def _new_pairs(dataset: Dataset, last: LastRun | None) -> int:
    approved = InstructionPair.objects.approved().filter(dataset=dataset)
    return approved.filter(reviewed_at__gt=last.frozen_at).count() if last else approved.count()


def _stale_share(snapshot: DatasetSnapshot) -> float:
    """Share of a snapshot's pairs that are stale or gone by now, 0–1."""
    keys = list(snapshot.rows.values_list("pair_id", flat=True))
    kept = InstructionPair.objects.filter(pk__in=keys).exclude(state=InstructionPair.State.STALE)
    return 1 - kept.count() / len(keys) if keys else 0.0


def _rating_drop(dataset: Dataset) -> float:
    """How far the share of good ratings of its adapters' answers fell; 0 with too few of them."""
    names = list(
        TrainingRun.objects.filter(snapshot__dataset=dataset, adapter__isnull=False).values_list(
            "adapter__name", flat=True
        )
    )
    answers = Message.objects.filter(role="assistant", deployment__adapter_name__in=names)
    recent = Q(created_at__gte=timezone.now() - RECENT)
    now, then = (guard.count(answers.filter(when)).good_share for when in (recent, ~recent))
    if min(now.total, then.total) < guard.LEAST or now.high >= then.low:
        return 0.0
    return then.value - now.value


def is_asking(rule: RetrainRule) -> bool:
    """Say whether the rule asked for a run that nobody has brought to its end yet."""
    if rule.last_fired_at is None:
        return False
    last = last_run(rule.dataset)
    return last is None or last.finished_at < rule.last_fired_at


def look() -> int:
    """Fire the rules that are met and did not ask already; gives their number."""
    fired = 0
    for rule in RetrainRule.objects.filter(is_on=True).select_related("dataset__collection"):
        if not is_asking(rule) and (met := reasons(rule)):
            fired += _fire(rule, " ".join(met)[:300])
    return fired + draft_runs()


def _fire(rule: RetrainRule, reason: str) -> bool:
    now = timezone.now()
    with transaction.atomic():
        same = RetrainRule.objects.filter(pk=rule.pk, last_fired_at=rule.last_fired_at)
        if not same.update(last_fired_at=now, last_reason=reason):
            return False  # another sweeper was faster
        if InstructionPair.objects.approved().filter(dataset=rule.dataset).exists():
            snapshots.start(rule.dataset, None)
    return True


def draft_runs() -> int:
    """Draft a run on each snapshot that a rule had frozen; gives their number."""
    drafted = 0
    for rule in RetrainRule.objects.filter(last_fired_at__isnull=False).select_related("dataset"):
        snapshot = DatasetSnapshot.objects.filter(
            dataset=rule.dataset,
            state=DatasetSnapshot.State.READY,
            created_by=None,
            created_at__gte=rule.last_fired_at,
            runs=None,
            erasures=None,  # nothing may be trained on what must be forgotten
        ).first()
        last = last_run(rule.dataset)
        if snapshot is not None and last is not None and (config := _next(last.run)):
            drafted += _draft(snapshot, config, rule.last_reason)
    return drafted


def _next(run: TrainingRun) -> TrainingConfig | None:
    """Give the settings of the last run with the next version; None when they are refused now."""
    try:
        config = TrainingConfig.from_dict(run.config)
        return replace(config, version=min(config.version + 1, MAX_VERSION))
    except InvalidConfig:
        return None


def _draft(snapshot: DatasetSnapshot, config: TrainingConfig, reason: str) -> bool:
    with transaction.atomic():
        DatasetSnapshot.objects.select_for_update().get(pk=snapshot.pk)
        if snapshot.runs.exists():
            return False
        name = f"{config.slug} {config.version}: {reason}"[:120]
        try:
            training.plan(snapshot, None, name=name, config=config)
        except training.RunRefused:
            return False  # something in it was erased this moment
    return True
